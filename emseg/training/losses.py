"""The reference paper's losses, on logits."""

from __future__ import annotations

from typing import Protocol

import torch
import torch.nn.functional as F  # noqa: N812

from emseg.settings import WeightMapSettings
from emseg.training.distributed import Ranks


class Loss(Protocol):
    """What is minimised.

    Of logits (N, 1, Y, X), labels in {0, 1}, d1 + d2 in pixels or None, and bool pixels to leave out or None: a scalar.
    """

    def __call__(
        self,
        logits: torch.Tensor,
        labels: torch.Tensor,
        separation: torch.Tensor | None,
        ignore: torch.Tensor | None = None,
        /,
    ) -> torch.Tensor:
        """The loss."""
        ...


def binary_cross_entropy(
    logits: torch.Tensor,
    labels: torch.Tensor,
    weights: torch.Tensor | None = None,
    ignore: torch.Tensor | None = None,
    ranks: Ranks | None = None,
) -> torch.Tensor:
    """Mean over the pixels that count of -w (t log p + (1 - t) log(1 - p)), p = sigmoid(logits).

    Of ranks that share a batch, the mean of their losses is that over the whole batch.
    """
    if ignore is None:
        return F.binary_cross_entropy_with_logits(logits, labels, weight=weights)
    losses = F.binary_cross_entropy_with_logits(logits, labels, weight=weights, reduction="none")
    counted = (~ignore).sum().to(losses.dtype)
    if ranks is not None:
        counted = ranks.total(counted) / ranks.size
    return losses.masked_fill(ignore, 0).sum() / counted.clamp(min=1)


def bce_dice(
    logits: torch.Tensor,
    labels: torch.Tensor,
    dice_weight: float,
    ranks: Ranks,
    smooth: float = 1.0,
    ignore: torch.Tensor | None = None,
) -> torch.Tensor:
    """0.5 BCE - dice_weight Dice, with Dice = (2 sum p t + smooth) / (sum p + sum t + smooth) over the whole batch."""
    probability, truth = torch.sigmoid(logits), labels
    if ignore is not None:
        probability, truth = probability.masked_fill(ignore, 0), labels.masked_fill(ignore, 0)
    sums = torch.stack([(probability * truth).sum(), probability.sum() + truth.sum()])
    overlap, size = ranks.total(sums)
    dice = (2 * overlap + smooth) / (size + smooth)
    return 0.5 * binary_cross_entropy(logits, labels, None, ignore, ranks) - dice_weight * dice


def weighted_cross_entropy(
    logits: torch.Tensor,
    labels: torch.Tensor,
    separation: torch.Tensor,
    settings: WeightMapSettings,
    interior_share: float,
    ranks: Ranks,
    ignore: torch.Tensor | None = None,
) -> torch.Tensor:
    """Cross-entropy weighted by the U-Net weight map, w = w_c + b with b = w0 exp(-(d1 + d2)^2 / (2 sigma^2)).

    Weights w_I of interior and w_M of membrane move the odds at which the loss is smallest by w_I / w_M (Elkan 2001),
    so that membranes come out too thick at one half. Calibrated, the loss is of logits + log(w_I / w_M) instead, and
    the logits come out as those of the label: the map says which pixels matter, not what a probability means.

    Args:
        logits: (N, 1, Y, X).
        labels: in {0, 1}, same shape.
        separation: d1 + d2, pixels, same shape.
        settings: w0, sigma, and whether the loss is calibrated.
        interior_share: share of interior in the training set; w_c of each class is the other's share.
        ranks: the processes that share the batch.
        ignore: bool, same shape; pixels to leave out.
    """
    border = settings.w0 * torch.exp(-(separation**2) / (2 * settings.sigma**2))
    interior, membrane = 1 - interior_share + border, interior_share + border
    if settings.calibrated:
        logits = logits + torch.log(interior / membrane)
    return binary_cross_entropy(logits, labels, torch.where(labels > 0.5, interior, membrane), ignore, ranks)


def make_loss(
    name: str,
    weight_map: WeightMapSettings | None,
    interior_share: float,
    dice_weight: float,
    ranks: Ranks,
) -> Loss:
    """The loss of a recipe: `bce`, `weighted_bce` (needs `weight_map` and distances) or `bce_dice`.

    Its mean over `ranks` is the loss of the batch that they share.
    """

    def weighted_bce(
        logits: torch.Tensor,
        labels: torch.Tensor,
        separation: torch.Tensor | None,
        ignore: torch.Tensor | None = None,
    ) -> torch.Tensor:
        if weight_map is None or separation is None:
            raise ValueError("weighted_bce needs a weight map's settings and the separation distance")
        return weighted_cross_entropy(logits, labels, separation, weight_map, interior_share, ranks, ignore)

    if name == "weighted_bce":
        return weighted_bce
    if name == "bce_dice":
        return lambda logits, labels, _, ignore=None: bce_dice(logits, labels, dice_weight, ranks, ignore=ignore)
    return lambda logits, labels, _, ignore=None: binary_cross_entropy(logits, labels, None, ignore, ranks)
