"""Where tiles lie, and mirrored context around them."""

from __future__ import annotations

import numpy as np


def mirror_indices(start: int, stop: int, side: int) -> np.ndarray:
    """Indices in [0, side) of positions start .. stop - 1, mirrored at the borders without repeating the edge.

    Any distance outside is allowed: the mirror images repeat.

    >>> mirror_indices(-2, 6, 4).tolist()
    [2, 1, 0, 1, 2, 3, 2, 1]
    """
    if side == 1:
        return np.zeros(stop - start, np.intp)
    period = 2 * (side - 1)
    positions = np.arange(start, stop) % period
    return np.minimum(positions, period - positions)


def mirrored_window(section: np.ndarray, top: int, left: int, height: int, width: int) -> np.ndarray:
    """The window (..., height, width) of a section (..., Y, X) at (top, left), mirrored where it reaches outside."""
    rows = mirror_indices(top, top + height, section.shape[-2])
    columns = mirror_indices(left, left + width, section.shape[-1])
    return section[..., rows[:, None], columns]


def exact_starts(side: int, step: int) -> list[int]:
    """Starts of tiles of `step` pixels that cover [0, side), each pixel once; the last may reach outside."""
    return list(range(0, side, step))


def spread_starts(side: int, tile: int, overlap: int = 0) -> list[int]:
    """Starts of tiles that cover [0, side) and end on its borders, spread evenly, at least `overlap` shared.

    >>> spread_starts(512, 388)
    [0, 124]
    """
    if side <= tile:
        return [0]
    count = -(-(side - overlap) // (tile - overlap))
    return [round(index * (side - tile) / (count - 1)) for index in range(count)]


def blending_window(height: int, width: int, overlap: int) -> np.ndarray:
    """Weights (height, width) float32 that rise linearly from the border over `overlap` pixels, never 0."""

    def ramp(side: int) -> np.ndarray:
        distance = np.minimum(np.arange(side), np.arange(side)[::-1]) + 1
        return np.minimum(distance / (overlap + 1), 1).astype(np.float32)

    return ramp(height)[:, None] * ramp(width)[None, :]
