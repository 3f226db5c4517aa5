"""Cells by number and ignored pixels on their way from a source to what trains and scores."""

import json
from dataclasses import replace

import numpy as np
import pytest
from scipy import ndimage

from emseg.data.augmented_set import augmented_identity, make_augmented, no_augmented, read_augmented, write_augmented
from emseg.data.io.stack import stack_digest
from emseg.data.labelled_sections import divide
from emseg.data.normalization import Normalization, grey_levels
from emseg.data.protocol import split_sections
from emseg.data.sources import Source
from emseg.settings import AugmentedSetSettings, ProtocolSettings

SETTINGS = AugmentedSetSettings(count=10, seed=0, separation_limit=20.0, elastic_amplitude=2.0, elastic_spacing=16)


def split(name, test_sections=0):
    settings = ProtocolSettings(name=name, held_out=2, validation=2, blocks=2, folds=[0])
    return split_sections(settings, [9], 0, test_sections)


HELDOUT = split("heldout")


@pytest.fixture
def masks(stack):
    images, labels = stack
    return Source("cortex", images, labels > 0, images[:0], labels[:0] > 0)


@pytest.fixture
def known(masks):
    """The same with cells by number, and a band to ignore."""
    cells = np.stack([ndimage.label(section)[0] for section in masks.labels]).astype(np.uint32)
    ignore = np.zeros(masks.labels.shape, bool)
    ignore[:, :, 20:30] = True
    return replace(masks, cells=cells, ignore=ignore)


def test_the_digest_of_data_without_numbers_or_ignored_pixels_stays(masks, known):
    assert masks.digest == stack_digest(masks.images, masks.labels, masks.test_images, masks.test_labels)
    made = make_augmented(masks, HELDOUT, SETTINGS)
    assert made.digest == stack_digest(made.images, made.labels, made.separations)
    parts = {"cells": known.cells, "ignore": known.ignore, "test_cells": known.cells, "test_ignore": known.ignore}
    digests = {masks.digest} | {replace(masks, **{name: part}).digest for name, part in parts.items()}
    assert len(digests) == 5


def test_what_is_ignored_is_warped_as_the_section_is(tmp_path, known):
    # A label that is what is ignored shows where it went.
    twins = replace(known, labels=~known.ignore, cells=None)
    made = make_augmented(twins, HELDOUT, SETTINGS)
    assert made.ignore.shape == made.labels.shape
    assert (made.ignore == made.labels).mean() < 0.03
    plain = make_augmented(replace(twins, ignore=None), HELDOUT, SETTINGS)
    assert plain.ignore is None
    for name in ("images", "labels", "separations", "sources"):
        np.testing.assert_array_equal(getattr(made, name), getattr(plain, name))
    assert made.digest != plain.digest

    write_augmented(tmp_path / "set", made)
    again = read_augmented(tmp_path / "set", json.loads(json.dumps(augmented_identity(twins, HELDOUT, SETTINGS))))
    np.testing.assert_array_equal(again.ignore, made.ignore)
    assert again.digest == made.digest
    write_augmented(tmp_path / "set", plain)
    assert not (tmp_path / "set" / "ignore.tif").exists()
    assert read_augmented(tmp_path / "set", plain.identity).ignore is None


def test_parts_keep_what_is_known_of_their_sections(known):
    parts = divide(known, HELDOUT, make_augmented(known, HELDOUT, SETTINGS).normalization)
    for part, sections in ((parts.training, range(5)), (parts.validation, range(5, 7)), (parts.test, range(7, 9))):
        np.testing.assert_array_equal(part.numbers, sections)
        np.testing.assert_array_equal(part.cells, known.cells[list(sections)])
        np.testing.assert_array_equal(part[1:].ignore, known.ignore[list(sections)][1:])


def test_the_official_test_stack_has_its_own_numbers(known):
    tested = replace(
        known,
        test_images=known.images[::-1],
        test_labels=known.labels[::-1],
        test_cells=known.cells[::-1] * 5,
        test_ignore=None,
    )
    official = split("official", 9)
    parts = divide(tested, official, make_augmented(tested, official, SETTINGS).normalization)
    np.testing.assert_array_equal(parts.test.cells, tested.test_cells)
    assert parts.test.ignore is None
    np.testing.assert_array_equal(parts.training.ignore, known.ignore[:7])


def test_augmented_images_that_are_divided_bring_what_is_ignored(known):
    made = make_augmented(known, split("paper"), SETTINGS)
    parts = divide(known, split("paper"), made.normalization, made)
    np.testing.assert_array_equal(parts.test.ignore, made.ignore[parts.test.numbers])
    np.testing.assert_array_equal(parts.test.cells, made.cells[parts.test.numbers])


def test_numbered_cells_are_warped_as_the_section_is(tmp_path, known):
    paper = split("paper")
    made = make_augmented(known, paper, SETTINGS)
    np.testing.assert_array_equal(made.cells > 0, made.labels)
    for cells, label in zip(made.cells, made.labels, strict=True):
        # Cells that lie apart are the components of the interior, but for a pixel that joins or parts two.
        parts = ndimage.label(label)[0]
        pairs, counts = np.unique(np.stack([cells, parts])[:, label], axis=1, return_counts=True)
        best = sum(counts[pairs[1] == part].max() for part in np.unique(pairs[1]))
        assert best > 0.97 * counts.sum()
    # Where two touch without any membrane, components cannot tell them apart.
    halves = np.ones(known.labels.shape, np.uint32) * 2**31
    halves[:, :, 32:] = 5
    touching = make_augmented(replace(known, labels=halves > 0, cells=halves, ignore=None), paper, SETTINGS)
    assert touching.labels.all()
    assert (np.array([len(np.unique(cells)) for cells in touching.cells]) >= 2).all()
    write_augmented(tmp_path / "set", touching)
    again = read_augmented(tmp_path / "set", json.loads(json.dumps(touching.identity)))
    assert again.digest == touching.digest != replace(touching, cells=None).digest
    # No other protocol asks for them, and images and labels are the same without.
    assert make_augmented(known, HELDOUT, SETTINGS).cells is None
    plain = make_augmented(replace(known, cells=None), paper, SETTINGS)
    assert plain.cells is None
    for name in ("images", "labels", "ignore", "sources"):
        np.testing.assert_array_equal(getattr(made, name), getattr(plain, name))


def test_cells_count_in_their_interior_and_where_nothing_is_ignored(known):
    part = divide(known, HELDOUT, make_augmented(known, HELDOUT, SETTINGS).normalization).test
    thinner = replace(part, labels=ndimage.binary_erosion(part.labels, np.ones((1, 3, 3))))
    np.testing.assert_array_equal(thinner.for_metrics["label"], np.where(thinner.labels, thinner.cells, 0))
    assert thinner.for_metrics["cells"] is True
    for sections in (thinner, replace(thinner, cells=None)):
        found = sections.true_cells
        np.testing.assert_array_equal(found > 0, thinner.labels & ~thinner.ignore)
    # What an ignored band parts is still one cell.
    kept = np.unique(thinner.true_cells[0])
    assert len(kept) - 1 == len(np.unique(thinner.cells[0][thinner.labels[0] & ~thinner.ignore[0]]))


def test_grey_levels_are_measured_where_pixels_count(known):
    grey = known.images.astype(np.uint16) * 100
    spoilt = np.where(known.ignore, np.uint16(0), grey)
    expected = Normalization(*np.quantile(grey[:5][~known.ignore[:5]], [0.001, 0.999]))
    for make in (make_augmented, no_augmented):
        assert make(replace(known, images=spoilt), HELDOUT, SETTINGS).normalization == expected
        whole = make(replace(known, images=grey, ignore=None), HELDOUT, SETTINGS).normalization
        assert whole == Normalization(*np.quantile(grey[:5], [0.001, 0.999])) != expected
    part = spoilt[0] / 2**16, known.ignore[0]
    assert grey_levels(*part) == grey_levels(part[0][~part[1]])
