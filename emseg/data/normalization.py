"""Grey levels to [0, 1]."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Normalization:
    """(x - low) / (high - low), clipped to [0, 1]. It travels with the weights."""

    low: float
    high: float

    @classmethod
    def of(cls, images: np.ndarray) -> Normalization:
        """8 bit: the reference's x / 255. 16 bit: the central 99.8 % of the grey levels of `images` (Z, Y, X)."""
        if images.dtype == np.uint8:
            return cls(0.0, 255.0)
        low, high = np.quantile(images, [0.001, 0.999])
        return cls(float(low), float(max(high, low + 1)))

    def is_of(self, dtype: np.dtype[Any]) -> bool:
        """Whether sections of this type, uint8 or uint16, were trained on."""
        return dtype == (np.uint8 if (self.low, self.high) == (0.0, 255.0) else np.uint16)

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """`images` of any dtype as float32 in [0, 1]."""
        return np.clip((images.astype(np.float32) - self.low) / (self.high - self.low), 0, 1)

    def grey(self, images: np.ndarray) -> np.ndarray:
        """`images` as uint8, normalised grey levels times 255."""
        return np.rint(self(images) * 255).astype(np.uint8)


_SHARES = (0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99)


def grey_levels(images: np.ndarray) -> dict[str, float]:
    """Quantiles of normalised images, in [0, 1], by share: what new sections are compared with."""
    values = np.quantile(images, _SHARES)
    return {f"{share:g}": round(float(value), 4) for share, value in zip(_SHARES, values, strict=True)}


def describe_difference(seen: dict[str, float], trained: dict[str, float]) -> str | None:
    """In one sentence how the grey levels of new sections differ from those trained on; None where they do not.

    They differ where the median lies outside the central half of what was trained on by more than its spread, or
    where contrast, the range from the 5 % to the 95 % quantile, is more than 2.5 times larger or smaller.
    """
    contrast, expected = (levels["0.95"] - levels["0.05"] for levels in (seen, trained))
    spread = trained["0.75"] - trained["0.25"]
    if not trained["0.25"] - spread <= seen["0.5"] <= trained["0.75"] + spread:
        return f"the median grey level is {seen['0.5']:.2f} of the range, {trained['0.5']:.2f} in the training data"
    if not expected / 2.5 <= contrast <= expected * 2.5:
        return f"contrast is {contrast:.2f} of the range, {expected:.2f} in the training data"
    return None
