"""Losses against their formulas in numpy."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from emseg.data import separation_distance, weight_map
from emseg.settings import WeightMapSettings
from emseg.training.distributed import Ranks
from emseg.training.losses import make_loss


@pytest.mark.parametrize("dice_weight", [0.0, 1.0, 2.5])
def test_the_mix_of_cross_entropy_and_dice(dice_weight):
    random = np.random.default_rng(0)
    logits = random.normal(size=(2, 1, 5, 7))
    labels = (random.random((2, 1, 5, 7)) > 0.4).astype(float)
    p = 1 / (1 + np.exp(-logits))
    cross_entropy = -(labels * np.log(p) + (1 - labels) * np.log(1 - p)).mean()
    dice = (2 * (p * labels).sum() + 1) / (p.sum() + labels.sum() + 1)
    loss = make_loss("bce_dice", None, 0.6, dice_weight, Ranks())(
        torch.from_numpy(logits), torch.from_numpy(labels), None
    )
    assert loss.item() == pytest.approx(0.5 * cross_entropy - dice_weight * dice)


def test_the_weighted_loss_is_that_of_the_weight_map(stack):
    label = stack[1][0] > 0
    logits = np.random.default_rng(0).normal(size=label.shape)
    p = 1 / (1 + np.exp(-logits))
    expected = -(weight_map(label, w0=4, sigma=3) * np.where(label, np.log(p), np.log(1 - p))).mean()
    loss = make_loss("weighted_bce", WeightMapSettings(w0=4, sigma=3), float(label.mean()), 1.0, Ranks())
    given_as = (logits, label.astype(float), separation_distance(label, 48))
    assert loss(*(torch.from_numpy(part)[None, None] for part in given_as)).item() == pytest.approx(expected, rel=1e-4)


@given(
    p=st.floats(0.01, 0.99),
    share=st.floats(0.05, 0.95),
    w0=st.floats(0, 20),
    separation=st.floats(0, 50),
    calibrated=st.booleans(),
)
def test_a_calibrated_loss_is_smallest_at_the_true_probability(p, share, w0, separation, calibrated):
    loss = make_loss("weighted_bce", WeightMapSettings(w0=w0, sigma=5, calibrated=calibrated), share, 1.0, Ranks())
    distance = torch.full((1, 1, 1, 1), separation, dtype=torch.float64)
    border = w0 * np.exp(-(separation**2) / 50)
    moved = 1 if calibrated else (1 - share + border) / (share + border)
    odds = p / (1 - p) * moved
    logit = torch.full_like(distance, float(np.log(odds)), requires_grad=True)
    expected = p * loss(logit, torch.ones_like(distance), distance) + (1 - p) * loss(
        logit, torch.zeros_like(distance), distance
    )
    expected.backward()
    assert logit.grad.item() == pytest.approx(0, abs=1e-6)
