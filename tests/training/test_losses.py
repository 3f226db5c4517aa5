"""Losses against their formulas in numpy."""

import numpy as np
import pytest
import torch

from emseg.training.losses import make_loss


@pytest.mark.parametrize("dice_weight", [0.0, 1.0, 2.5])
def test_the_mix_of_cross_entropy_and_dice(dice_weight):
    random = np.random.default_rng(0)
    logits = random.normal(size=(2, 1, 5, 7))
    labels = (random.random((2, 1, 5, 7)) > 0.4).astype(float)
    p = 1 / (1 + np.exp(-logits))
    cross_entropy = -(labels * np.log(p) + (1 - labels) * np.log(1 - p)).mean()
    dice = (2 * (p * labels).sum() + 1) / (p.sum() + labels.sum() + 1)
    loss = make_loss("bce_dice", None, 0.6, dice_weight)(torch.from_numpy(logits), torch.from_numpy(labels), None)
    assert loss.item() == pytest.approx(0.5 * cross_entropy - dice_weight * dice)
