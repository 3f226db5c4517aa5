"""Stacks on disk: what goes in comes out, in the same form, whole or not at all."""

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pytest
import tifffile
import torch
import zarr
from bad_inputs import FILES, write_colour_png, write_mixed_folder
from numcodecs import Blosc
from PIL import Image
from segmenters import small_segmenter
from skimage.measure import label as components
from zarr.codecs import BloscCodec

from emseg.data.io.stack import read_stack
from emseg.data.normalization import describe_difference, grey_levels
from emseg.errors import InputError
from emseg.inference import Predictor, predict
from emseg.models import build_model
from emseg.segmentation.agglomeration import learn_agglomeration
from emseg.segmentation.segmenter import Segmenter, label_cells
from emseg.segmentation.volume import segment_file, targets_of


@pytest.fixture(scope="module")
def segmenter(stack):
    return small_segmenter(stack[0])


@pytest.fixture(scope="module")
def expected(segmenter, stack):
    return predict(segmenter.predictor.network, stack[0], normalization=segmenter.predictor.normalization)


def test_a_stack_keeps_axes_resolution_and_compression(tmp_path, segmenter, stack, expected):
    source = tmp_path / "stack.tif"
    tifffile.imwrite(
        source, stack[0], photometric="minisblack", compression="zlib", resolution=(2500, 1250), resolutionunit=3
    )
    segment_file(segmenter, source, tmp_path / "out.tif")
    with tifffile.TiffFile(tmp_path / "out.tif") as tiff:
        np.testing.assert_array_equal(tiff.asarray(), expected)
        page = tiff.pages.first
        assert tiff.series[0].axes in ("ZYX", "QYX", "IYX")
        assert page.compression.name == "ADOBE_DEFLATE"
        assert page.resolution == (2500, 1250)
        assert page.tags["ResolutionUnit"].value == 3
    assert not list(tmp_path.glob(".out.tif.*"))


def test_imagej_and_ome_keep_their_voxel_size(tmp_path, segmenter, stack):
    voxel = {"spacing": 0.05, "unit": "um", "axes": "ZYX"}
    tifffile.imwrite(tmp_path / "imagej.tif", stack[0], imagej=True, metadata=voxel, resolution=(250, 250))
    size = {"axes": "ZYX", "PhysicalSizeX": 0.004, "PhysicalSizeXUnit": "µm", "PhysicalSizeZ": 0.05}
    tifffile.imwrite(tmp_path / "ome.tif", stack[0], ome=True, metadata=size)
    for name in ("imagej", "ome"):
        segment_file(segmenter, tmp_path / f"{name}.tif", tmp_path / f"{name}-out.tif", "mask")
    with tifffile.TiffFile(tmp_path / "imagej-out.tif") as tiff:
        assert tiff.is_imagej
        assert tiff.imagej_metadata["spacing"] == 0.05
        assert tiff.imagej_metadata["unit"] == "um"
        assert tiff.series[0].axes == "ZYX"
        assert tiff.pages.first.resolution == (250, 250)
    with tifffile.TiffFile(tmp_path / "ome-out.tif") as tiff:
        assert tiff.is_ome
        assert 'PhysicalSizeX="0.004"' in tiff.ome_metadata
        assert 'PhysicalSizeZ="0.05"' in tiff.ome_metadata


def test_pages_written_one_after_the_other_are_a_stack(tmp_path, segmenter, stack, expected):
    with tifffile.TiffWriter(tmp_path / "pages.tif") as tiff:
        for section in stack[0]:
            tiff.write(section, photometric="minisblack", compression="zlib")
    segment_file(segmenter, tmp_path / "pages.tif", tmp_path / "out.tif")
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "out.tif"), expected)
    with tifffile.TiffWriter(tmp_path / "mixed.tif") as tiff:
        tiff.write(stack[0][0])
        tiff.write(stack[0][0][:32])
    with pytest.raises(InputError, match="different sizes"):
        segment_file(segmenter, tmp_path / "mixed.tif", tmp_path / "mixed-out.tif")


def test_one_image_a_folder_and_a_png(tmp_path, segmenter, stack, expected):
    tifffile.imwrite(tmp_path / "one.tif", stack[0][0])
    Image.fromarray(stack[0][1]).save(tmp_path / "one.png")
    (tmp_path / "folder").mkdir()
    for index in (1, 2, 10):
        tifffile.imwrite(tmp_path / "folder" / f"s{index}.tif", stack[0][index % 9])
    segment_file(segmenter, tmp_path / "one.tif", tmp_path / "a.tif")
    assert tifffile.imread(tmp_path / "a.tif").shape == stack[0][0].shape
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "a.tif"), expected[0])
    segment_file(segmenter, tmp_path / "one.png", tmp_path / "b.tif")
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "b.tif"), expected[1])
    segment_file(segmenter, tmp_path / "folder", tmp_path / "c")
    assert sorted(file.name for file in (tmp_path / "c").iterdir()) == ["s1.tif", "s10.tif", "s2.tif"]
    np.testing.assert_array_equal(read_stack(tmp_path / "c"), expected[[1, 2, 1]])


@pytest.mark.parametrize(
    "kind",
    [
        {"zarr_format": 3, "compressors": BloscCodec(cname="lz4"), "dimension_names": ("z", "y", "x")},
        {"zarr_format": 3, "compressors": None},
        {"zarr_format": 2, "compressors": Blosc("lz4")},
    ],
    ids=["format 3", "not compressed", "format 2"],
)
def test_zarr_in_zarr_out(tmp_path, segmenter, stack, expected, kind):
    source = zarr.create_array(
        tmp_path / "in.zarr",
        shape=stack[0].shape,
        chunks=(3, 32, 32),
        dtype="uint8",
        attributes={"voxel": [50, 4, 4]},
        **kind,
    )
    source[:] = stack[0]
    segment_file(segmenter, tmp_path / "in.zarr", tmp_path / "out.zarr")
    result = zarr.open(tmp_path / "out.zarr", mode="r")
    np.testing.assert_array_equal(result[:], expected)
    assert dict(result.attrs) == {"voxel": [50, 4, 4], "software": "emseg"}
    assert result.compressors == source.compressors
    assert result.metadata.zarr_format == kind["zarr_format"]
    if "dimension_names" in kind:
        assert result.metadata.dimension_names == kind["dimension_names"]


def test_masks_use_the_threshold_and_cells_are_components_of_it(tmp_path, segmenter, stack, expected):
    tifffile.imwrite(tmp_path / "stack.tif", stack[0], photometric="minisblack")
    threshold = float(np.quantile(expected, 0.3))
    own = Segmenter(segmenter.predictor, threshold, segmenter.grey_levels, "model", "a" * 32)
    segment_file(own, tmp_path / "stack.tif", tmp_path / "mask.tif", "mask")
    segment_file(own, tmp_path / "stack.tif", tmp_path / "cells.tif", "cells")
    mask, cells = (tifffile.imread(tmp_path / f"{name}.tif") for name in ("mask", "cells"))
    np.testing.assert_array_equal(mask, np.where(expected > threshold, 255, 0))
    assert cells.dtype == np.uint16
    assert (cells[mask > 0] > 0).all()
    assert (expected[cells > 0] > min(threshold, 0.5)).all()
    for section in cells:
        for number in np.unique(section[section > 0]):
            assert components(section == number, connectivity=1).max() == 1


def test_the_threshold_tells_cells_apart_and_the_contour_is_at_one_half():
    # Two cells with a bridge of 0.7 between them, in a rim of 0.6, in membrane of 0.1.
    probability = np.full((11, 23), 0.1, np.float32)
    probability[1:-1, 1:-1] = 0.6
    probability[2:-2, 2:-2] = 0.9
    probability[2:-2, 11] = 0.7

    def label_cells_at(threshold):
        return label_cells(probability > threshold, probability, min(threshold, 0.5))

    apart = label_cells_at(0.8)
    assert apart.max() == 2
    assert ((apart > 0) == (probability > 0.5)).all()
    assert len(np.unique(apart[5, 2:11])) == 1
    together = label_cells_at(0.65)
    assert together.max() == 1
    low = label_cells_at(0.05)
    assert (low == 1).all()
    assert label_cells_at(0.95).max() == 0


def test_agglomeration_looks_at_neighbours_also_after_a_kill(tmp_path, segmenter, stack, expected):
    # The untrained network is sure of nothing; rank its probabilities so that there are regions.
    ranked = (expected.argsort(axis=None).argsort() / expected.size).reshape(expected.shape).astype(np.float32)
    answers = {section.tobytes(): probability for section, probability in zip(stack[0], ranked, strict=True)}

    class Ranked(Predictor):
        def section(self, window):
            return answers[window[0].tobytes()]

    agglomeration = learn_agglomeration([(ranked[:5], stack[1][:5] > 0)])
    predictor = Ranked(segmenter.predictor.network, segmenter.predictor.normalization)
    own = Segmenter(predictor, 0.5, segmenter.grey_levels, "model", "a" * 32, agglomeration)
    closed = agglomeration.close_stack(ranked)
    assert (closed != np.stack([agglomeration.close_stack(section[None])[0] for section in ranked])).any()
    tifffile.imwrite(tmp_path / "stack.tif", stack[0], photometric="minisblack")
    for output in ("mask", "cells"):
        whole = segment_file(own, tmp_path / "stack.tif", tmp_path / f"{output}.tif", output)

        def stopped(done, total):
            if done == 4:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            segment_file(own, tmp_path / "stack.tif", tmp_path / f"{output}-again.tif", output, report=stopped)
        again = segment_file(own, tmp_path / "stack.tif", tmp_path / f"{output}-again.tif", output)
        assert again.read_bytes() == whole.read_bytes()
    mask, cells = tifffile.imread(tmp_path / "mask.tif"), tifffile.imread(tmp_path / "cells.tif")
    np.testing.assert_array_equal(mask > 0, (closed > 0.5) & (ranked > 0.5))
    np.testing.assert_array_equal(cells > 0, ranked > 0.5)
    for z in range(len(cells)):
        of_component = components(closed[z] > 0.5, connectivity=1, background=0)
        inside = (mask[z] > 0) & (of_component > 0)
        pairs = np.unique(np.stack([cells[z][inside], of_component[inside]]), axis=1)
        assert len(np.unique(pairs[0])) == len(np.unique(pairs[1])) == pairs.shape[1]


def test_a_network_that_sees_neighbours_sees_them_also_after_a_kill(tmp_path, segmenter, stack):
    torch.manual_seed(0)
    network = build_model("residual_unet", base_channels=4, depth=1, neighbours=1).eval()
    own = replace(segmenter, predictor=Predictor(network, segmenter.predictor.normalization))
    tifffile.imwrite(tmp_path / "stack.tif", stack[0], photometric="minisblack")

    def stopped(done, total):
        if done == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        segment_file(own, tmp_path / "stack.tif", tmp_path / "result.tif", report=stopped)
    segment_file(own, tmp_path / "stack.tif", tmp_path / "result.tif")
    found = tifffile.imread(tmp_path / "result.tif")
    np.testing.assert_array_equal(found, predict(network, stack[0], normalization=own.predictor.normalization))
    alone = predict(network, stack[0][4:5], normalization=own.predictor.normalization)
    assert np.abs(found[4] - alone[0]).max() > 1e-3


@pytest.mark.parametrize("name", FILES)
def test_the_corpus_is_refused_and_leaves_nothing(tmp_path, segmenter, name):
    content, sentence = FILES[name]
    (tmp_path / "in").mkdir()
    source = tmp_path / "in" / name
    source.write_bytes(content)
    with pytest.raises(InputError, match=sentence):
        segment_file(segmenter, source, tmp_path / "out" / "result.tif")
    assert not (tmp_path / "out" / "result.tif").exists()


def test_folders_that_are_no_stack_are_refused(tmp_path, segmenter):
    mixed = write_mixed_folder(tmp_path / "mixed")
    with pytest.raises(InputError, match="one size"):
        segment_file(segmenter, mixed, tmp_path / "out")
    (tmp_path / "nothing").mkdir()
    with pytest.raises(InputError, match="holds no"):
        segment_file(segmenter, tmp_path / "nothing", tmp_path / "out")
    with pytest.raises(InputError, match="in colour"):
        segment_file(segmenter, write_colour_png(tmp_path / "colour.png"), tmp_path / "out.tif")
    zarr.create_group(tmp_path / "group.zarr")
    with pytest.raises(InputError, match="group"):
        segment_file(segmenter, tmp_path / "group.zarr", tmp_path / "out.zarr")
    assert not [path for path in tmp_path.iterdir() if path.name.startswith("out")]


def test_targets_are_checked_before_any_work(tmp_path, segmenter, stack):
    source = tmp_path / "stack.tif"
    tifffile.imwrite(source, stack[0], photometric="minisblack")
    (tmp_path / "taken.tif").write_text("precious")
    with pytest.raises(InputError, match="--overwrite"):
        segment_file(segmenter, source, tmp_path / "taken.tif")
    assert (tmp_path / "taken.tif").read_text() == "precious"
    with pytest.raises(InputError, match="is no result of emseg's and is not replaced"):
        segment_file(segmenter, source, tmp_path / "taken.tif", overwrite=True)
    assert (tmp_path / "taken.tif").read_text() == "precious"
    for _ in range(2):
        segment_file(segmenter, source, tmp_path / "made.tif", overwrite=True)
    assert len(tifffile.imread(tmp_path / "made.tif")) == len(stack[0])
    with pytest.raises(InputError, match="name it so"):
        segment_file(segmenter, source, tmp_path / "out.zarr")
    with pytest.raises(InputError, match="input itself"):
        segment_file(segmenter, source, source, overwrite=True)
    with pytest.raises(InputError, match="one name"):
        targets_of([source, tmp_path / ".." / tmp_path.name / "stack.tif"], tmp_path / "out", False)
    assert targets_of([source], tmp_path / "x.tif", False) == [tmp_path / "x.tif"]


def test_sections_unlike_the_training_data_are_reported(tmp_path, segmenter, stack):
    dark = (stack[0] // 8).astype(np.uint8)
    for name, images in (("same", stack[0]), ("dark", dark)):
        tifffile.imwrite(tmp_path / f"{name}.tif", images, photometric="minisblack")
    warnings = []
    segment_file(segmenter, tmp_path / "same.tif", tmp_path / "same-out.tif", warn=warnings.append)
    assert warnings == []
    segment_file(segmenter, tmp_path / "dark.tif", tmp_path / "dark-out.tif", warn=warnings.append)
    assert len(warnings) == 1
    assert "median grey level" in warnings[0]


def test_low_contrast_is_a_difference_too():
    trained = grey_levels(np.linspace(0.1, 0.9, 1000))
    assert describe_difference(grey_levels(np.linspace(0.12, 0.88, 500)), trained) is None
    assert "contrast" in describe_difference(grey_levels(np.linspace(0.45, 0.55, 500)), trained)


KILLED = """
import sys, time
from pathlib import Path
import torch
torch.set_num_threads(1)
from emseg.data.normalization import Normalization, grey_levels
from emseg.inference import Predictor
from emseg.segmentation.segmenter import Segmenter
from emseg.segmentation.volume import segment_file
from emseg.models import build_model
import numpy as np
torch.manual_seed(0)
network = build_model("residual_unet", base_channels=4, depth=1).eval()
levels = grey_levels(np.linspace(0, 1, 100))
segmenter = Segmenter(Predictor(network, Normalization(0, 255)), 0.5, levels, "a model", "f" * 32)
def report(done, total):
    print(done, flush=True)
    time.sleep(float(sys.argv[3]))
segment_file(segmenter, sys.argv[1], sys.argv[2], report=report)
"""


def test_a_killed_job_goes_on_without_doing_finished_sections_again(tmp_path, stack, expected):
    source, target = tmp_path / "stack.tif", tmp_path / "out.tif"
    tifffile.imwrite(source, stack[0], photometric="minisblack")
    process = subprocess.Popen([sys.executable, "-c", KILLED, source, target, "0.2"], stdout=subprocess.PIPE, text=True)
    while int(process.stdout.readline()) < 4:
        pass
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not target.exists()
    partial = tmp_path / ".out.tif.partial"
    before = {file.name: file.stat().st_mtime_ns for file in partial.glob("*.npy")}
    assert len(before) >= 4
    time.sleep(0.05)
    moments = {}
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED, source, target, "0.05"], stdout=subprocess.PIPE, text=True
    )
    for line in process.stdout:
        if int(line) == 9:
            moments = {file.name: file.stat().st_mtime_ns for file in partial.glob("*.npy")}
    assert process.wait() == 0
    assert {name: moments[name] for name in before} == before
    np.testing.assert_allclose(tifffile.imread(target), expected, atol=1e-5)
    assert not partial.exists()


def test_a_job_of_another_model_begins_anew(tmp_path, segmenter, stack):
    source, target = tmp_path / "stack.tif", tmp_path / "out.tif"
    tifffile.imwrite(source, stack[0], photometric="minisblack")
    partial = tmp_path / ".out.tif.partial"
    partial.mkdir()
    (partial / "job.json").write_text('{"model": "other"}')
    np.save(partial / "000000.npy", np.zeros((64, 64), np.float32))
    segment_file(segmenter, source, target)
    assert tifffile.imread(target)[0].max() > 0


def test_memory_does_not_grow_with_the_stack(tmp_path, segmenter):
    import resource

    big = tmp_path / "big.tif"
    section = np.random.default_rng(0).integers(0, 255, (256, 256), dtype=np.uint8)
    with tifffile.TiffWriter(big) as tiff:
        for _ in range(400):
            tiff.write(section, contiguous=True)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    segment_file(segmenter, big, tmp_path / "out.tif")
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    # The result alone has 100 MB.
    assert grown < 60
    assert os.path.getsize(tmp_path / "out.tif") > 400 * 256 * 256 * 4
