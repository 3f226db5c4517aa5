"""Layers that the networks share."""

from __future__ import annotations

import torch
from torch import nn


def convolution(channels_in: int, channels_out: int, padding: str, normalization: str) -> list[nn.Module]:
    """A 3 x 3 convolution, batch normalisation where asked for, and ReLU."""
    layers: list[nn.Module] = [nn.Conv2d(channels_in, channels_out, 3, padding=1 if padding == "same" else 0)]
    if normalization == "batch":
        layers.append(nn.BatchNorm2d(channels_out))
    return [*layers, nn.ReLU()]


def dropout_layer(rate: float) -> list[nn.Module]:
    """Dropout, or nothing at rate 0."""
    return [nn.Dropout(rate)] if rate else []


def crop_to(features: torch.Tensor, size: torch.Size) -> torch.Tensor:
    """The top left part of `features` (N, C, Y, X) that has `size` (Y, X)."""
    return features[..., : size[0], : size[1]]
