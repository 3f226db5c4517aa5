"""Grey levels to [0, 1]."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Normalization:
    """(x - low) / (high - low), clipped to [0, 1]. It travels with the weights."""

    low: float
    high: float

    @classmethod
    def of(cls, images: np.ndarray) -> Normalization:
        """8 bit: the study's x / 255. 16 bit: the central 99.8 % of the grey levels of `images` (Z, Y, X)."""
        if images.dtype == np.uint8:
            return cls(0.0, 255.0)
        low, high = np.quantile(images, [0.001, 0.999])
        return cls(float(low), float(max(high, low + 1)))

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """`images` of any dtype as float32 in [0, 1]."""
        return np.clip((images.astype(np.float32) - self.low) / (self.high - self.low), 0, 1)

    def grey(self, images: np.ndarray) -> np.ndarray:
        """`images` as uint8, normalised grey levels times 255."""
        return np.rint(self(images) * 255).astype(np.uint8)
