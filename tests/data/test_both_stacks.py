"""`data check` and `data add` see the test stack as they see the training stack, and agree."""

import errno
import json
import os

import numpy as np
import pytest
import tifffile
from PIL import Image

from emseg.data.check import check_stacks
from emseg.data.io.stack import write_stack
from emseg.data.sources import load_source
from emseg.data.synthetic import make_synthetic


@pytest.fixture(scope="module")
def other_stack():
    return make_synthetic(sections=4, side=64, seed=11)


@pytest.fixture
def try_both(tmp_path, emseg, monkeypatch):
    """Check and add a folder; both must say the same. Gives the exit code and what add said."""
    monkeypatch.chdir(tmp_path)

    def run(folder):
        checked, _, said = emseg("data", "check", folder)
        code, _, err = emseg("data", "add", "mine", "--from", folder, "--overwrite")
        assert checked == code, said + err
        if code:
            for sentence in said.replace("problem: ", "").splitlines():
                assert sentence.removeprefix("emseg: ") in err
            assert err.count("\n") == 1
            assert not (tmp_path / "data" / "sources" / "mine").exists()
        return code, err

    return run


def write_folder(folder, stack, test=None):
    write_stack(folder / "images.tif", stack[0])
    write_stack(folder / "labels.tif", stack[1])
    if test is not None:
        write_stack(folder / "test-volume.tif", test[0])
        if len(test) > 1:
            write_stack(folder / "test-labels.tif", test[1])
    return folder


def test_a_sound_test_stack_comes_in_with_and_without_labels(tmp_path, try_both, stack, other_stack):
    assert try_both(write_folder(tmp_path / "with", stack, other_stack)) == (0, "")
    source = load_source("mine", tmp_path / "data" / "sources")
    np.testing.assert_array_equal(source.test_images, other_stack[0])
    np.testing.assert_array_equal(source.test_labels, other_stack[1] > 0)
    assert try_both(write_folder(tmp_path / "without", stack, other_stack[:1])) == (0, "")


def blank(images, labels):
    return np.where(np.arange(len(images))[:, None, None] == 2, 90, images).astype(np.uint8), labels


def without_cells(images, labels):
    return images, np.where(np.arange(len(images))[:, None, None] == 1, 0, labels).astype(np.uint8)


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (lambda images, labels: (images, labels[::-1]), "test stack: label 0"),
        (lambda images, labels: (images, labels[:-1]), "test stack: there are 4 images but 3 labels"),
        (lambda images, labels: (images, labels[:, :-1]), "test stack: images are"),
        (lambda images, labels: (images.astype(np.uint16), labels), "test sections are uint16 but training sections"),
        (lambda images, labels: (images.astype(np.float32), labels), "test stack: images are float32"),
        (lambda images, labels: (images[[0, 1, 1, 3]], labels), "test stack: section 2 is the same image as section 1"),
        (blank, "test stack: section 2 is blank"),
        (without_cells, "test stack: the label of section 1 is all membrane"),
        (lambda images, labels: (images[[0, 1, 1, 3]],), "test stack: section 2 is the same image as section 1"),
    ],
)
def test_faults_of_the_test_stack_are_named(tmp_path, try_both, stack, other_stack, damage, sentence):
    code, err = try_both(write_folder(tmp_path / "folder", stack, damage(*other_stack)))
    assert code == 2
    assert sentence in err


TURNS = [lambda image, k=k, side=side: np.rot90(image[:, ::side], k) for k in range(4) for side in (1, -1)]


@pytest.mark.parametrize("turn", TURNS)
def test_training_sections_in_the_test_stack_are_named(tmp_path, stack, other_stack, turn):
    images = other_stack[0].copy()
    images[3] = turn(stack[0][7])
    assert (
        check_stacks(*stack, images, other_stack[1])
        .problems[-1]
        .startswith("section 3 of the test stack is section 7 of the training stack")
    )


def test_training_sections_as_test_stack_are_refused(tmp_path, try_both, stack):
    code, err = try_both(write_folder(tmp_path / "folder", stack, [part[:3] for part in stack]))
    assert code == 2
    assert all(f"section {z} of the test stack is section {z}" in err for z in range(3))


def test_sections_that_are_not_square_are_found_turned_too(stack):
    images, labels = stack[0][:, :, :50], stack[1][:, :, :50]
    report = check_stacks(images, labels, np.rot90(images[4])[None])
    assert "section 0 of the test stack is section 4" in report.problems[-1]


@pytest.mark.parametrize("dtype", [np.float32, np.float16, bool])
def test_check_and_add_agree_on_types(tmp_path, try_both, stack, dtype):
    images = stack[0] > 128 if dtype is bool else stack[0].astype(dtype)
    folder = write_folder(tmp_path / "folder", stack)
    tifffile.imwrite(folder / "images.tif", images, photometric="minisblack")
    code, err = try_both(folder)
    assert code == 2
    assert f"images are {np.dtype(dtype)}; expected 8-bit or 16-bit" in err


def test_test_labels_alone_are_refused(tmp_path, try_both, stack, other_stack):
    folder = write_folder(tmp_path / "folder", stack)
    write_stack(folder / "test-labels.tif", other_stack[1])
    assert "test-labels but no test-volume" in try_both(folder)[1]


def test_a_damaged_test_stack_is_refused(tmp_path, try_both, stack, other_stack):
    folder = write_folder(tmp_path / "folder", stack, other_stack)
    (folder / "test-volume.tif").write_bytes((folder / "test-volume.tif").read_bytes()[:-300])
    code, err = try_both(folder)
    assert code == 2
    assert "test-volume.tif is truncated" in err


def test_facts_tell_of_the_other_stack(tmp_path, emseg, stack, other_stack):
    folder = write_folder(tmp_path / "folder", stack, other_stack)
    facts = json.loads(emseg("data", "check", folder, "--json")[1])["facts"]
    assert facts["test images"].startswith("4 sections of 64 x 64 pixels, uint8")


def test_a_gap_in_the_numbers_is_said_once(tmp_path, emseg, monkeypatch, stack):
    monkeypatch.chdir(tmp_path)
    for part, name in zip(stack, ("images", "labels"), strict=True):
        (tmp_path / "folder" / name).mkdir(parents=True)
        for z in (0, 1, 2, 4, 5):
            Image.fromarray(part[z]).save(tmp_path / "folder" / name / f"{z}.png")
    for command in (["check", "folder"], ["add", "mine", "--from", "folder"]):
        code, _, err = emseg("data", *command)
        assert code == 0
        assert err.count("no section between 2.png and 4.png") == 1


def test_own_sections_do_not_pass_for_the_generated_ones(tmp_path, emseg, monkeypatch, source_folder):
    monkeypatch.chdir(tmp_path)
    code, _, err = emseg("data", "add", "synthetic", "--from", source_folder)
    assert code == 2
    assert "give your own another name" in err
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize("length", [101, 240, 300])
def test_a_name_that_is_too_long(tmp_path, emseg, monkeypatch, source_folder, length):
    monkeypatch.chdir(tmp_path)
    code, _, err = emseg("data", "add", "n" * length, "--from", source_folder)
    assert code == 2
    assert "choose a shorter name" in err


def test_places_that_cannot_be_written_to(tmp_path, emseg, monkeypatch, source_folder):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").write_text("a file")
    code, _, err = emseg("data", "add", "mine", "--from", source_folder)
    assert (code, err.count("\n")) == (2, 1)
    (tmp_path / "data").unlink()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "precious.txt").write_text("precious")
    (tmp_path / "data" / "sources").mkdir(parents=True)
    (tmp_path / "data" / "sources" / "mine").symlink_to(tmp_path / "elsewhere")
    code, _, err = emseg("data", "add", "mine", "--from", source_folder)
    assert (code, err.count("\n")) == (2, 1)
    assert (tmp_path / "elsewhere" / "precious.txt").read_text() == "precious"
    (tmp_path / "data" / "sources" / "mine").unlink()
    (tmp_path / "data" / "sources" / "mine").mkdir()
    (tmp_path / "data" / "sources" / "mine" / "thesis.txt").write_text("precious")
    code, _, err = emseg("data", "add", "mine", "--from", source_folder)
    assert code == 2
    assert "thesis.txt" in err
    assert os.listdir(tmp_path / "data" / "sources") == ["mine"]


def test_a_full_disk_is_a_failed_run(tmp_path, emseg, monkeypatch, source_folder):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("emseg.data.adding.write_source", full)
    code, _, err = emseg("data", "add", "mine", "--from", source_folder)
    assert (code, err.count("\n")) == (1, 1)
    assert "make room" in err
    assert os.listdir(tmp_path / "data" / "sources") == []


def test_a_folder_that_is_none(tmp_path, emseg, monkeypatch, source_folder):
    monkeypatch.chdir(tmp_path)
    for folder in (source_folder / "images.tif", tmp_path / "nowhere", "n" * 300):
        for command in (["check", folder], ["add", "mine", "--from", folder]):
            code, _, err = emseg("data", *command)
            assert (code, err.count("\n")) == (2, 1)
