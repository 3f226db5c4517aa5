"""The study's losses, on logits."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F  # noqa: N812

from emseg.settings import WeightMapSettings

Loss = Callable[[torch.Tensor, torch.Tensor, torch.Tensor | None], torch.Tensor]
"""(logits (N, 1, Y, X), labels in {0, 1}, d1 + d2 in pixels or None) -> scalar."""


def binary_cross_entropy(
    logits: torch.Tensor, labels: torch.Tensor, weights: torch.Tensor | None = None
) -> torch.Tensor:
    """Mean over pixels of -w (t log p + (1 - t) log(1 - p)), p = sigmoid(logits)."""
    return F.binary_cross_entropy_with_logits(logits, labels, weight=weights)


def bce_dice(logits: torch.Tensor, labels: torch.Tensor, dice_weight: float = 1.0, smooth: float = 1.0) -> torch.Tensor:
    """0.5 BCE - dice_weight Dice, with Dice = (2 sum p t + smooth) / (sum p + sum t + smooth) over the batch."""
    probability = torch.sigmoid(logits)
    overlap = 2 * (probability * labels).sum() + smooth
    dice = overlap / (probability.sum() + labels.sum() + smooth)
    return 0.5 * binary_cross_entropy(logits, labels) - dice_weight * dice


def weighted_cross_entropy(
    logits: torch.Tensor,
    labels: torch.Tensor,
    separation: torch.Tensor,
    settings: WeightMapSettings,
    interior_share: float,
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
    """
    border = settings.w0 * torch.exp(-(separation**2) / (2 * settings.sigma**2))
    interior, membrane = 1 - interior_share + border, interior_share + border
    if settings.calibrated:
        logits = logits + torch.log(interior / membrane)
    return binary_cross_entropy(logits, labels, torch.where(labels > 0.5, interior, membrane))


def soft_skeleton(membranes: torch.Tensor, thickness: int = 3) -> torch.Tensor:
    """Differentiable skeleton (N, 1, Y, X) of probabilities, of lines up to twice `thickness` pixels wide."""

    def erode(values: torch.Tensor) -> torch.Tensor:
        return -torch.maximum(F.max_pool2d(-values, (3, 1), 1, (1, 0)), F.max_pool2d(-values, (1, 3), 1, (0, 1)))

    def without_lines(values: torch.Tensor) -> torch.Tensor:
        return F.max_pool2d(erode(values), 3, 1, 1)

    skeleton = F.relu(membranes - without_lines(membranes))
    for _ in range(thickness):
        membranes = erode(membranes)
        more = F.relu(membranes - without_lines(membranes))
        skeleton = skeleton + F.relu(more - skeleton * more)
    return skeleton


def centreline_dice(logits: torch.Tensor, labels: torch.Tensor, smooth: float = 1.0) -> torch.Tensor:
    """Soft clDice of membranes (Shit et al. 2021): how much of either skeleton lies within the other's membranes."""
    # Membranes are several pixels wide: at half the resolution no line is lost, and a step costs a sixth.
    predicted, true = F.avg_pool2d(torch.sigmoid(-logits), 2), F.avg_pool2d(1 - labels, 2)
    predicted_line, true_line = soft_skeleton(predicted), soft_skeleton(true)
    precision = ((predicted_line * true).sum() + smooth) / (predicted_line.sum() + smooth)
    recall = ((true_line * predicted).sum() + smooth) / (true_line.sum() + smooth)
    return 2 * precision * recall / (precision + recall)


def make_loss(name: str, weight_map: WeightMapSettings | None, interior_share: float, dice_weight: float = 1.0) -> Loss:
    """The loss of a recipe: `bce`, `weighted_bce` (needs `weight_map` and distances) or `bce_dice`."""

    def weighted_bce(logits: torch.Tensor, labels: torch.Tensor, separation: torch.Tensor | None) -> torch.Tensor:
        if weight_map is None or separation is None:
            raise ValueError("weighted_bce needs a weight map's settings and the separation distance")
        return weighted_cross_entropy(logits, labels, separation, weight_map, interior_share)

    if name == "weighted_bce":
        return weighted_bce
    if name == "bce_dice":
        return lambda logits, labels, _: bce_dice(logits, labels, dice_weight)
    return lambda logits, labels, _: binary_cross_entropy(logits, labels)
