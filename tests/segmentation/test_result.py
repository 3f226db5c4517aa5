"""Results are stored as the input is, but for what would change them."""

import h5py
import mrcfile
import nrrd
import numpy as np
import pytest
import tifffile
import zarr
from numcodecs import LZ4
from plain_tiff import plain_tiff
from segmenters import small_segmenter
from zarr.codecs import GzipCodec

from emseg.data.io.formats import open_sections
from emseg.data.io.stack import read_stack
from emseg.segmentation.segmenter import OUTPUTS
from emseg.segmentation.volume import segment_file


@pytest.fixture(scope="module")
def segmenter(stack):
    return small_segmenter(stack[0])


def results_of(segmenter, source, kind):
    """Of a stack that is not compressed, and what was said of `source`."""
    said = []
    target = segment_file(segmenter, source, source.with_name(f"{source.stem}-{kind}.tif"), kind, warn=said.append)
    plain = source.with_name(f"{source.stem}-plain.tif")
    tifffile.imwrite(plain, tifffile.imread(source), photometric="minisblack")
    expected = segment_file(segmenter, plain, source.with_name(f"{source.stem}-plain-{kind}.tif"), kind)
    return tifffile.TiffFile(target), tifffile.imread(expected), said


@pytest.mark.parametrize("kind", OUTPUTS)
@pytest.mark.parametrize("codec", ["jpeg", "jpeg2000", "jpegxr", "jpegxl", "png", "lerc", "ccitt"])
def test_a_codec_that_changes_results_or_cannot_hold_them_is_replaced(tmp_path, segmenter, stack, codec, kind):
    source = tmp_path / "stack.tif"
    if codec == "ccitt":
        from PIL import Image

        pages = [Image.fromarray(section > 128) for section in stack[0]]
        pages[0].save(source, save_all=True, append_images=pages[1:], compression="group4")
        segmenter = small_segmenter((stack[0] > 128).astype(np.uint8))
    else:
        level = {"compressionargs": {"level": 60}} if codec.startswith("jpeg") and codec != "jpegxl" else {}
        tifffile.imwrite(source, stack[0], photometric="minisblack", compression=codec, **level)
    found, expected, said = results_of(segmenter, source, kind)
    np.testing.assert_array_equal(found.asarray(), expected)
    assert found.pages.first.compression.name == "ADOBE_DEFLATE"
    assert len([sentence for sentence in said if "so that nothing is lost" in sentence]) == 1


@pytest.mark.parametrize("codec", ["lzw", "packbits", "lzma", "zstd", "zlib", None])
def test_a_codec_that_loses_nothing_is_kept(tmp_path, segmenter, stack, codec):
    tifffile.imwrite(tmp_path / "stack.tif", stack[0], photometric="minisblack", compression=codec)
    found, expected, said = results_of(segmenter, tmp_path / "stack.tif", "probability")
    np.testing.assert_array_equal(found.asarray(), expected)
    with tifffile.TiffFile(tmp_path / "stack.tif") as source:
        assert found.pages.first.compression == source.pages.first.compression
    assert said == []


@pytest.mark.parametrize("limit", [2**32, 1])
@pytest.mark.parametrize("compression", ["zlib", "jpeg", None])
@pytest.mark.parametrize("unit", ["nm", "\\u00B5m", "px"])
def test_imagej_stacks_keep_unit_and_spacing(tmp_path, segmenter, stack, monkeypatch, compression, unit, limit):
    # Above the limit ImageJ's own form ends.
    monkeypatch.setattr("emseg.data.io.tiff._LARGEST_TIFF", limit)
    voxel = {"axes": "ZYX", "spacing": 50.0, "unit": unit}
    tifffile.imwrite(
        tmp_path / "stack.tif", stack[0], imagej=True, compression=compression, metadata=voxel, resolution=(0.25, 0.2)
    )
    segment_file(segmenter, tmp_path / "stack.tif", tmp_path / "out.tif", "mask")
    with tifffile.TiffFile(tmp_path / "out.tif") as tiff:
        assert tiff.is_imagej
        assert {key: tiff.imagej_metadata[key] for key in ("spacing", "unit")} == {"spacing": 50.0, "unit": unit}
        assert tiff.pages.first.resolution == pytest.approx((0.25, 0.2))
        assert tiff.series[0].axes == "ZYX"
        assert tiff.series[0].shape == stack[0].shape
        assert (tiff.pages.first.compression.name == "NONE") == (compression is None)


@pytest.mark.parametrize("unit", [0, 1, 3, 9])
def test_an_odd_resolution_unit_does_not_end_the_work(tmp_path, segmenter, stack, unit):
    (tmp_path / "section.tif").write_bytes(plain_tiff(stack[0][0], unit=unit))
    segment_file(segmenter, tmp_path / "section.tif", tmp_path / "out.tif")
    with tifffile.TiffFile(tmp_path / "out.tif") as tiff:
        assert tiff.pages.first.resolution == (250, 250)
        assert tiff.pages.first.tags["ResolutionUnit"].value == (unit if unit == 3 else 1)


def test_an_odd_physical_size_does_not_end_the_work(tmp_path, segmenter, stack):
    size = {"axes": "ZYX", "PhysicalSizeX": 0.004, "PhysicalSizeXUnit": "µm", "PhysicalSizeZ": 0.05}
    tifffile.imwrite(tmp_path / "ome.tif", stack[0], ome=True, metadata=size)
    content = (tmp_path / "ome.tif").read_bytes().replace(b'"0.004"', b'"abc"  ')
    (tmp_path / "ome.tif").write_bytes(content)
    segment_file(segmenter, tmp_path / "ome.tif", tmp_path / "out.tif")
    with tifffile.TiffFile(tmp_path / "out.tif") as tiff:
        assert 'PhysicalSizeZ="0.05"' in tiff.ome_metadata
        assert "abc" not in tiff.ome_metadata


@pytest.mark.parametrize("inverted", ["section", "stack"])
def test_white_is_zero_gives_the_result_of_black_is_zero(tmp_path, segmenter, stack, inverted):
    images = stack[0] if inverted == "stack" else stack[0][0]
    tifffile.imwrite(tmp_path / "black.tif", images, photometric="minisblack")
    tifffile.imwrite(tmp_path / "white.tif", 255 - images, photometric="miniswhite")
    for name in ("black", "white"):
        segment_file(segmenter, tmp_path / f"{name}.tif", tmp_path / f"{name}-out.tif")
    assert (tmp_path / "black-out.tif").read_bytes() == (tmp_path / "white-out.tif").read_bytes()


@pytest.mark.parametrize(
    ("zarr_format", "compressors", "kept"), [(3, GzipCodec(), True), (2, LZ4(), True), (2, "jpeg", False)]
)
def test_zarr_codecs_that_lose_nothing_are_kept(tmp_path, segmenter, stack, zarr_format, compressors, kept):
    if compressors == "jpeg":
        from imagecodecs.numcodecs import Jpeg, register_codecs

        register_codecs(verbose=False)
        compressors = Jpeg(level=60)
    chunks = (1, 64, 64)
    array = zarr.create_array(
        tmp_path / "in.zarr",
        shape=stack[0].shape,
        chunks=chunks,
        dtype="uint8",
        zarr_format=zarr_format,
        compressors=compressors,
    )
    try:
        array[:] = stack[0]
    except ValueError:
        pytest.skip("this codec takes no chunks of three axes")
    said = []
    segment_file(segmenter, tmp_path / "in.zarr", tmp_path / "out.zarr", "cells", warn=said.append)
    found = zarr.open(tmp_path / "out.zarr", mode="r")
    assert (found.compressors == array.compressors) == kept
    assert len(said) == (0 if kept else 1)
    tifffile.imwrite(tmp_path / "in.tif", array[:], photometric="minisblack")
    segment_file(segmenter, tmp_path / "in.tif", tmp_path / "out.tif", "cells")
    np.testing.assert_array_equal(found[:], tifffile.imread(tmp_path / "out.tif"))


VOXEL_SIZE = (50, 5, 4)


def write_with_voxel_size(path, images):
    """Images in the format of the suffix, which says their voxel size in its own way."""
    if path.suffix == ".h5":
        with h5py.File(path, "w") as file:
            dataset = file.create_dataset("volumes/raw", data=images, chunks=True, compression="gzip", shuffle=True)
            dataset.attrs["resolution"] = VOXEL_SIZE
    elif path.suffix == ".mrc":
        with mrcfile.new(path) as file:
            file.set_data(images.astype(np.uint16))
            file.voxel_size = (40, 50, 500)
    elif path.suffix == ".npy":
        np.save(path, images)
    elif path.suffix == ".nrrd":
        axes = {"spacings": VOXEL_SIZE[::-1], "units": ["nm"] * 3}
        nrrd.write(str(path), images, axes, index_order="C")
    elif path.suffix == ".zarr":
        array = zarr.create_array(path, data=images)
        array.attrs["resolution"] = VOXEL_SIZE
    else:
        voxel = {"axes": "ZYX", "spacing": 0.05, "unit": "um"}
        tifffile.imwrite(path, images, imagej=True, metadata=voxel, resolution=(250, 200))


@pytest.mark.parametrize("kind", OUTPUTS)
@pytest.mark.parametrize("suffix", ["tif", "h5", "mrc", "nrrd", "zarr", "npy"])
def test_the_voxel_size_survives_in_every_format_and_into_tiff(tmp_path, segmenter, stack, suffix, kind):
    source = tmp_path / f"in.{suffix}"
    write_with_voxel_size(source, stack[0])
    tifffile.imwrite(tmp_path / "plain.tif", stack[0], photometric="minisblack")
    segment_file(segmenter, tmp_path / "plain.tif", tmp_path / "expected.tif", kind)
    for name in (f"out.{suffix}", "out.tif"):
        said = []
        for _ in range(2):
            # The second time over the first, unless it is an array of numpy, which has no place for a name.
            segment_file(segmenter, source, tmp_path / name, kind, overwrite=name != "out.npy", warn=said.append)
            if name == "out.npy":
                break
        assert said == []
        found = open_sections(tmp_path / name)
        np.testing.assert_array_equal(found.read_all(), tifffile.imread(tmp_path / "expected.tif"))
        if name != "out.npy":
            assert found.metadata.voxel_size == (None if suffix == "npy" else pytest.approx(VOXEL_SIZE))
    if suffix == "h5":
        found = open_sections(tmp_path / "out.h5")
        assert found.inner == "volumes/raw"
        assert found.metadata.compression == "gzip"


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_an_ome_zarr_image_gives_one(tmp_path, segmenter, stack, zarr_format):
    scale = [{"type": "scale", "scale": [1, 50, 5, 4]}]
    axes = [{"name": "c", "type": "channel"}] + [{"name": a, "type": "space", "unit": "nanometer"} for a in "zyx"]
    entry = {"axes": axes, "datasets": [{"path": "s0", "coordinateTransformations": scale}]}
    group = zarr.create_group(tmp_path / "in.zarr", zarr_format=zarr_format)
    group.create_array("s0", data=stack[0][None])
    group.attrs.update({"multiscales": [entry]} if zarr_format == 2 else {"ome": {"multiscales": [entry]}})
    for _ in range(2):
        segment_file(segmenter, tmp_path / "in.zarr", tmp_path / "out.zarr", "mask", overwrite=True)
    found = open_sections(tmp_path / "out.zarr")
    assert found.metadata.voxel_size == VOXEL_SIZE
    assert found.metadata.storage.is_ome
    result = zarr.open(tmp_path / "out.zarr", mode="r")
    assert result.metadata.zarr_format == zarr_format
    multiscale = (result.attrs["ome"] if zarr_format == 3 else result.attrs)["multiscales"][0]
    assert [axis["name"] for axis in multiscale["axes"]] == ["z", "y", "x"]
    np.testing.assert_array_equal(result[multiscale["datasets"][0]["path"]][:], found.read_all())


def test_hdf5_by_the_command(tmp_path, emseg, segmenter, stack, monkeypatch):
    monkeypatch.setattr("emseg.registry.load.load_segmenter", lambda *_: segmenter)
    monkeypatch.chdir(tmp_path)
    with h5py.File("in.h5", "w") as file:
        file["volumes/raw"], file["volumes/other"], file["third"] = stack[0], stack[0][::-1], stack[0]
    assert emseg("predict", "in.h5:volumes/raw", "out.tif")[0] == 0
    assert emseg("predict", "in.h5:volumes/raw", "in.h5:volumes/other", "each")[0] == 0
    assert sorted(file.name for file in (tmp_path / "each").iterdir()) == ["in-volumes-other.tif", "in-volumes-raw.tif"]
    one, other = (tifffile.imread(tmp_path / "each" / f"in-volumes-{name}.tif") for name in ("raw", "other"))
    np.testing.assert_array_equal(one, tifffile.imread("out.tif"))
    np.testing.assert_array_equal(one, other[::-1])
    code, _, err = emseg("predict", "in.h5:volumes/raw", "in.h5", "--overwrite")
    assert code == 2
    assert "is the input itself" in err
    code, _, err = emseg("predict", "in.h5:volumes/raw", "out.png")
    assert code == 2
    assert "in.h5:volumes/raw is a .h5 file or a .tif file" in err
    code, _, err = emseg("predict", "in.h5", "out2.tif")
    assert (code, err.count("\n")) == (0, 0)


@pytest.mark.parametrize("options", [{"scaleoffset": 2}, {"compression": "gzip", "scaleoffset": 0}])
def test_filters_of_hdf5_that_lose_something_are_replaced(tmp_path, segmenter, stack, options):
    with h5py.File(tmp_path / "in.h5", "w") as file:
        file.create_dataset("raw", data=stack[0], chunks=(1, 64, 64), **options)
    said = []
    segment_file(segmenter, tmp_path / "in.h5", tmp_path / "out.h5", "cells", warn=said.append)
    tifffile.imwrite(tmp_path / "in.tif", read_stack(tmp_path / "in.h5"), photometric="minisblack")
    segment_file(segmenter, tmp_path / "in.tif", tmp_path / "out.tif", "cells")
    np.testing.assert_array_equal(read_stack(tmp_path / "out.h5"), tifffile.imread(tmp_path / "out.tif"))


@pytest.mark.parametrize(
    ("change", "refused"),
    [
        (lambda images: images.astype(np.uint16) * 16, True),
        (lambda images: images.astype(np.float32) / 255, True),
        (lambda images: images.astype(np.uint16), False),
        (lambda images: images.astype(np.float32), False),
        (lambda images: images // 8, False),
    ],
    ids=["12 bit", "float to 1", "16 bit of 8", "float to 255", "dark"],
)
def test_sections_of_another_range_than_the_training_data(
    tmp_path, emseg, segmenter, stack, monkeypatch, change, refused
):
    monkeypatch.setattr("emseg.registry.load.load_segmenter", lambda *_: segmenter)
    tifffile.imwrite(tmp_path / "stack.tif", change(stack[0]), photometric="minisblack")
    code, _, err = emseg("predict", tmp_path / "stack.tif", tmp_path / "out.tif")
    assert code == (2 if refused else 0)
    assert (tmp_path / "out.tif").exists() != refused
    if refused:
        assert "trained on 8-bit sections" in err
        assert "save it as 8-bit" in err
        assert err.count("\n") == 1


def test_a_gap_in_the_numbers_is_said_on_stderr(tmp_path, emseg, segmenter, stack, monkeypatch):
    monkeypatch.setattr("emseg.registry.load.load_segmenter", lambda *_: segmenter)
    (tmp_path / "in").mkdir()
    for z in (1, 2, 4):
        tifffile.imwrite(tmp_path / "in" / f"{z}.tif", stack[0][z])
    code, _, err = emseg("predict", tmp_path / "in", tmp_path / "out")
    assert code == 0
    assert "no section between 2.tif and 4.tif" in err
