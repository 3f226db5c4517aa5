"""Deep Multilevel Contextual Network (Chen et al. 2016), as the reference paper built it."""

from __future__ import annotations

import torch
from torch import nn

from emseg.models.blocks import convolution, crop_to, dropout_layer
from emseg.models.initialisation import initialise
from emseg.models.network import Network

_CONVOLUTIONS = (2, 2, 3, 3)


class DMCN(Network):
    """A four-level encoder whose three deeper levels each predict at full size; a 1 x 1 convolution fuses them.

    Maps images (N, 1, Y, X) float32 of any size to logits (N, 1, Y, X) of cell interior.

    Args:
        base_channels: channels of the first level; they double at every level down.
        dropout: rate after each of the four levels.
        normalization: 'batch' puts batch normalisation before every ReLU of the encoder; 'none' is the reference's.
    """

    margin = 0
    stride = 8
    padding = "same"

    def __init__(self, base_channels: int, dropout: list[float], normalization: str) -> None:
        super().__init__()
        levels, branches = [], []
        before = 1
        for index, (count, rate) in enumerate(zip(_CONVOLUTIONS, dropout, strict=True)):
            channels = base_channels * 2**index
            layers: list[nn.Module] = [nn.MaxPool2d(2, ceil_mode=True)] if index else []
            for _ in range(count):
                layers += convolution(before, channels, "same", normalization)
                before = channels
            levels.append(nn.Sequential(*layers, *dropout_layer(rate)))
            if index:
                scale = 2**index
                branches.append(
                    nn.Sequential(
                        nn.ConvTranspose2d(channels, 2, scale, stride=scale),
                        nn.Conv2d(2, 2, 3, padding=1),
                        nn.ReLU(),
                        nn.Conv2d(2, 2, 1),
                        nn.ReLU(),
                    )
                )
        self.levels, self.branches = nn.ModuleList(levels), nn.ModuleList(branches)
        self.head = nn.Conv2d(6, 1, 1)
        initialise(self, self.head)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Logits (N, 1, Y, X) of images (N, 1, Y, X)."""
        features = self.levels[0](images)
        contexts = []
        for level, branch in zip(self.levels[1:], self.branches, strict=True):
            features = level(features)
            contexts.append(crop_to(branch(features), images.shape[-2:]))
        return self.head(torch.cat(contexts, dim=1))
