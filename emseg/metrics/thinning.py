"""Border thinning, after the official script of the challenge."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from emseg.metrics.inputs import as_labels


def thin_borders(binary: np.ndarray) -> np.ndarray:
    """Grow the 4-connected components of interior until a border of one pixel remains between them.

    All components grow at one speed, along pixel edges, until they meet; where they touch, the pixel that was
    reached last becomes border. Where this and the official flooding break ties in another order, a border lies
    a pixel to the side, which moves a section's V_rand by some 1e-4.

    Args:
        binary: one section (Y, X); bool, {0, 1} or {0, 255}; True is interior.

    Returns:
        int32 (Y, X): segments 1, 2 ..., and 0 on the borders between them. Without any interior, all 0.

    Raises:
        ValueError: `binary` is not one section, or has other values.

    >>> thin_borders(np.array([[True, False, False, False, True]]))
    array([[1, 1, 0, 2, 2]], dtype=int32)
    """
    if np.ndim(binary) != 2:
        raise ValueError(f"expected one section (Y, X), not shape {np.shape(binary)}")
    (interior,) = as_labels(np.asarray(binary))[None]
    components, count = ndimage.label(interior)
    if not count:
        return components.astype(np.int32)
    # The flood that starts first reaches a pixel first, so each pixel belongs to its nearest component.
    distance, (rows, columns) = ndimage.distance_transform_cdt(~interior, "taxicab", return_indices=True)
    # A frame of border spares every test for the edge.
    segments = np.zeros((interior.shape[0] + 2, interior.shape[1] + 2), np.int32)
    grown = components[rows, columns]
    inside = segments[1:-1, 1:-1]
    inside[:] = grown
    for first, second in ((np.s_[:-1], np.s_[1:]), (np.s_[:, :-1], np.s_[:, 1:])):
        touching = grown[first] != grown[second]
        first_later = distance[first] > distance[second]
        inside[first][touching & first_later] = 0
        inside[second][touching & ~first_later] = 0
    _give_back(segments, ~interior)
    return inside.copy()


def _give_back(segments: np.ndarray, membrane: np.ndarray) -> None:
    """Return border pixels that touch only one segment to it, so that borders are one pixel wide."""
    flat = segments.ravel()
    offsets = np.array([-segments.shape[1], -1, 1, segments.shape[1]])
    border = np.flatnonzero(np.pad(membrane, 1).ravel() & (flat == 0))
    rows, columns = np.divmod(border, segments.shape[1])
    # Pixels of one colour of the checkerboard never touch, so each half can be decided at once.
    for colour in (0, 1):
        pixels = border[(rows + columns) % 2 == colour]
        around = flat[pixels[:, None] + offsets]
        highest = around.max(axis=1)
        lowest = np.where(around > 0, around, highest[:, None]).min(axis=1)
        flat[pixels] = np.where(lowest == highest, highest, 0)
