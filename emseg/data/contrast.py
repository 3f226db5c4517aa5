"""How membranes look: darker than cells or brighter, thin; and where a section shows nothing at all."""

from __future__ import annotations

from typing import Literal

import numpy as np
from scipy import ndimage

CLEAR_CONTRAST = 0.25
"""Contrast is (mean of membrane - mean of interior) / standard deviation of the section. Measured on a training stack
of 30 sections: -1.41 to -1.03 on a section's own label, -0.51 to 0.07 on that of a section near by."""
_CLEARLY_THICKER = 2.0
"""Cells are about 5 times as thick as membranes, in the mean distance to the other."""
_LOOKED_AT = 12
"""Sections whose thickness is measured."""
_LEAST_ALONG_EDGE = 0.25
"""Of the shorter side: what a border of an alignment touches at least of the edge of a section."""


def contrasts(
    images: np.ndarray, interior: np.ndarray, reach: int = 0, counted: np.ndarray | None = None
) -> np.ndarray:
    """Contrast of label z on image z + k - reach, float32 (Z, 2 * reach + 1); NaN beyond the stack.

    Args:
        images: (Z, Y, X).
        interior: bool (Z, Y, X). Contrast is NaN where a label has one class only.
        reach: how many sections away.
        counted: bool (Z, Y, X), the pixels to look at with label z; None: all.
    """
    count = len(images)
    flat = _normalised(images.reshape(count, -1))
    contrast = np.full((count, 2 * reach + 1), np.nan, np.float32)
    for z in range(count):
        nearby = np.arange(max(0, z - reach), min(count, z + reach + 1))
        inside, grey = interior[z].ravel(), flat[nearby]
        if counted is not None and not counted[z].all():
            inside, grey = interior[z][counted[z]], _normalised(images[nearby][:, counted[z]])
        share = float(inside.mean()) if inside.size else 0
        if 0 < share < 1:
            # The pixels of a normalised section sum to 0, so the membrane's sum is minus the interior's.
            sums = grey @ inside.astype(np.float32) / inside.size
            contrast[z, nearby - z + reach] = -sums / (1 - share) - sums / share
    return contrast


def _normalised(images: np.ndarray) -> np.ndarray:
    """Images (Z, pixels) with mean 0 and standard deviation 1, float32; what shows nothing is 0."""
    grey = images.astype(np.float32)
    if grey.shape[1]:
        grey -= grey.mean(axis=1, keepdims=True)
        deviation = grey.std(axis=1, keepdims=True)
        grey /= np.where(deviation > 0, deviation, 1)
    return grey


def find_membrane(white: np.ndarray, counted: np.ndarray, contrast: float) -> Literal["white", "black"] | None:
    """Which of two values of a label is membrane; None: it is unclear.

    Membranes are thin everywhere, cells are not; in most stains membranes are darker; in most labels the lower value is
    membrane. Where the thin value is the brighter one, it must be the lower one to be believed.

    Args:
        white: where a label has the higher value, bool (Z, Y, X).
        counted: the pixels to look at, same shape.
        contrast: mean of the sections, of the lower value; see `CLEAR_CONTRAST`.
    """
    thin = _thin_one(white, counted)
    if thin == "black":
        return "black"
    dark: Literal["white", "black"] | None = None
    if abs(contrast) > CLEAR_CONTRAST:
        dark = "black" if contrast < 0 else "white"
    return dark if thin in (None, dark) else None


def _thin_one(white: np.ndarray, counted: np.ndarray) -> Literal["white", "black"] | None:
    sections = np.unique(np.linspace(0, len(white) - 1, _LOOKED_AT).astype(int))
    high, low = (float(np.mean(_depths((kind & counted)[sections]))) for kind in (white, ~white))
    if low > _CLEARLY_THICKER * high:
        return "white"
    return "black" if high > _CLEARLY_THICKER * low else None


def _depths(mask: np.ndarray) -> list[float]:
    return [float(ndimage.distance_transform_edt(section)[section].mean()) for section in mask if section.any()] or [0]


def blank_borders(images: np.ndarray) -> np.ndarray:
    """Where an alignment left sections without image: black or white, exactly constant, and along the edge.

    Args:
        images: (Z, Y, X).

    Returns:
        bool (Z, Y, X).
    """
    borders = np.zeros(images.shape, bool)
    for border, image in zip(borders, images, strict=True):
        for grey in (0, np.iinfo(image.dtype).max) if image.dtype.kind in "ui" else (0,):
            constant = image == grey
            frame = np.concatenate([constant[0], constant[-1], constant[:, 0], constant[:, -1]])
            if not frame.any():
                continue
            regions, count = ndimage.label(constant)
            edges = np.concatenate([regions[0], regions[-1], regions[:, 0], regions[:, -1]])
            along = np.bincount(edges, minlength=count + 1)
            along[0] = 0
            border |= (along >= _LEAST_ALONG_EDGE * min(image.shape))[regions]
    return borders
