"""What training and prediction ask of every network."""

from __future__ import annotations

import torch
from torch import nn


class Network(nn.Module):
    """Maps images (N, C, Y, X) float32 in [0, 1] to logits (N, 1, Y', X') of cell interior.

    The C channels are the section between the neighbours before and after it.

    Attributes:
        padding: 'same' (Y' = Y) or 'valid' (Y' = Y - 2 margin).
        margin: pixels lost on each side; 0 for 'same'.
        neighbours: sections before and after the one that is segmented that the network sees too.
        stride: a shift of the input by this many pixels shifts the output by as many.
    """

    padding: str
    margin: int
    stride: int
    neighbours: int = 0

    @property
    def channels(self) -> int:
        """Of the input."""
        return 2 * self.neighbours + 1

    def is_valid_side(self, side: int) -> bool:
        """Whether an input of this side goes in and leaves an output."""
        return side >= 1

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Logits (N, 1, Y', X') of images (N, C, Y, X)."""
        raise NotImplementedError

    def training_logits(self, images: torch.Tensor) -> list[torch.Tensor]:
        """What the loss is taken of: the network's logits, then those of levels that are supervised too."""
        return [self(images)]
