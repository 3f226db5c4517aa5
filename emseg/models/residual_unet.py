"""A residual U-Net that works at half resolution, with or without deep supervision."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F  # noqa: N812
from torch import nn

from emseg.models.blocks import dropout_layer
from emseg.models.initialisation import initialise
from emseg.models.network import Network

_FOLD = 2


class ResidualBlock(nn.Module):
    """Two 3 x 3 convolutions added to their input (He et al. 2016), dropout between them."""

    def __init__(self, channels_in: int, channels_out: int, rate: float, normalization: str) -> None:
        super().__init__()
        self.convolutions = nn.Sequential(
            *_normalized(channels_in, channels_out, 3, normalization),
            nn.ReLU(),
            *dropout_layer(rate),
            *_normalized(channels_out, channels_out, 3, normalization),
        )
        self.shortcut = (
            nn.Identity() if channels_in == channels_out else nn.Conv2d(channels_in, channels_out, 1, bias=False)
        )

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Features (N, C', Y, X) of features (N, C, Y, X)."""
        return F.relu(self.convolutions(features) + self.shortcut(features))


class ResidualUNet(Network):
    """Encoder and decoder of residual blocks at half the resolution of the section.

    Membranes are several pixels wide, so the first level may fold every 2 x 2 pixels into four channels (and the
    head unfold them) without losing detail; the same arithmetic then buys four times as many channels.

    Maps images (N, C, Y, X) float32 of any size to logits (N, 1, Y, X) of cell interior.

    Args:
        base_channels: channels of the first level; they double at every level down.
        depth: poolings after the folding.
        dropout: rate of each level, down the encoder, the bottom, then up the decoder: 2 x depth + 1 rates.
        normalization: 'batch' or 'none'.
        supervised: every level of the decoder predicts too, and a 1 x 1 convolution fuses the predictions, as
            in the published DMCN (Chen et al. 2016). `training_logits` gives them all to the loss.
        neighbours: sections before and after the one that is segmented, which are channels too: C is
            2 x neighbours + 1.
    """

    padding = "same"
    margin = 0

    def __init__(
        self,
        base_channels: int,
        depth: int,
        dropout: Sequence[float],
        normalization: str,
        supervised: bool,
        neighbours: int,
    ) -> None:
        super().__init__()
        self.neighbours = neighbours
        self.stride = _FOLD * 2**depth
        channels = [base_channels * 2**level for level in range(depth + 1)]
        self.down = nn.ModuleList(
            ResidualBlock(before, after, rate, normalization)
            for before, after, rate in zip(
                [_FOLD**2 * self.channels, *channels], channels, dropout[: depth + 1], strict=False
            )
        )
        self.pool = nn.MaxPool2d(2)
        below, here = channels[:0:-1], channels[-2::-1]
        self.up = nn.ModuleList(nn.ConvTranspose2d(b, h, 2, stride=2) for b, h in zip(below, here, strict=True))
        self.merge = nn.ModuleList(
            ResidualBlock(2 * h, h, rate, normalization) for h, rate in zip(here, dropout[depth + 1 :], strict=True)
        )
        self.head = nn.Conv2d(base_channels, _FOLD**2, 1)
        heads = [nn.Conv2d(c, 1, 1) for c in channels[:0:-1]] if supervised else []
        self.side_heads = nn.ModuleList(heads)
        self.fusion = nn.Conv2d(1 + len(heads), 1, 1) if supervised else None
        initialise(self, self.head)
        if self.fusion is not None:
            # The fused prediction begins as the mean of the levels.
            nn.init.constant_(self.fusion.weight, 1 / (1 + len(heads)))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Logits (N, 1, Y, X) of images (N, C, Y, X)."""
        return self.training_logits(images)[0]

    def training_logits(self, images: torch.Tensor) -> list[torch.Tensor]:
        """The network's logits and those of every supervised level, each (N, 1, Y, X)."""
        height, width = images.shape[-2:]
        padding = (0, -width % self.stride, 0, -height % self.stride)
        padded = F.pad(images, padding, mode="replicate") if any(padding) else images
        # Folding and unfolding forget the memory layout, which is worth a factor on a CPU.
        features = F.pixel_unshuffle(padded, _FOLD).contiguous(memory_format=torch.channels_last)
        skips = []
        for index, level in enumerate(self.down):
            features = level(features if index == 0 else self.pool(features))
            skips.append(features)
        levels = [features]
        for up, merge, skip in zip(self.up, self.merge, skips[-2::-1], strict=True):
            features = merge(torch.cat([skip, up(features)], dim=1))
            levels.append(features)
        logits = [F.pixel_shuffle(self.head(features), _FOLD)]
        for side_head, side in zip(self.side_heads, levels, strict=False):
            logits.append(F.interpolate(side_head(side), size=padded.shape[-2:], mode="bilinear", align_corners=False))
        if self.fusion is not None:
            logits.insert(0, self.fusion(torch.cat(logits, dim=1)))
        return [each[..., :height, :width] for each in logits]


def _normalized(channels_in: int, channels_out: int, kernel: int, normalization: str) -> list[nn.Module]:
    convolution = nn.Conv2d(channels_in, channels_out, kernel, padding=kernel // 2, bias=normalization == "none")
    return [convolution, nn.BatchNorm2d(channels_out)] if normalization == "batch" else [convolution]
