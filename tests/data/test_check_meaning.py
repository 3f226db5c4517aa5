"""What is checked is what the labels mean, in the training and in the test stack."""

import numpy as np
import pytest
from scipy import ndimage

from emseg.data.check import check_stack, check_stacks
from emseg.data.labels import LabelReading
from emseg.data.synthetic import make_synthetic

FOUND_OUT = LabelReading()


@pytest.fixture(scope="module")
def other():
    return make_synthetic(sections=4, side=64, seed=11)


def bordered(images):
    images = images.copy()
    images[:, :14] = 0
    return images


WRITTEN = {
    "plain": lambda images, labels: (images, labels),
    "white membranes": lambda images, labels: (images, 255 - labels),
    "bright membranes": lambda images, labels: (255 - images, labels),
    "black border": lambda images, labels: (bordered(images), np.where(np.arange(64)[:, None] < 14, 255, labels)),
    "cells": lambda images, labels: (images, np.stack([ndimage.label(label)[0] for label in labels]).astype(np.uint64)),
}


@pytest.mark.parametrize("written", WRITTEN)
def test_labels_of_every_kind_are_sound_in_both_stacks(stack, other, written):
    report = check_stacks(*WRITTEN[written](*stack), *WRITTEN[written](*other), FOUND_OUT)
    assert report.problems == []
    assert report.labels.interior.shape == stack[1].shape
    assert report.test_labels.interior.shape == other[1].shape
    assert bool(report.notes) == (written != "plain")
    assert len([note for note in report.notes if note.startswith("test stack: ")]) == len(report.notes) // 2
    cells = [ndimage.label(label)[1] for label in WRITTEN[written](*stack)[1] == 255]
    if written == "plain":
        assert report.facts["cells per section"].startswith(f"{min(cells)} to {max(cells)},")


def test_cells_that_touch(stack):
    images, labels = stack
    cells = np.stack([ndimage.label(label)[0] for label in labels])
    nearest = [ndimage.distance_transform_edt(section == 0, return_indices=True)[1] for section in cells]
    touching = np.stack([section[tuple(where)] for section, where in zip(cells, nearest, strict=True)])
    report = check_stack(images, touching, FOUND_OUT)
    assert report.problems == []
    assert report.facts["membranes"].startswith("2 pixels wide")
    found = [len(np.unique(section)) for section in touching]
    assert report.facts["cells per section"].startswith(f"{min(found)} to {max(found)},")
    # Where they are of another section they do not fit.
    assert "better than its own" in "; ".join(check_stack(images, touching[::-1], FOUND_OUT).problems)


@pytest.mark.parametrize("is_bright", [False, True])
def test_a_label_of_another_image_is_found_in_either_stain(stack, is_bright):
    images, labels = stack
    shown = 255 - images if is_bright else images
    assert "label 0" in "; ".join(check_stack(shown, labels[::-1], FOUND_OUT).problems)
    moved = labels.copy()
    moved[4] = np.roll(moved[4], (17, 23), (0, 1))
    (problem,) = check_stack(shown, moved, FOUND_OUT).problems
    assert problem.startswith("label 4 ")


def test_what_is_ignored_is_not_looked_at(stack):
    images, labels = stack
    spoilt, ignore = labels.copy(), np.zeros(labels.shape, bool)
    spoilt[3, 24:] = 255 - labels[3, 24:]
    ignore[3, 24:] = True
    (problem,) = check_stack(images, spoilt, FOUND_OUT).problems
    assert problem.startswith("label 3 ")
    report = check_stack(images, spoilt, FOUND_OUT, ignore)
    assert report.problems == []
    assert report.facts["ignored"].startswith(f"{ignore.mean():.2%}")
    ignore[3], ignore[3, labels[3] > 0] = False, True
    assert check_stack(images, labels, FOUND_OUT, ignore).problems == [
        "the label of section 3 is all membrane; label it or leave it out"
    ]


def test_grey_levels_that_differ_strongly_are_told(stack, other):
    images, labels = stack
    assert check_stacks(*stack, *other, FOUND_OUT).notes == []
    faint = images.copy()
    faint[2] = 120 + images[2] // 8
    (note,) = check_stack(faint, labels, FOUND_OUT).notes
    assert note.startswith("section 2 has grey levels of")
    notes = check_stacks(images, labels, other[0] // 8, other[1], FOUND_OUT).notes
    assert notes[-1].startswith("test sections have grey levels of")


@pytest.mark.parametrize("which", ["training", "test"])
def test_labels_that_are_unclear_are_a_problem_of_their_stack(stack, other, which):
    unclear = (other[0], np.where(np.arange(64) < 9, 128, other[1]))
    stacks = (*stack, *unclear) if which == "test" else (*unclear, *stack)
    (problem,) = check_stacks(*stacks, FOUND_OUT).problems
    assert problem.startswith("test stack: " if which == "test" else "labels have values 0, 128, 255")
    assert "--ignore" in problem
    assert check_stacks(*stacks, LabelReading(ignore_value=128)).problems == []


def test_the_challenge_has_nothing_to_tell(isbi2012):
    report = check_stack(isbi2012.images, isbi2012.labels, FOUND_OUT)
    assert (report.problems, report.notes) == ([], [])
