"""Rand error of two-class pixel partitions, as the reference paper's table reports it."""

from __future__ import annotations

import numpy as np

from emseg.metrics.overlap import mean_over_sections, section_pixel_error


def rand_error(
    probability: np.ndarray,
    label: np.ndarray,
    threshold: float = 0.5,
    *,
    cells: bool = False,
    ignore: np.ndarray | None = None,
) -> float:
    """1 - Rand index between the two-class pixel partitions, per section, averaged; lower is better.

    With e the section's pixel error and n its pixels this is 2 e (1 - e) n / (n - 1), in [0, 1]. It compares
    pixel classes, not cells: it says nothing about splits and merges.

    Args:
        probability: one section (Y, X) or a stack (Z, Y, X); float in [0, 1] or bool.
        label: same shape; bool, {0, 1} or {0, 255}.
        threshold: cell interior is probability > threshold.
        cells: whether `label` holds cells by number, 0 on membrane.
        ignore: same shape, bool; pixels to leave out.

    Raises:
        ValueError: input that is none of these, or a section of one pixel, which has no pairs.

    >>> rand_error(np.array([[1.0, 1.0, 0.0, 0.0]]), np.array([[1, 1, 1, 0]]))
    0.5
    """
    return mean_over_sections(section_rand_error, threshold, probability, label, cells, ignore)


def section_rand_error(predicted: np.ndarray, interior: np.ndarray) -> float:
    """`rand_error` of the pixels of a section."""
    if interior.size < 2:
        raise ValueError("rand_error needs at least 2 pixels; a single pixel has no pairs")
    error = section_pixel_error(predicted, interior)
    return 2 * error * (1 - error) * interior.size / (interior.size - 1)
