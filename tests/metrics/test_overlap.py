from fractions import Fraction
from itertools import combinations
from math import ceil

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from emseg.metrics import dice, iou, iou_thresholded, pixel_error, rand_error, score_stack

METRICS = [iou, iou_thresholded, dice, pixel_error, rand_error]
masks = arrays(bool, st.tuples(st.integers(1, 3), st.integers(2, 5), st.integers(2, 5)))
pairs = masks.flatmap(lambda mask: st.tuples(st.just(mask), arrays(bool, mask.shape)))


def jaccard(predicted, truth):
    union = int((predicted | truth).sum())
    return Fraction(int((predicted & truth).sum()), union) if union else Fraction(1)


@given(pairs)
def test_against_set_arithmetic(pair):
    predicted, truth = pair
    indices = [jaccard(p, t) for p, t in zip(predicted, truth, strict=True)]
    assert iou(predicted, truth) == pytest.approx(float(sum(indices) / len(indices)))
    assert dice(predicted, truth) == pytest.approx(float(sum(2 * j / (1 + j) for j in indices) / len(indices)))
    assert iou_thresholded(predicted, truth) == pytest.approx(
        float(np.mean([max(0, ceil(20 * j - 10)) / 10 for j in indices]))
    )
    # The share of thresholds 0.50, 0.55 ... 0.95 that J exceeds.
    shares = [sum(j > Fraction(50 + 5 * k, 100) for k in range(10)) / 10 for j in indices]
    assert iou_thresholded(predicted, truth) == pytest.approx(float(np.mean(shares)))
    assert pixel_error(predicted, truth) == pytest.approx(float(np.mean(predicted != truth)))


@given(pairs)
def test_rand_error_counts_pixel_pairs(pair):
    predicted, truth = pair
    errors = []
    for p, t in zip(predicted, truth, strict=True):
        disagree = [(p.flat[i] == p.flat[j]) != (t.flat[i] == t.flat[j]) for i, j in combinations(range(p.size), 2)]
        errors.append(np.mean(disagree))
    assert rand_error(predicted, truth) == pytest.approx(float(np.mean(errors)))


def test_rand_error_of_the_reference_follows_from_its_pixel_error():
    side, error = 512, 0.0732
    predicted = np.ones((side, side), bool)
    truth = predicted.copy()
    truth.flat[: round(error * side * side)] = False
    assert rand_error(predicted, truth) == pytest.approx(0.1357, abs=5e-5)


def test_reference_dice_and_jaccard_agree():
    # Dice 0.9617 is J = 0.926: 2 * 0.926 / 1.926.
    truth = np.ones((1, 1000), bool)
    predicted = truth.copy()
    predicted[0, :74] = False
    assert iou(predicted, truth) == pytest.approx(0.926)
    assert dice(predicted, truth) == pytest.approx(0.9616, abs=1e-4)
    assert iou_thresholded(predicted, truth) == pytest.approx(0.9)


@given(pairs)
def test_perfect_prediction_and_bounds(pair):
    predicted, truth = pair
    for metric in METRICS:
        assert 0 <= metric(predicted, truth) <= 1
    assert iou(truth, truth) == dice(truth, truth) == iou_thresholded(truth, truth) == 1
    assert pixel_error(truth, truth) == rand_error(truth, truth) == 0


@given(pairs, st.integers(1, 3))
def test_invariant_to_turning_and_mirroring(pair, turns):
    for metric in METRICS:
        turned = [np.rot90(array, turns, (1, 2))[..., ::-1] for array in pair]
        assert metric(*turned) == pytest.approx(metric(*pair))


@pytest.mark.parametrize("metric", METRICS)
def test_label_encodings_mean_the_same(metric):
    random = np.random.default_rng(0)
    probability, truth = random.random((2, 6, 7)), random.random((2, 6, 7)) > 0.4
    value = metric(probability, truth)
    assert metric(probability, truth.astype(np.uint8)) == value
    assert metric(probability, truth.astype(np.uint8) * 255) == value
    assert metric(probability.astype(np.float32), truth.astype(float)) == value


@pytest.mark.parametrize("metric", METRICS)
def test_threshold_is_strict(metric):
    truth = np.array([[1, 0, 1, 0]])
    probability = np.array([[0.5, 0.5, 0.7, 0.2]])
    assert metric(probability, truth) == metric(np.array([[False, False, True, False]]), truth)
    assert metric(probability, truth, threshold=0.1) == metric(np.ones((1, 4), bool), truth)


BAD = {
    "8-bit probability": (np.zeros((4, 4), np.uint8), np.zeros((4, 4)), "divide 8-bit probabilities by 255"),
    "NaN": (np.full((4, 4), np.nan), np.zeros((4, 4)), "without NaN"),
    "logits": (np.full((4, 4), 3.0), np.zeros((4, 4)), "sigmoid"),
    "other label values": (np.zeros((4, 4)), np.arange(16).reshape(4, 4), "{0, 1} or {0, 255}"),
    "another shape": (np.zeros((4, 4)), np.zeros((4, 5)), "must agree"),
    "one row": (np.zeros(4), np.zeros(4), "stack"),
    "nothing": (np.zeros((0, 4)), np.zeros((0, 4)), "stack"),
}


@pytest.mark.parametrize("metric", [*METRICS, score_stack])
@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_refused(metric, case):
    probability, label, message = BAD[case]
    with pytest.raises(ValueError, match=message):
        metric(probability, label)


def test_empty_foreground_is_defined():
    nothing = np.zeros((4, 4), bool)
    assert iou(nothing, nothing) == dice(nothing, nothing) == iou_thresholded(nothing, nothing) == 1
