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
    return [Dropout(rate)] if rate else []


class Dropout(nn.Dropout):
    """`nn.Dropout`, but on a CPU in a third of the time, most of which goes into drawing numbers.

    There a value is dropped by 16 random bits, so the rate is met to 1 / 2**17, and others are scaled for the rate met.
    """

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """`features` of any shape; in training, some of them 0 and the others larger."""
        is_dense = features.is_contiguous() or features.is_contiguous(memory_format=torch.channels_last)
        if not self.training or features.device.type != "cpu" or not is_dense:
            return super().forward(features)
        count, dropped = features.numel(), round(self.p * 2**16)
        words = torch.empty(-(-count // 4), dtype=torch.int64).random_(-(2**63), None)
        bits = words.view(torch.int16)[:count].as_strided(features.shape, features.stride())
        kept = (bits >= dropped - 2**15).to(features.dtype)
        return features * kept.mul_(2**16 / (2**16 - dropped))


def crop_to(features: torch.Tensor, size: torch.Size) -> torch.Tensor:
    """The top left part of `features` (N, C, Y, X) that has `size` (Y, X)."""
    return features[..., : size[0], : size[1]]
