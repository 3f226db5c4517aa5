"""Grey levels to [0, 1]."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from emseg.errors import InputError


@dataclass(frozen=True)
class Normalization:
    """(x - low) / (high - low), clipped to [0, 1]. It travels with the weights."""

    low: float
    high: float

    @classmethod
    def of(cls, images: np.ndarray, ignore: np.ndarray | None = None) -> Normalization:
        """8 bit: the reference's x / 255. 16 bit: the central 99.8 % of the grey levels of `images` (Z, Y, X).

        Pixels where `ignore` (bool, same shape) is True are left out.
        """
        if images.dtype == np.uint8:
            return cls(0.0, 255.0)
        low, high = np.quantile(_counted(images, ignore), [0.001, 0.999])
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


def grey_levels(images: np.ndarray, ignore: np.ndarray | None = None) -> dict[str, float]:
    """Quantiles of normalised images, in [0, 1], by share: what new sections are compared with.

    Pixels where `ignore` (bool, same shape) is True are left out.
    """
    values = np.quantile(_counted(images, ignore), _SHARES)
    return {f"{share:g}": round(float(value), 4) for share, value in zip(_SHARES, values, strict=True)}


def _counted(images: np.ndarray, ignore: np.ndarray | None) -> np.ndarray:
    return images if ignore is None else images[~ignore]


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


def warning_of_difference(
    difference: str, where: str, dtype: np.dtype[Any], model: str, normalization: Normalization
) -> str:
    """What a user is told of sections that are unlike those that a model was trained on.

    Args:
        difference: as `describe_difference` has it.
        where: what the sections are called.
        dtype: theirs.
        model: what the model is called.
        normalization: that travels with its weights.

    Raises:
        InputError: they are of another type, too: nothing can come of them.
    """
    if normalization.is_of(dtype):
        return f"{where} is unlike the training data: {difference}; expect a poor result"
    trained = "8-bit" if normalization.is_of(np.dtype(np.uint8)) else "16-bit"
    raise InputError(
        f"{where} is {dtype} but {model} was trained on {trained} sections, and {difference}; scale its grey levels to "
        f"theirs and save it as {trained}"
    )
