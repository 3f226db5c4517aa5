"""Where results go: no file of the user's is lost, and commands do not get in each other's way."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tifffile
import zarr
from PIL import Image
from segmenters import small_segmenter

from emseg.data.io.target import hold_target, partial_of, result_names, targets_of
from emseg.errors import InputError, RunError
from emseg.segmentation import volume
from emseg.segmentation.volume import segment_file


@pytest.fixture(scope="module")
def segmenter(stack):
    return small_segmenter(stack[0])


@pytest.fixture
def predict(emseg, segmenter, monkeypatch):
    """The command, with a small model."""
    monkeypatch.setattr("emseg.registry.load.load_segmenter", lambda *_: segmenter)
    return lambda *arguments: emseg("predict", *arguments)


@pytest.fixture
def lab(tmp_path, stack):
    """A folder of sections with neighbours that are not to be lost."""
    (tmp_path / "lab" / "in").mkdir(parents=True)
    for z in range(3):
        Image.fromarray(stack[0][z]).save(tmp_path / "lab" / "in" / f"{z}.png")
    (tmp_path / "lab" / "thesis.txt").write_text("precious")
    return tmp_path / "lab"


def names(folder: Path) -> list[str]:
    return sorted(file.relative_to(folder).as_posix() for file in folder.rglob("*") if not file.is_dir())


@pytest.mark.parametrize(
    ("target", "sentence"),
    [
        ("..", "name of no result"),
        ("lab", "holds the input"),
        ("lab/in", "is the input itself"),
        ("lab/in/out", "lies inside the input"),
        ("way/in", "is the input itself"),
        ("way", "is a link"),
        ("dangling", "is a link"),
        ("n" * 240, "choose a shorter name"),
        ("n" * 300, "choose a shorter name"),
        ("lab/thesis.txt/out", "cannot be written"),
    ],
)
def test_a_target_at_which_something_would_be_lost(tmp_path, lab, predict, target, sentence):
    (tmp_path / "way").symlink_to(lab)
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    before = names(tmp_path)
    code, _, err = predict(lab / "in", f"{tmp_path}/{target}", "--overwrite")
    assert code == 2
    assert sentence in err
    assert err.count("\n") == 1
    assert names(tmp_path) == before


def test_here_is_the_name_of_no_result(lab, predict, monkeypatch):
    monkeypatch.chdir(lab)
    code, _, err = predict("in", ".", "--overwrite")
    assert (code, err.count("\n")) == (2, 1)
    assert "name of no result" in err
    assert (lab / "thesis.txt").read_text() == "precious"


def test_overwrite_replaces_a_folder_of_results_and_no_other(lab, predict):
    assert predict(lab / "in", lab / "out")[0] == 0
    assert predict(lab / "in", lab / "out")[0] == 2
    assert predict(lab / "in", lab / "out", "--overwrite", "--kind", "mask")[0] == 0
    assert tifffile.imread(lab / "out" / "0.tif").dtype == np.uint8
    (lab / "out" / "notes.md").write_text("precious")
    code, _, err = predict(lab / "in", lab / "out", "--overwrite")
    assert code == 2
    assert "notes.md" in err
    assert names(lab / "out") == ["0.tif", "1.tif", "2.tif", "notes.md"]


def test_overwrite_spares_images_that_have_the_names_of_results(lab, predict, stack):
    (lab / "raw").mkdir()
    for z in range(3):
        tifffile.imwrite(lab / "raw" / f"{z}.tif", stack[0][z])
    code, _, err = predict(lab / "in", lab / "raw", "--overwrite")
    assert code == 2
    assert "0.tif is no result" in err
    np.testing.assert_array_equal(tifffile.imread(lab / "raw" / "2.tif"), stack[0][2])
    # The same where the names of the results are made up for several inputs.
    code, _, err = predict(lab / "in" / "0.png", lab / "in" / "1.png", lab / "raw", "--overwrite")
    assert code == 2
    assert "no result" in err
    np.testing.assert_array_equal(tifffile.imread(lab / "raw" / "0.tif"), stack[0][0])


def test_overwrite_of_zarr(tmp_path, segmenter, stack):
    zarr.create_array(tmp_path / "in.zarr", data=stack[0][:2])
    for zarr_format in (2, 3):
        out = tmp_path / f"out{zarr_format}.zarr"
        own = tmp_path / f"own{zarr_format}.zarr"
        for place in (own, tmp_path / f"in{zarr_format}.zarr"):
            array = zarr.create_array(place, data=stack[0][:2], chunks=(1, 4, 4), zarr_format=zarr_format)
            array.attrs["stain"] = "osmium"
        with pytest.raises(InputError, match="is no result of emseg's and is not replaced"):
            segment_file(segmenter, tmp_path / "in.zarr", own, overwrite=True)
        np.testing.assert_array_equal(zarr.open(own, mode="r")[:], stack[0][:2])
        for _ in range(2):
            segment_file(segmenter, tmp_path / f"in{zarr_format}.zarr", out, overwrite=True)
        assert zarr.open(out, mode="r").shape == (2, 64, 64)
        assert zarr.open(out, mode="r").attrs["stain"] == "osmium"
        (out / "1.2.tif").write_text("precious")
        with pytest.raises(InputError, match="did not write"):
            segment_file(segmenter, tmp_path / "in.zarr", out, overwrite=True)
        assert (out / "1.2.tif").read_text() == "precious"
    zarr.create_group(tmp_path / "group.zarr").create_array("raw", data=stack[0])
    with pytest.raises(InputError, match="did not write"):
        segment_file(segmenter, tmp_path / "in.zarr", tmp_path / "group.zarr", overwrite=True)
    assert zarr.open(tmp_path / "group.zarr/raw", mode="r").shape == stack[0].shape


def test_a_folder_is_not_replaced_by_a_file(tmp_path, segmenter, stack):
    tifffile.imwrite(tmp_path / "stack.tif", stack[0])
    (tmp_path / "out.tif").mkdir()
    with pytest.raises(InputError, match="is a folder"):
        segment_file(segmenter, tmp_path / "stack.tif", tmp_path / "out.tif", overwrite=True)


def test_another_name_of_the_input_is_the_input(tmp_path, segmenter, stack):
    tifffile.imwrite(tmp_path / "stack.tif", stack[0])
    os.link(tmp_path / "stack.tif", tmp_path / "same.tif")
    with pytest.raises(InputError, match="input itself"):
        segment_file(segmenter, tmp_path / "stack.tif", tmp_path / "same.tif", overwrite=True)


@pytest.mark.parametrize(
    ("sections", "results"),
    [
        (["a.png", "b.tif", "c.tiff"], ["a.tif", "b.tif", "c.tif"]),
        (["a.png", "a.tif"], ["a.png.tif", "a.tif"]),
        (["a.png", "a.tif", "a.tiff"], ["a.png.tif", "a.tif", "a.tiff.tif"]),
        (["a.png", "A.tif"], ["a.png.tif", "A.tif"]),
        (["a.png", "a.png.png", "a.tif"], ["a.png.tif", "a.png.png.tif", "a.tif.tif"]),
    ],
)
def test_as_many_results_as_sections(sections, results):
    assert result_names(sections) == results


def test_sections_that_share_a_stem_have_a_result_each(tmp_path, predict, stack):
    (tmp_path / "in").mkdir()
    Image.fromarray(stack[0][0]).save(tmp_path / "in" / "a.png")
    tifffile.imwrite(tmp_path / "in" / "a.tif", stack[0][1])
    assert predict(tmp_path / "in", tmp_path / "out")[0] == 0
    assert names(tmp_path / "out") == ["a.png.tif", "a.tif"]
    assert predict(tmp_path / "in" / "a.png", tmp_path / "in" / "a.tif", tmp_path / "each")[0] == 0
    for name in ("a.png.tif", "a.tif"):
        one, other = (tifffile.imread(tmp_path / folder / name) for folder in ("out", "each"))
        np.testing.assert_array_equal(one, other)


def test_one_of_several_results_is_not_another_input(tmp_path):
    for name in ("x/a.tif", "out/b.tif"):
        (tmp_path / name).parent.mkdir()
        tifffile.imwrite(tmp_path / name, np.zeros((8, 8), np.uint8))
    with pytest.raises(InputError, match="input itself"):
        targets_of([tmp_path / "x/a.tif", tmp_path / "out/b.tif"], tmp_path / "out", True)


def test_who_comes_second_is_refused_and_disturbs_nothing(tmp_path, lab, predict, segmenter):
    with hold_target(lab / "out"):
        partial_of(lab / "out").mkdir()
        (partial_of(lab / "out") / "job.json").write_text("of the other command")
        code, _, err = predict(lab / "in", lab / "out")
        assert code == 2
        assert "another command is writing" in err
        assert names(partial_of(lab / "out")) == ["job.json"]
    assert predict(lab / "in", lab / "out")[0] == 0
    assert names(lab) == ["in/0.png", "in/1.png", "in/2.png", "out/0.tif", "out/1.tif", "out/2.tif", "thesis.txt"]


TWICE = """
import sys
import numpy as np, tifffile, torch
torch.set_num_threads(1)
from emseg.errors import InputError
from emseg.segmentation.volume import segment_file
from segmenters import small_segmenter
segmenter = small_segmenter(tifffile.imread(sys.argv[1]))
print("ready", flush=True)
sys.stdin.readline()
try:
    segment_file(segmenter, sys.argv[1], sys.argv[2])
except InputError as error:
    print(error)
    sys.exit(2)
"""


def test_two_commands_at_once_leave_one_whole_result(tmp_path, segmenter, stack):
    tifffile.imwrite(tmp_path / "stack.tif", stack[0], photometric="minisblack")
    command = [sys.executable, "-c", TWICE, tmp_path / "stack.tif", tmp_path / "out.tif"]
    paths = os.pathsep.join([str(Path(__file__).parents[2]), *sys.path])
    commands = [
        subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=os.environ | {"PYTHONPATH": paths}
        )
        for _ in range(2)
    ]
    for process in commands:
        assert process.stdout.readline() == "ready\n"
    for process in commands:
        process.stdin.write("\n")
        process.stdin.flush()
    printed = [process.communicate()[0] for process in commands]
    assert sorted(process.returncode for process in commands) == [0, 2], printed
    assert "another command" in "".join(printed) or "exists" in "".join(printed)
    segment_file(segmenter, tmp_path / "stack.tif", tmp_path / "expected.tif")
    np.testing.assert_allclose(
        tifffile.imread(tmp_path / "out.tif"), tifffile.imread(tmp_path / "expected.tif"), atol=1e-5
    )
    assert names(tmp_path) == ["expected.tif", "out.tif", "stack.tif"]


def test_what_a_command_left_that_was_killed_when_done_goes(tmp_path, predict, stack, monkeypatch):
    tifffile.imwrite(tmp_path / "stack.tif", stack[0], photometric="minisblack")
    monkeypatch.setattr(volume.shutil, "rmtree", lambda *_, **__: None)
    assert predict(tmp_path / "stack.tif", tmp_path / "out.tif")[0] == 0
    monkeypatch.undo()
    assert partial_of(tmp_path / "out.tif").is_dir()
    (tmp_path / ".out.tif.lock").touch()
    code, _, err = predict(tmp_path / "stack.tif", tmp_path / "out.tif")
    assert code == 2
    assert "--overwrite" in err
    assert names(tmp_path) == ["out.tif", "stack.tif"]


def test_a_refusal_keeps_what_a_job_has_that_goes_on(tmp_path, segmenter, stack):
    tifffile.imwrite(tmp_path / "stack.tif", stack[0], photometric="minisblack")
    segment_file(segmenter, tmp_path / "stack.tif", tmp_path / "out.tif", "mask")

    def stopped(done, total):
        if done == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        segment_file(segmenter, tmp_path / "stack.tif", tmp_path / "out.tif", overwrite=True, report=stopped)
    with pytest.raises(InputError, match="exists"):
        segment_file(segmenter, tmp_path / "stack.tif", tmp_path / "out.tif")
    assert len(list(partial_of(tmp_path / "out.tif").glob("*.npy"))) == 4
    segment_file(segmenter, tmp_path / "stack.tif", tmp_path / "out.tif", overwrite=True)
    assert tifffile.imread(tmp_path / "out.tif").dtype == np.float32
    assert names(tmp_path) == ["out.tif", "stack.tif"]


def test_damaged_finished_sections_are_made_again(tmp_path, segmenter, stack):
    tifffile.imwrite(tmp_path / "stack.tif", stack[0], photometric="minisblack")
    whole = segment_file(segmenter, tmp_path / "stack.tif", tmp_path / "whole.tif")

    def stopped(done, total):
        if done == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        segment_file(segmenter, tmp_path / "stack.tif", tmp_path / "out.tif", report=stopped)
    partial = partial_of(tmp_path / "out.tif")
    (partial / "000000.npy").write_bytes(b"")
    (partial / "000001.npy").write_bytes((partial / "000001.npy").read_bytes()[:-9])
    np.save(partial / "000002.npy", np.zeros((3, 3), np.float32))
    segment_file(segmenter, tmp_path / "stack.tif", tmp_path / "out.tif")
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "out.tif"), tifffile.imread(whole))


@pytest.mark.parametrize("bad", [3, 8])
def test_bad_input_leaves_nothing(tmp_path, predict, stack, bad):
    images = stack[0].astype(np.float32)
    images[bad, 5, 5] = np.nan
    tifffile.imwrite(tmp_path / "stack.tif", images, photometric="minisblack")
    code, _, err = predict(tmp_path / "stack.tif", tmp_path / "deep" / "folder" / "out.tif")
    assert code == 2
    assert err.count(f"section {bad}") == err.count("stack.tif") == 1
    assert names(tmp_path) == ["stack.tif"]
    assert not (tmp_path / "deep").exists()


def test_a_full_disk_is_one_sentence_and_the_work_goes_on(tmp_path, predict, stack, monkeypatch):
    tifffile.imwrite(tmp_path / "stack.tif", stack[0], photometric="minisblack")
    save, saved = np.save, []

    def until_full(stream, *values, **options):
        if len(saved) == 5:
            raise OSError(errno.ENOSPC, "No space left on device")
        saved.append(stream)
        save(stream, *values, **options)

    monkeypatch.setattr(np, "save", until_full)
    code, _, err = predict(tmp_path / "stack.tif", tmp_path / "out.tif")
    assert code == 1
    assert "make room" in err
    assert err.count("\n") == 1
    monkeypatch.setattr(np, "save", save)
    assert len(list(partial_of(tmp_path / "out.tif").glob("*.npy"))) == 5
    assert predict(tmp_path / "stack.tif", tmp_path / "out.tif")[0] == 0
    assert names(tmp_path) == ["out.tif", "stack.tif"]


def refuse_writing(patch, error):
    """Results of TIFF cannot be written to disk."""
    begin = tifffile.TiffWriter.__init__

    def refused(writer, file, **options):
        if isinstance(file, Path):
            raise error
        begin(writer, file, **options)

    patch.setattr(tifffile.TiffWriter, "__init__", refused)


def test_a_place_that_is_closed_in_between_does_not_cost_the_work(tmp_path, predict, stack, monkeypatch):
    tifffile.imwrite(tmp_path / "stack.tif", stack[0], photometric="minisblack")
    with monkeypatch.context() as patch:
        refuse_writing(patch, PermissionError(errno.EACCES, "Permission denied"))
        code, _, err = predict(tmp_path / "stack.tif", tmp_path / "out.tif")
    assert (code, err.count("\n")) == (2, 1)
    assert len(list(partial_of(tmp_path / "out.tif").glob("*.npy"))) == len(stack[0])
    assert predict(tmp_path / "stack.tif", tmp_path / "out.tif")[0] == 0
    assert names(tmp_path) == ["out.tif", "stack.tif"]


@pytest.mark.skipif(os.getuid() == 0, reason="root may write everywhere")
def test_a_folder_that_may_not_be_written_to(tmp_path, predict, stack):
    tifffile.imwrite(tmp_path / "stack.tif", stack[0], photometric="minisblack")
    (tmp_path / "closed").mkdir(mode=0o555)
    code, _, err = predict(tmp_path / "stack.tif", tmp_path / "closed" / "out.tif")
    assert code == 2
    assert "permission" in err


@pytest.mark.parametrize(
    "error", [OSError(errno.EDQUOT, "Disk quota exceeded"), OSError("9216 requested and 4064 written")]
)
def test_a_disk_that_is_full_when_all_sections_are_done(tmp_path, segmenter, stack, monkeypatch, error):
    tifffile.imwrite(tmp_path / "stack.tif", stack[0], photometric="minisblack")
    with monkeypatch.context() as patch:
        refuse_writing(patch, error)
        with pytest.raises(RunError, match="make room"):
            segment_file(segmenter, tmp_path / "stack.tif", tmp_path / "out.tif")
    assert len(list(partial_of(tmp_path / "out.tif").glob("*.npy"))) == len(stack[0])
    segment_file(segmenter, tmp_path / "stack.tif", tmp_path / "out.tif")
    assert names(tmp_path) == ["out.tif", "stack.tif"]
