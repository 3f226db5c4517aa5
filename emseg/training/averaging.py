"""A running mean of the weights, which generalises better than the last step's (Polyak and Juditsky 1992)."""

from __future__ import annotations

import copy

import torch

from emseg.models.network import Network


class WeightAverage:
    """Exponential running mean of a network's weights and batch statistics.

    Args:
        network: whose weights are followed.
        decay: share of the mean that a step keeps. Early steps keep less, so that initial weights are forgotten.

    Attributes:
        network: a copy that holds the mean; validate and save this one.
    """

    def __init__(self, network: Network, decay: float) -> None:
        self.network = copy.deepcopy(network).requires_grad_(False).eval()
        self.decay = decay

    @torch.no_grad()
    def update(self, network: Network, step: int) -> None:
        """Take in the weights after optimiser step `step`, counted from 0."""
        share = 1 - min(self.decay, (1 + step) / (10 + step))
        ours, theirs = ([*net.parameters(), *net.buffers()] for net in (self.network, network))
        means = [mean for mean in ours if mean.is_floating_point()]
        torch._foreach_lerp_(means, [value for value in theirs if value.is_floating_point()], share)
        for mean, value in zip(ours, theirs, strict=True):
            if not mean.is_floating_point():
                mean.copy_(value)
