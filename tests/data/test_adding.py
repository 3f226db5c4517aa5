"""Labels of every kind come in by `emseg data add`, are told of, and are scored as they were given."""

import json

import numpy as np
import pytest
from scipy import ndimage

from emseg.data.io.stack import write_stack
from emseg.data.sources import load_source
from emseg.metrics.scoring import score_segments
from emseg.records.evaluation import DrawnMembranes


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(folder, images, labels):
    folder.mkdir()
    write_stack(folder / "images.tif", images)
    np.save(folder / "labels.npy", labels)
    return folder


def numbered(labels):
    """Cells of each section by number, no number twice in the stack."""
    cells, last = np.zeros(labels.shape, np.uint64), 0
    for z, section in enumerate(labels > 0):
        found, count = ndimage.label(section)
        cells[z] = np.where(found > 0, found + last, 0)
        last += count
    return cells * 3 + (cells > 0) * np.uint64(2**40)


def test_a_mask_of_membranes_is_turned_round_and_that_is_said(here, stack, emseg):
    code, _, err = emseg("data", "add", "turned", "--from", write(here / "lab", stack[0], 255 - stack[1]))
    assert code == 0, err
    assert "membrane" in err
    np.testing.assert_array_equal(load_source("turned").labels, stack[1] > 0)


def test_what_the_user_says_of_the_labels_counts(here, stack, emseg):
    folder = write(here / "lab", stack[0], stack[1])
    assert emseg("data", "add", "bright", "--from", folder, "--membrane", "white")[0] == 0
    np.testing.assert_array_equal(load_source("bright").labels, stack[1] == 0)
    classes = np.where(stack[1] > 0, np.where(np.arange(64) < 20, 200, 90), 30).astype(np.uint8)
    code, _, err = emseg(
        "data", "add", "kinds", "--from", write(here / "kinds", stack[0], classes), "--membrane-values", "30"
    )
    assert code == 0, err
    np.testing.assert_array_equal(load_source("kinds").labels, stack[1] > 0)
    for option, value in (("--membrane-values", "dark"), ("--membrane-width", "thin"), ("--membrane", "grey")):
        code, _, err = emseg("data", "add", "kinds", "--from", folder, option, value)
        assert code == 2
        assert value in err


def test_cells_by_number_are_kept_and_scored_as_given(here, stack, emseg):
    cells = numbered(stack[1])
    folder = write(here / "lab", stack[0], cells)
    code, out, err = emseg("data", "check", folder, "--json")
    assert code == 0, err
    assert "uint64" in json.loads(out)["facts"]["labels"]
    code, _, err = emseg("data", "add", "cells", "--from", folder)
    assert code == 0, err
    assert "cell" in err
    source = load_source("cells")
    np.testing.assert_array_equal(source.labels, stack[1] > 0)
    for own, given in zip(source.cells, cells, strict=True):
        pairs = np.unique(np.stack([own.ravel(), given.ravel()]), axis=1)
        assert len(pairs[0]) == len(np.unique(pairs[0])) == len(np.unique(pairs[1]))
    probability = np.random.default_rng(0).random(stack[1].shape).astype(np.float32)
    by_cells = score_segments(probability, source.cells, 0.5, cells=True)
    by_mask = score_segments(probability, stack[1], 0.5)
    np.testing.assert_array_equal(by_cells["v_rand"], by_mask["v_rand"])


def test_ignored_pixels_come_with_the_sections(here, stack, emseg):
    labels = stack[1].astype(np.uint8).copy()
    labels[:, :10] = 99
    code, _, err = emseg(
        "data", "add", "partly", "--from", write(here / "lab", stack[0], labels), "--ignore-value", "99"
    )
    assert code == 0, err
    source = load_source("partly")
    np.testing.assert_array_equal(source.ignore, labels == 99)
    np.testing.assert_array_equal(source.labels[:, 10:], stack[1][:, 10:] > 0)
    whole = write(here / "whole", stack[0], stack[1])
    assert emseg("data", "add", "whole", "--from", whole)[0] == 0
    assert load_source("whole").digest != source.digest


def test_a_membrane_of_nanometres_needs_the_size_of_a_pixel(here, emseg):
    # Two cells that touch at another column in each section, which is dark there.
    columns, borders = np.arange(64), 12 + 5 * np.arange(9)
    halves = np.where(columns < borders[:, None], 1, 2)[:, None].repeat(64, 1).astype(np.uint16)
    interior = (np.abs(columns - borders[:, None] + 0.5) > 2)[:, None].repeat(64, 1)
    images = np.random.default_rng(0).normal(np.where(interior, 160, 80), 5).astype(np.uint8)
    folder = write(here / "lab", images, halves)
    said = ("--cells", "--membrane-width", "16nm")
    for command in (["check", folder], ["add", "halves", "--from", folder]):
        code, _, err = emseg("data", *command, *said)
        assert (code, err.count("\n")) == (2, 1)
        assert "voxel_size_nm" in err
    assert not (here / "data/sources/halves").exists()
    (folder / "card.yaml").write_text("name: halves\ntitle: halves\nvoxel_size_nm: [50, 4, 4]\n")
    code, _, err = emseg("data", "add", "halves", "--from", folder, *said)
    assert code == 0, err
    assert "4 pixels (16 nm)" in err
    source = load_source("halves")
    np.testing.assert_array_equal(source.labels, interior)
    told = "Membranes between touching cells drawn 4 pixels wide (16 nm): pixel metrics depend on it."
    assert str(DrawnMembranes.of(source.noted)) == told
    # Of the same sections with nothing to draw, the card says so, whatever a card beside them says.
    apart = write(here / "apart", images, np.where(interior, halves, 0))
    (apart / "card.yaml").write_text("name: apart\ntitle: apart\ndrawn_membrane_pixels: 6\n")
    assert emseg("data", "add", "apart", "--from", apart, "--cells")[0] == 0
    assert DrawnMembranes.of(load_source("apart").noted) is None


def test_what_emseg_brought_in_is_not_taken_without_its_numbers(here, stack, emseg):
    folder = write(here / "lab", stack[0], numbered(stack[1]))
    assert emseg("data", "add", "cells", "--from", folder)[0] == 0
    for command in (["check", "data/sources/cells"], ["add", "again", "--from", "data/sources/cells"]):
        code, _, err = emseg("data", *command)
        assert (code, err.count("\n")) == (2, 1)
        assert "cells.tif, which its labels do not hold" in err
    assert not (here / "data/sources/again").exists()
