"""Inputs as other programs write them, with what is right; they lie outside the project."""

import hashlib
import json
import os
from pathlib import Path

import numpy as np
import pytest
import tifffile
from segmenters import small_segmenter

from emseg.data.sources import load_source
from emseg.data.stack import read_stack
from emseg.inference.segmenter import OUTPUTS

READ = ("no-compression-tag", "no-optional-tags", "min-is-white")
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


def sha256(array: np.ndarray) -> str:
    return hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()


@pytest.mark.parametrize("name", READ)
def test_cases_that_are_read(tmp_path, cases, emseg, monkeypatch, name):
    right = next(case for case in json.loads((cases / "cases.json").read_text()) if case["name"] == name)
    monkeypatch.chdir(tmp_path)
    assert emseg("data", "check", cases / name)[0] == 0
    assert emseg("data", "add", "case", "--from", cases / name)[0] == 0
    source = load_source("case")
    assert source.images.dtype == np.uint8
    assert sha256(source.images) == right["images_sha256"]
    assert sha256(source.labels) == right["interior_sha256"]


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
        monkeypatch.setattr("emseg.tracking.models.load_segmenter", lambda model: small_segmenter(images))
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
