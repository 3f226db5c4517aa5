"""Pixel metrics of a binarised probability map. Foreground is cell interior.

Each takes one section (Y, X) or a stack (Z, Y, X) and returns a float: of a stack, the mean over its sections.
Probability is float in [0, 1] or bool; label is bool, {0, 1} or {0, 255}. With `cells=True` label holds cells by
number, whose interior is every pixel that is not 0: draw membranes between cells that touch first. Pixels where
`ignore` (bool, same shape) is True are left out. ValueError on anything else.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from emseg.metrics.inputs import binarise, prepare

SectionMetric = Callable[[np.ndarray, np.ndarray], float]


def iou(
    probability: np.ndarray,
    label: np.ndarray,
    threshold: float = 0.5,
    *,
    cells: bool = False,
    ignore: np.ndarray | None = None,
) -> float:
    """Jaccard index |P and T| / |P or T|, in [0, 1], higher is better; 1 where both are empty.

    >>> iou(np.array([[1.0, 1.0, 0.0, 0.0]]), np.array([[1, 1, 1, 0]]))
    0.6666666666666666
    """
    return mean_over_sections(section_iou, threshold, probability, label, cells, ignore)


def iou_thresholded(
    probability: np.ndarray,
    label: np.ndarray,
    threshold: float = 0.5,
    *,
    cells: bool = False,
    ignore: np.ndarray | None = None,
) -> float:
    """The reference paper's IoU*: max(0, ceil(20 J - 10) / 10) with J the Jaccard index, per section, averaged.

    It is the share of the thresholds 0.50, 0.55 ... 0.95 that J exceeds; in [0, 1], higher is better.

    >>> iou_thresholded(np.array([[1.0, 1.0, 0.0, 0.0]]), np.array([[1, 1, 1, 0]]))
    0.4
    """
    return mean_over_sections(section_iou_thresholded, threshold, probability, label, cells, ignore)


def dice(
    probability: np.ndarray,
    label: np.ndarray,
    threshold: float = 0.5,
    *,
    cells: bool = False,
    ignore: np.ndarray | None = None,
) -> float:
    """Dice coefficient 2 |P and T| / (|P| + |T|), in [0, 1], higher is better; 1 where both are empty.

    >>> dice(np.array([[1.0, 1.0, 0.0, 0.0]]), np.array([[1, 1, 1, 0]]))
    0.8
    """
    return mean_over_sections(section_dice, threshold, probability, label, cells, ignore)


def pixel_error(
    probability: np.ndarray,
    label: np.ndarray,
    threshold: float = 0.5,
    *,
    cells: bool = False,
    ignore: np.ndarray | None = None,
) -> float:
    """Share of pixels on the wrong side, in [0, 1], lower is better.

    The mean over the sections of a stack; since they have one size it is pooled over the stack, if no pixel is ignored.

    >>> pixel_error(np.array([[1.0, 1.0, 0.0, 0.0]]), np.array([[1, 1, 1, 0]]))
    0.25
    """
    return mean_over_sections(section_pixel_error, threshold, probability, label, cells, ignore)


def section_iou(predicted: np.ndarray, interior: np.ndarray) -> float:
    """`iou` of the pixels of a section, bool arrays of one shape."""
    union = _count(predicted | interior)
    return _count(predicted & interior) / union if union else 1.0


def section_iou_thresholded(predicted: np.ndarray, interior: np.ndarray) -> float:
    """`iou_thresholded` of the pixels of a section."""
    union = _count(predicted | interior)
    both = _count(predicted & interior)
    if not union:
        return 1.0
    # ceil(20 J - 10) in whole numbers: J on a threshold must not round up to exceed it.
    return max(0, -(-(20 * both - 10 * union) // union)) / 10


def section_dice(predicted: np.ndarray, interior: np.ndarray) -> float:
    """`dice` of the pixels of a section."""
    total = _count(predicted) + _count(interior)
    return 2 * _count(predicted & interior) / total if total else 1.0


def section_pixel_error(predicted: np.ndarray, interior: np.ndarray) -> float:
    """`pixel_error` of the pixels of a section."""
    return _count(predicted != interior) / interior.size


def _count(mask: np.ndarray) -> int:
    return int(np.count_nonzero(mask))


def mean_over_sections(
    metric: SectionMetric,
    threshold: float,
    probability: np.ndarray,
    label: np.ndarray,
    cells: bool,
    ignore: np.ndarray | None,
) -> float:
    """Mean of a metric of the pixels that count, over sections."""
    probability, truths = prepare(probability, label, cells, ignore)
    predicted = binarise(probability, threshold)
    return float(np.mean([metric(*truth.counted(p)) for p, truth in zip(predicted, truths, strict=True)]))
