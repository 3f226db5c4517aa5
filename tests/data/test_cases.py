"""Inputs as other programs write them, with what is right; they lie outside the project."""

import hashlib
import json
import os
from pathlib import Path

import numpy as np
import pytest
import tifffile
from segmenters import small_segmenter

from emseg.data.io.stack import read_stack
from emseg.data.labelled import read_labelled
from emseg.data.sources import load_source
from emseg.segmentation.segmenter import OUTPUTS

READ = (
    *("no-compression-tag", "no-optional-tags", "min-is-white", "palette-labels", "rgba-labels", "two-values-int32-1"),
    *("frames", "int16", "upper-case", "ome-zarr"),
)
REFUSED = {
    "mixed-files": "s2.jpg is not read",
    "test-is-training": "section 1 of the test stack is section 3 of the training stack",
}


@pytest.fixture(scope="module")
def cases() -> Path:
    folder = os.environ.get("EMSEG_CASES")
    if not folder:
        pytest.skip("EMSEG_CASES does not name the folder of the cases")
    return Path(folder)


def listed(cases: Path) -> dict[str, dict]:
    return {case["name"]: case for case in json.loads((cases / "cases.json").read_text())}


def sha256(array: np.ndarray) -> str:
    return hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()


@pytest.mark.parametrize("name", READ)
def test_cases_that_are_read(tmp_path, cases, emseg, monkeypatch, name):
    right = listed(cases)[name]
    monkeypatch.chdir(tmp_path)
    assert emseg("data", "check", cases / name)[0] == 0
    assert emseg("data", "add", "case", "--from", cases / name)[0] == 0
    source = load_source("case")
    assert source.images.dtype == np.uint8
    assert sha256(source.images) == right["images_sha256"]
    assert sha256(source.labels) == right["interior_sha256"]


def test_the_images_of_every_case_come_in_as_they_are(cases):
    read = {name: case for name, case in listed(cases).items() if case["images_sha256"]}
    assert len(read) >= 22
    for name, case in read.items():
        said = []
        found = read_labelled(cases / name, said.append)
        assert found.images.dtype == np.uint8, name
        assert sha256(found.images) == case["images_sha256"], name
        assert list(found.voxel_size or ()) == case.get("voxel_size_nm", []), name
        assert len(said) == (name == "frames"), name


def test_the_labels_of_every_case_keep_their_numbers(cases):
    read = {name: read_labelled(cases / name).labels for name, case in listed(cases).items() if case["images_sha256"]}
    for name, labels in read.items():
        case = listed(cases)[name]
        if "cells_per_section" in case:
            counts = [len(np.unique(section[section > 0])) for section in labels]
            assert counts == case["cells_per_section"], name
    inside = {
        "white-membranes": lambda labels: labels == 0,
        "other-names": lambda labels: ~labels,
        "one-and-two": lambda labels: labels == 2,
        "classes": lambda labels: labels > 64,
    }
    for name, labels in read.items():
        if right := listed(cases)[name]["interior_sha256"]:
            assert sha256(inside.get(name, lambda labels: labels > 0)(labels)) == right, name


@pytest.mark.parametrize("name", REFUSED)
def test_cases_that_are_refused(tmp_path, cases, emseg, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    for command in (["check", cases / name], ["add", "case", "--from", cases / name]):
        code, _, err = emseg("data", *command)
        assert code == 2
        assert REFUSED[name] in err
    assert not (tmp_path / "data").exists()


@pytest.fixture
def predict(emseg, monkeypatch):
    def run(images, *arguments):
        monkeypatch.setattr("emseg.registry.load.load_segmenter", lambda *_: small_segmenter(images))
        return emseg("predict", *arguments)

    return run


@pytest.mark.parametrize("kind", OUTPUTS)
def test_a_stack_compressed_as_jpeg_and_its_decoded_twin(tmp_path, cases, predict, kind):
    folder = cases / "predict-jpeg"
    images = read_stack(folder / "twin.tif")
    for name in ("input", "twin"):
        assert predict(images, folder / f"{name}.tif", tmp_path / f"{name}.tif", "--kind", kind)[0] == 0
    np.testing.assert_array_equal(*(tifffile.imread(tmp_path / f"{name}.tif") for name in ("input", "twin")))


def test_sections_of_one_stem(tmp_path, cases, predict):
    folder = cases / "same-stem" / "in"
    assert predict(read_stack(folder), folder, tmp_path / "out")[0] == 0
    assert sorted(file.name for file in (tmp_path / "out").iterdir()) == ["a.png.tif", "a.tif"]
