"""What every metric accepts, checked once."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage


@dataclass(frozen=True)
class Truth:
    """What is known of one section.

    Attributes:
        interior: of cells, bool (Y, X).
        cells: integers (Y, X), the number of each cell and 0 on membrane; None: cells are the 4-connected components of
            `interior`.
        ignore: bool (Y, X), True where a pixel counts for nothing; None: every pixel counts.
    """

    interior: np.ndarray
    cells: np.ndarray | None = None
    ignore: np.ndarray | None = None

    @property
    def pixels(self) -> int:
        """How many pixels count."""
        return self.interior.size if self.ignore is None else int(np.count_nonzero(~self.ignore))

    def counted(self, predicted: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The pixels that count, of a bool prediction (Y, X) and of the interior."""
        if self.ignore is None:
            return predicted, self.interior
        return predicted[~self.ignore], self.interior[~self.ignore]

    def filled(self, predicted: np.ndarray) -> np.ndarray:
        """A bool prediction (Y, X), which is what the label says where a pixel is ignored."""
        return predicted if self.ignore is None else np.where(self.ignore, self.interior, predicted)

    def segments(self) -> tuple[np.ndarray, int]:
        """True cells from 1, int32 (Y, X), 0 on membrane and on ignored pixels, and the highest number."""
        truth, count = ndimage.label(self.interior) if self.cells is None else _numbered(self.cells)
        if self.ignore is not None:
            truth[self.ignore] = 0
        return truth, count

    def scored_segments(self) -> tuple[np.ndarray, int]:
        """`segments`, of which there must be one.

        Raises:
            ValueError: no pixel of a cell counts.
        """
        truth, count = self.segments()
        if not truth.any():
            raise ValueError("a section's label has no cell interior that counts; cells cannot be compared on it")
        return truth, count


def prepare(
    probability: np.ndarray, label: np.ndarray, cells: bool = False, ignore: np.ndarray | None = None
) -> tuple[np.ndarray, list[Truth]]:
    """Probability as float or bool (Z, Y, X), and what is known of each section.

    Args:
        probability: one section (Y, X) or a stack (Z, Y, X); float in [0, 1] or bool.
        label: same shape; bool, {0, 1} or {0, 255}, or cells by number.
        cells: whether `label` holds cells by number: non-negative integers, 0 on membrane.
        ignore: same shape, bool; True where a pixel counts for nothing.

    Raises:
        ValueError: shapes that differ, integer or NaN probabilities, values outside [0, 1], other labels, a section
            that is ignored as a whole.
    """
    probability, label = np.asarray(probability), np.asarray(label)
    if probability.shape != label.shape:
        raise ValueError(f"probability has shape {probability.shape} but label {label.shape}; they must agree")
    if probability.ndim not in (2, 3) or not probability.size:
        raise ValueError(f"expected one section (Y, X) or a stack (Z, Y, X), not shape {probability.shape}")
    if probability.dtype != bool:
        if probability.dtype.kind != "f":
            raise ValueError(
                f"probability has dtype {probability.dtype}; expected float in [0, 1] or bool "
                "(divide 8-bit probabilities by 255)"
            )
        # One comparison that NaN fails too.
        if not (probability.min() >= 0 and probability.max() <= 1):
            raise ValueError("probability must be in [0, 1] everywhere, without NaN; apply the sigmoid to logits")
    stack = (1, *probability.shape) if probability.ndim == 2 else probability.shape
    interior = (_as_cells(label) > 0 if cells else as_labels(label)).reshape(stack)
    numbers = label.reshape(stack) if cells else [None] * stack[0]
    ignored = [None] * stack[0] if ignore is None else _as_ignored(ignore, probability.shape).reshape(stack)
    return probability.reshape(stack), [Truth(*section) for section in zip(interior, numbers, ignored, strict=True)]


def binarise(probability: np.ndarray, threshold: float) -> np.ndarray:
    """Cell interior where probability > threshold; bool stays as it is."""
    return probability if probability.dtype == bool else probability > threshold


def as_labels(label: np.ndarray) -> np.ndarray:
    """Interior as bool from bool, {0, 1} or {0, 255}; ValueError on other values."""
    if label.dtype == bool:
        return label
    if label.dtype.kind not in "uif":
        raise ValueError(f"label has dtype {label.dtype}; expected bool, {{0, 1}} or {{0, 255}}")
    values = np.unique(label)
    if not (np.isin(values, (0, 1)).all() or np.isin(values, (0, 255)).all()):
        raise ValueError(
            f"label has values {values[:6]}; expected {{0, 1}} or {{0, 255}}: 0 membrane, else interior "
            "(cells by number need cells=True)"
        )
    return label > 0


def _as_cells(label: np.ndarray) -> np.ndarray:
    if label.dtype.kind not in "ui" or label.min() < 0:
        what = "a negative number" if label.dtype.kind == "i" else f"dtype {label.dtype}"
        raise ValueError(f"label has {what}; cells by number are non-negative integers, 0 on membrane")
    return label


def _as_ignored(ignore: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    ignore = np.asarray(ignore)
    if ignore.shape != shape or ignore.dtype != bool:
        raise ValueError(f"ignore has shape {ignore.shape} and dtype {ignore.dtype}; expected {shape} and bool")
    if ignore.all(axis=(-2, -1)).any():
        raise ValueError("a section is ignored as a whole; leave it out")
    return ignore


def _numbered(cells: np.ndarray) -> tuple[np.ndarray, int]:
    """Any numbers of cells as 1, 2 ... in the order in which a scan along rows meets them, as of components."""
    values, first, inverse = np.unique(cells, return_index=True, return_inverse=True)
    order = np.argsort(first[values > 0])
    numbers = np.zeros(len(values), np.int32)
    numbers[np.flatnonzero(values > 0)[order]] = np.arange(1, len(order) + 1)
    return numbers[inverse].reshape(cells.shape), len(order)
