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


@pytest.mark.parametrize("name", ["bce", "bce_dice", "weighted_bce"])
def test_ignored_pixels_are_as_if_they_were_not_there(name):
    random = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 1, 4, 6, generator=random, dtype=torch.float64, requires_grad=True)
    labels = (torch.rand(2, 1, 4, 6, generator=random) > 0.4).double()
    separation = 20 * torch.rand(2, 1, 4, 6, generator=random, dtype=torch.float64)
    ignore = torch.rand(2, 1, 4, 6, generator=random) < 0.3
    loss = make_loss(name, WeightMapSettings(w0=4, sigma=3), 0.6, 1.5, Ranks())
    found = loss(logits, labels, separation, ignore)
    # The pixels that count, in a row.
    row = [part[~ignore][None, None, None] for part in (logits, labels, separation)]
    assert found.item() == pytest.approx(loss(*row).item())
    found.backward()
    assert (logits.grad[ignore] == 0).all()
    assert (logits.grad[~ignore] != 0).all()
    # Whatever is there.
    torch.testing.assert_close(loss(logits, torch.where(ignore, 7.0, labels), separation, ignore), found)
    torch.testing.assert_close(
        loss(logits, labels, separation, torch.zeros_like(ignore)), loss(logits, labels, separation)
    )


@pytest.mark.parametrize("name", ["bce", "bce_dice", "weighted_bce"])
def test_a_crop_without_a_pixel_that_counts_costs_nothing(name):
    logits = torch.randn(1, 1, 4, 4, requires_grad=True)
    loss = make_loss(name, WeightMapSettings(w0=4, sigma=3), 0.6, 0.0, Ranks())
    found = loss(logits, torch.ones(1, 1, 4, 4), torch.ones(1, 1, 4, 4), torch.ones(1, 1, 4, 4, dtype=torch.bool))
    found.backward()
    assert found.item() == 0
    assert (logits.grad == 0).all()


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
