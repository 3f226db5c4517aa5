"""U-Net (Ronneberger et al. 2015), with the variations of the reference paper."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F  # noqa: N812
from torch import nn

from emseg.models.blocks import convolution, crop_to, dropout_layer
from emseg.models.initialisation import initialise
from emseg.models.network import Network


class UNet(Network):
    """Encoder and decoder of `depth` levels around a bottom level, joined by skip connections.

    Maps images (N, 1, Y, X) float32 to logits (N, 1, Y', X') of cell interior.
    With 'same' padding any size goes in and the same size comes out. With 'valid' padding the result is smaller
    by `margin` on each side, and only sizes with `is_valid_side` go in.

    Args:
        base_channels: channels of the first level; they double at every level down.
        depth: poolings.
        padding: 'same' or 'valid'.
        dropout: rate of each level, down the encoder, the bottom, then up the decoder: 2 x depth + 1 rates.
        dropout_between: dropout between the two convolutions of a level instead of after them.
        up_kernel: kernel of the stride-2 transposed convolutions: 2, or 3 with a ReLU after them.
        head_kernel: kernel of the last convolution.
        normalization: 'batch' puts batch normalisation before every ReLU of a level; 'none' is the reference's.
    """

    def __init__(
        self,
        base_channels: int,
        depth: int,
        padding: str,
        dropout: Sequence[float],
        dropout_between: bool,
        up_kernel: int,
        head_kernel: int,
        normalization: str,
    ) -> None:
        super().__init__()
        self.padding = padding
        self.depth = depth
        channels = [base_channels * 2**level for level in range(depth + 1)]

        def level(channels_in: int, channels_out: int, rate: float) -> nn.Sequential:
            first = convolution(channels_in, channels_out, padding, normalization)
            second = convolution(channels_out, channels_out, padding, normalization)
            return (
                nn.Sequential(*first, *dropout_layer(rate), *second)
                if dropout_between
                else nn.Sequential(*first, *second, *dropout_layer(rate))
            )

        down_rates, up_rates = dropout[: depth + 1], dropout[depth + 1 :]
        self.down = nn.ModuleList(
            level(before, after, rate)
            for before, after, rate in zip([1, *channels], channels, down_rates, strict=False)
        )
        # Ceiling mode keeps odd sizes whole; the decoder crops what it adds. Even sizes do not notice.
        self.pool = nn.MaxPool2d(2, ceil_mode=padding == "same")
        ups, levels = [], []
        for rate, below, here in zip(up_rates, channels[:0:-1], channels[-2::-1], strict=True):
            if up_kernel == 2:
                ups.append(nn.Sequential(nn.ConvTranspose2d(below, here, 2, stride=2)))
            else:
                transposed = nn.ConvTranspose2d(below, here, 3, stride=2, padding=1, output_padding=1)
                ups.append(nn.Sequential(transposed, nn.ReLU()))
            levels.append(level(2 * here, here, rate))
        self.up, self.merge = nn.ModuleList(ups), nn.ModuleList(levels)
        self.head = nn.Conv2d(base_channels, 1, head_kernel, padding=head_kernel // 2 if padding == "same" else 0)
        self.stride = 2**depth
        # Two convolutions per level cost 2 pixels a side: at every scale twice, but once at the bottom.
        lost = sum(2 * 2 * 2**level for level in range(depth)) + 2 * 2**depth + head_kernel // 2
        self.margin = lost if padding == "valid" else 0
        initialise(self, self.head)

    def is_valid_side(self, side: int) -> bool:
        """Whether an input of this side is pooled without a remainder and leaves an output."""
        if self.padding == "same":
            return side >= 1
        for _ in range(self.depth):
            side -= 4
            if side <= 0 or side % 2:
                return False
            side //= 2
        side -= 4
        for _ in range(self.depth):
            side = side * 2 - 4
        return side - (self.head.kernel_size[0] // 2) * 2 > 0

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Logits (N, 1, Y', X') of images (N, 1, Y, X).

        Raises:
            ValueError: 'valid' padding and a side that cannot be pooled evenly.
        """
        if self.padding == "valid" and not all(self.is_valid_side(side) for side in images.shape[-2:]):
            legal = next(side for side in range(max(images.shape[-2:]), 1 << 30) if self.is_valid_side(side))
            raise ValueError(
                f"a 'valid' U-Net of depth {self.depth} cannot take {images.shape[-2]} x {images.shape[-1]} pixels; "
                f"the next side it takes is {legal}"
            )
        skips = []
        features = images
        for index, level in enumerate(self.down):
            features = level(features if index == 0 else self.pool(features))
            skips.append(features)
        for up, merge, skip in zip(self.up, self.merge, skips[-2::-1], strict=True):
            features = up(features)
            if self.padding == "same":
                features = crop_to(features, skip.shape[-2:])
            else:
                border = (skip.shape[-1] - features.shape[-1]) // 2
                skip = F.pad(skip, (-border,) * 4)
            features = merge(torch.cat([skip, features], dim=1))
        return self.head(features)
