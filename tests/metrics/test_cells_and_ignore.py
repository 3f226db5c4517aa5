"""Cells by number, and pixels that count for nothing, against hand-made examples and definitions."""

from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from imperfect import imperfect_probability
from scipy import ndimage

from emseg.metrics import (
    adapted_rand_error,
    cross_fitted,
    dice,
    iou,
    iou_thresholded,
    pixel_error,
    rand_error,
    score_stack,
    thin_borders,
    v_info,
    v_rand,
    variation_of_information,
    warping_error,
)
from emseg.metrics.scoring import score_pixels, score_segments, score_validation

PIXEL_METRICS = [iou, iou_thresholded, dice, pixel_error, rand_error]
OF_SEGMENTS = [v_rand, v_info, adapted_rand_error, variation_of_information]
ALL = [*PIXEL_METRICS, *OF_SEGMENTS, warping_error, score_stack]
SHAPE = (4, 6)
examples = st.tuples(
    arrays(bool, SHAPE),
    arrays(np.int64, SHAPE, elements=st.integers(0, 3)),
    arrays(bool, SHAPE, elements=st.booleans()),
).filter(lambda example: ((example[1] > 0) & ~example[2]).any())
numbers = st.lists(st.integers(1, 2**64 - 1), min_size=24, max_size=24, unique=True)


def drawn(text):
    return np.array([[int(character) for character in line.replace(".", "0")] for line in text.split()])


def pairs_together(segments):
    return {(i, j) for i, j in product(range(len(segments)), repeat=2) if segments[i] == segments[j]}


def entropy(items):
    shares = np.array([items.count(item) for item in set(items)]) / len(items)
    return float(-(shares * np.log(shares)).sum())


@given(examples)
def test_v_rand_and_v_info_against_every_pair_of_pixels_that_count(example):
    proposal, cells, ignore = example
    keep = (cells > 0) & ~ignore
    s = [value or f"alone {place}" for place, value in enumerate(thin_borders(proposal)[keep].tolist())]
    t = cells[keep].tolist()
    of_s, of_t = pairs_together(s), pairs_together(t)
    score = v_rand(proposal, cells, 0.5, cells=True, ignore=ignore)
    assert score.split == pytest.approx(len(of_s & of_t) / len(of_t))
    assert score.merge == pytest.approx(len(of_s & of_t) / len(of_s))
    whole = entropy(s) + entropy(t)
    shared = whole - entropy(list(zip(s, t, strict=True)))
    expected = 2 * shared / whole if whole > 1e-9 else 1
    assert v_info(proposal, cells, 0.5, cells=True, ignore=ignore).value == pytest.approx(expected, abs=1e-9)


@given(examples)
def test_other_metrics_of_cells_against_their_definitions(example):
    proposal, cells, ignore = example
    keep = (cells > 0) & ~ignore
    s, t = ndimage.label(proposal)[0][keep].tolist(), cells[keep].tolist()
    n, c = int((~ignore).sum()), s.count(0)
    in_both = {pair: list(zip(s, t, strict=True)).count(pair) for pair in set(zip(s, t, strict=True)) if pair[0]}
    together = sum(count**2 for count in in_both.values()) + c / n
    by_s = sum(s.count(name) ** 2 for name in set(s) if name) + c / n
    by_t = sum(t.count(name) ** 2 for name in set(t))
    found = adapted_rand_error(proposal, cells, cells=True, ignore=ignore)
    precision, recall = (together / by_s if together else 0), together / by_t
    assert found == pytest.approx(1 - 2 * precision * recall / (precision + recall) if together else 1)
    joint = entropy(list(zip(s, t, strict=True)))
    split, merge = variation_of_information(proposal, cells, cells=True, ignore=ignore)
    assert (split, merge) == pytest.approx((joint - entropy(t), joint - entropy(s)), abs=1e-9)


@given(examples)
def test_pixel_metrics_are_of_the_pixels_that_count(example):
    proposal, cells, ignore = example
    if (~ignore).sum() < 2:
        return
    # The pixels that count as a section of one row.
    row = [part[~ignore][None] for part in (proposal, cells > 0)]
    for metric in PIXEL_METRICS:
        assert metric(proposal, cells, cells=True, ignore=ignore) == metric(*row)


@given(arrays(bool, SHAPE), arrays(bool, SHAPE).filter(np.any), arrays(bool, SHAPE), numbers)
def test_numbers_of_separate_cells_score_as_their_mask_to_the_digit(proposal, mask, ignore, names):
    # A pixel of a cell counts, and another beside it.
    first = int(np.flatnonzero(mask)[0])
    ignore.flat[[first, first - 1]] = False
    cells = np.array([0, *names], np.uint64)[ndimage.label(mask)[0]]
    for ignored in (None, ignore):
        by_mask, by_number = (
            score_stack(proposal, label, cells=is_numbered, ignore=ignored)
            for label, is_numbered in ((mask, False), (cells, True))
        )
        np.testing.assert_array_equal(by_mask, by_number)


def test_separate_cells_of_a_stack_score_as_their_mask_at_every_threshold(stack):
    mask = stack[1][:4] > 0
    probability = imperfect_probability(mask)
    cells = np.stack([ndimage.label(section)[0] for section in mask]).astype(np.uint32) * 977
    for metric in (v_rand, v_info):
        first, second = metric(probability, mask), metric(probability, cells, cells=True)
        np.testing.assert_array_equal(first.curve, second.curve)
        assert cross_fitted(probability, mask, metric.__name__) == cross_fitted(
            probability, cells, metric.__name__, cells=True
        )
    assert score_validation(probability, mask, ["v_rand", "dice"]) == score_validation(
        probability, cells, ["v_rand", "dice"], cells=True
    )


def test_nothing_ignored_changes_no_digit(stack):
    mask = stack[1][:3] > 0
    probability = imperfect_probability(mask)
    ignore = np.zeros_like(mask)
    np.testing.assert_array_equal(score_stack(probability, mask), score_stack(probability, mask, ignore=ignore))
    np.testing.assert_array_equal(v_rand(probability, mask).curve, v_rand(probability, mask, ignore=ignore).curve)


def test_cells_that_touch_by_hand():
    cells = drawn("1122 1122")
    whole = np.ones(cells.shape)
    score = v_rand(whole, cells, 0.5, cells=True)
    assert (score.split, score.merge) == pytest.approx((1.0, 0.5))
    # As a mask, where no membrane is between them, they would be one cell.
    assert v_rand(whole, cells > 0, 0.5).value == 1
    # A border in the second column: 2 pixels of cell 1 are alone, sum p^2 = (2^2 + 1 + 1 + 4^2) / 8^2.
    parted = v_rand(drawn("1.11 1.11") > 0, cells, 0.5, cells=True)
    assert parted.split == pytest.approx(22 / 32)
    assert parted.merge == pytest.approx(1)


def test_one_number_in_two_places_is_one_cell():
    cells = drawn("33.33")
    assert v_rand(np.ones(cells.shape), cells, 0.5, cells=True).value == 1
    # Two segments of 2 pixels within one cell of 4: sum p^2 = 1/2, sum t^2 = 1.
    assert v_rand(drawn("11.11") > 0, cells, 0.5, cells=True).split == pytest.approx(0.5)


def test_an_ignored_error_costs_nothing_and_an_ignored_cell_is_not_there():
    cells, ignore = drawn("111.222.333"), drawn("....1111...") > 0
    proposal = drawn("111.1.1.111") > 0
    for metric in (v_rand, v_info):
        assert metric(proposal, cells, 0.5, cells=True, ignore=ignore).value == 1
        assert metric(proposal, cells, 0.5, cells=True).value < 1
    assert pixel_error(proposal, cells, cells=True, ignore=ignore) == 0
    # Segments are told apart before pixels are left out: the two outer cells are one where the proposal joins them.
    assert v_rand(np.ones(cells.shape), cells, 0.5, cells=True, ignore=ignore).merge == pytest.approx(18 / 36)


def test_warping_takes_ignored_pixels_as_labelled():
    label = drawn("........... .####.####. .####.####. .####.####. ...........".replace("#", "1")) > 0
    merged = label.copy()
    merged[2, 5] = True
    cut = merged.copy()
    cut[1:4, 3] = False
    ignore = np.zeros(label.shape, bool)
    ignore[:, 5:] = True
    both = warping_error(cut, label)
    assert (both.splits, both.merges) == (1, 1)
    left = warping_error(cut, label, ignore=ignore)
    assert (left.splits, left.merges) == (1, 0)
    # One pixel keeps the cell whole, of the 25 that count.
    assert left.value == pytest.approx(1 / 25)
    taken = np.where(ignore, label, cut)
    assert left.value == pytest.approx(warping_error(taken, label).value * label.size / 25)


def test_warping_of_numbers_is_that_of_their_mask(stack):
    mask = stack[1][0] > 0
    proposal = imperfect_probability(stack[1][:1] > 0)[0]
    assert warping_error(proposal, ndimage.label(mask)[0], cells=True).value == warping_error(proposal, mask).value


@pytest.mark.parametrize("score", [score_pixels, score_segments])
def test_the_parts_of_a_table_agree_with_the_whole(score):
    random = np.random.default_rng(4)
    probability, cells = random.random((2, 9, 9)), random.integers(0, 4, (2, 9, 9))
    ignore = random.random((2, 9, 9)) < 0.3
    table = score(probability, cells, 0.6, cells=True, ignore=ignore)
    np.testing.assert_array_equal(table, score_stack(probability, cells, 0.6, cells=True, ignore=ignore)[table.columns])


ONES = np.ones((4, 4), int)
BAD = {
    "numbers without cells": (ONES * 7, {}, "cells=True"),
    "negative": (ONES - 2, {"cells": True}, "negative"),
    "float numbers": (ONES.astype(float), {"cells": True}, "non-negative integers"),
    "mask as numbers": (ONES > 0, {"cells": True}, "non-negative integers"),
    "ignore of another shape": (ONES, {"ignore": np.zeros((4, 5), bool)}, "expected .4, 4. and bool"),
    "ignore of another type": (ONES, {"ignore": np.zeros((4, 4), np.uint8)}, "and bool"),
    "all ignored": (ONES, {"ignore": ONES > 0}, "ignored as a whole"),
}


@pytest.mark.parametrize("metric", ALL)
@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_refused(metric, case):
    label, arguments, message = BAD[case]
    with pytest.raises(ValueError, match=message):
        metric(np.ones((4, 4)), label, **arguments)


@pytest.mark.parametrize("metric", OF_SEGMENTS)
def test_a_section_whose_cells_are_all_ignored_is_refused(metric):
    cells = drawn("11.")
    with pytest.raises(ValueError, match="no cell interior that counts"):
        metric(np.ones(cells.shape), cells, cells=True, ignore=cells > 0)
