"""Sections and their labels as pictures in colour: thumbnails, outlines of cells, hatched pixels."""

from __future__ import annotations

import numpy as np

HATCH = (0.99, 0.86, 0.15)
"""Colour of the hatch on ignored pixels."""
_HATCH_PERIOD, _HATCH_WIDTH = 8, 2


def shrunk(pixels: np.ndarray, most: int) -> np.ndarray:
    """A section (Y, X) with sides of at most `most` pixels: the mean of a block, of bool whether any pixel is True.

    It shrinks by a whole number; what does not fill a block at the lower and right border goes. A section that is very
    flat stays longer, and keeps a pixel across.
    """
    factor = _factor(pixels, most)
    height, width = (side // factor for side in pixels.shape)
    blocks = pixels[: height * factor, : width * factor].reshape(height, factor, width, factor)
    return np.asarray(blocks.any(axis=(1, 3)) if pixels.dtype == bool else blocks.mean(axis=(1, 3)))


def sampled(cells: np.ndarray, most: int) -> np.ndarray:
    """Cells by number (Y, X) at the size that `shrunk` gives: the pixel in the middle of each block."""
    factor = _factor(cells, most)
    height, width = (side // factor for side in cells.shape)
    return cells[factor // 2 :: factor, factor // 2 :: factor][:height, :width]


def in_grey(image: np.ndarray) -> np.ndarray:
    """A section (Y, X) of grey levels 0 to 255 as RGB float32 (Y, X, 3) in [0, 1]."""
    return np.repeat(image[..., None].astype(np.float32) / 255, 3, axis=-1)


def outlines(cells: np.ndarray) -> np.ndarray:
    """Pixels of cells by number (Y, X), 0 on membrane, that share an edge with what is not of the cell; bool."""
    border = np.zeros(cells.shape, bool)
    for first, second in ((np.s_[1:], np.s_[:-1]), (np.s_[:, 1:], np.s_[:, :-1])):
        differ = cells[first] != cells[second]
        border[first] |= differ
        border[second] |= differ
    return border & (cells > 0)


def hatched(mask: np.ndarray) -> np.ndarray:
    """The pixels of a mask (Y, X) that lie on diagonal lines; bool."""
    rows, columns = np.indices(mask.shape)
    return mask & ((rows + columns) % _HATCH_PERIOD < _HATCH_WIDTH)


def _factor(pixels: np.ndarray, most: int) -> int:
    return min(-(-max(pixels.shape) // most), *pixels.shape)
