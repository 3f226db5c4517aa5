"""Distances to the two nearest cells, and the U-Net weight map made of them.

Ronneberger et al. 2015 (MICCAI, eq. 2): w(x) = w_c(x) + w0 exp(-(d1(x) + d2(x))^2 / (2 sigma^2)). The distance
d1 + d2 depends on neither w0 nor sigma, so it is what we compute once and store.
"""

from __future__ import annotations

import math

import numpy as np
from scipy import ndimage

from emseg.data.labels import as_interior
from emseg.errors import InputError

_NEGLIGIBLE = 1e-4


def separation_distance(label: np.ndarray, limit: float, *, cells: bool = False) -> np.ndarray:
    """Distance to the nearest plus distance to the second nearest cell, clipped at `limit`.

    Args:
        label: one section (Y, X); bool, {0, 1} or {0, 255}; cells are its 4-connected interior components.
        limit: pixels. A distance d1 + d2 at or above it reads as `limit`, also where there is no second cell.
        cells: whether `label` holds cells by number instead, 0 on membrane.

    Returns:
        float32 (Y, X), pixels, in [0, limit]. Inside a cell d1 = 0.

    Raises:
        InputError: label values that are neither interior nor membrane.
        ValueError: `label` is not 2-D.
    """
    if label.ndim != 2:
        raise ValueError(f"label must be one section (Y, X), not of shape {label.shape}")
    numbers = _numbered(label) if cells else ndimage.label(as_interior(label))[0]
    nearest = np.full(numbers.shape, limit, np.float32)
    second = np.full(numbers.shape, limit, np.float32)
    # No term of d1 + d2 < limit is farther from its cell than `limit`: a padded bounding box is enough.
    # The nearest cell is at most half as far as the sum, but which one it is is not known beforehand.
    margin = math.ceil(limit)
    for index, box in enumerate(ndimage.find_objects(numbers), start=1):
        rows, columns = (slice(max(axis.start - margin, 0), axis.stop + margin) for axis in box)
        distance = ndimage.distance_transform_edt(numbers[rows, columns] != index).astype(np.float32)
        first_here, second_here = nearest[rows, columns], second[rows, columns]
        np.minimum(second_here, np.maximum(first_here, distance), out=second_here)
        np.minimum(first_here, distance, out=first_here)
    return np.minimum(nearest + second, np.float32(limit))


def separation_distances(interior: np.ndarray, cells: np.ndarray | None, limit: float) -> np.ndarray:
    """`separation_distance` of every section of a stack, float32 (Z, Y, X).

    Args:
        interior: bool (Z, Y, X).
        cells: their numbers (Z, Y, X), looked at in the interior; None: they are the components of the interior.
        limit: pixels.
    """
    if cells is None:
        return np.stack([separation_distance(section, limit) for section in interior])
    numbers = np.where(interior, cells, 0)
    return np.stack([separation_distance(section, limit, cells=True) for section in numbers])


def _numbered(cells: np.ndarray) -> np.ndarray:
    """Cells of a section as 0, 1, 2 ..., whatever their numbers are."""
    if cells.dtype.kind not in "ui" or cells.min(initial=0) < 0:
        raise InputError(f"cells by number are non-negative integers, 0 on membrane; these are {cells.dtype}")
    values, numbers = np.unique(cells, return_inverse=True)
    return numbers.reshape(cells.shape) + int(values[0] > 0)


def weight_map(label: np.ndarray, w0: float = 10.0, sigma: float = 5.0) -> np.ndarray:
    """The U-Net weight map w(x) = w_c(x) + w0 exp(-(d1 + d2)^2 / (2 sigma^2)).

    Args:
        label: one section (Y, X); bool, {0, 1} or {0, 255}.
        w0: weight of the border term, >= 0.
        sigma: its width, pixels, > 0.

    Returns:
        float32 (Y, X). w_c balances the classes: each class weighs the other class's share of the section.

    Raises:
        InputError: label values that are neither interior nor membrane.
        ValueError: w0 or sigma out of range.
    """
    if w0 < 0 or sigma <= 0:
        raise ValueError(f"w0 must be >= 0 and sigma > 0, not w0={w0}, sigma={sigma}")
    interior = as_interior(label)
    share = float(interior.mean())
    class_weight = np.where(interior, 1 - share, share).astype(np.float32)
    if w0 <= _NEGLIGIBLE:
        return class_weight
    separation = separation_distance(interior, limit=border_reach(w0, sigma))
    return class_weight + np.float32(w0) * np.exp(-(separation**2) / np.float32(2 * sigma**2))


def border_reach(w0: float, sigma: float) -> float:
    """Distance in pixels beyond which w0 exp(-d^2 / (2 sigma^2)) is below 1e-4, at least 1."""
    return max(1.0, sigma * math.sqrt(2 * math.log(max(w0, _NEGLIGIBLE * 1.0001) / _NEGLIGIBLE)))
