"""A trained network with everything that segmenting new sections needs."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from scipy import ndimage

from emseg.data.normalization import describe_difference, grey_levels
from emseg.errors import InputError
from emseg.inference.predictor import Predictor
from emseg.segmentation.agglomeration import Agglomeration, ClosedStack
from emseg.segmentation.regions import flood

Output = Literal["probability", "mask", "cells"]
OUTPUTS: tuple[str, ...] = get_args(Output)
OUTPUT_TYPES: dict[str, np.dtype[Any]] = {
    "probability": np.dtype(np.float32),
    "mask": np.dtype(np.uint8),
    "cells": np.dtype(np.uint16),
}
CONTOUR = 0.5
"""Probability at which cells end and membranes begin."""


@dataclass(frozen=True)
class Segmenter:
    """What a champion is to its user.

    Attributes:
        predictor: network, normalisation and mode of prediction.
        threshold: for cells; chosen on validation sections, or that of the agglomeration.
        grey_levels: quantiles of the training sections, normalised.
        name: what to call the model, such as models:/cortex/3.
        fingerprint: of weights and settings; two segmenters with the same one give the same result.
        agglomeration: how regions become cells; None: cells are the components above the threshold.
    """

    predictor: Predictor
    threshold: float
    grey_levels: dict[str, float]
    name: str
    fingerprint: str
    agglomeration: Agglomeration | None = None

    def segment(
        self, read: Callable[[int], np.ndarray], count: int, output: Output, wanted: Iterable[int] | None = None
    ) -> Iterator[np.ndarray]:
        """Segment sections of a stack; holds a few at a time.

        Args:
            read: gives section z, (Y, X).
            count: sections in the stack. They are consecutive: agglomeration looks at those before and after, and so
                does a network that sees neighbours.
            output: what to make of them.
            wanted: which sections, in rising order; None: all.

        Yields:
            `probability`: float32 in [0, 1], of cell interior. `mask`: uint8, 255 inside cells, 0 on membrane and
            between cells. `cells`: uint16 labels from 1, 0 for membrane, one label per cell of this section.

        Raises:
            InputError: a section holds NaN or infinite grey levels, or more than 65,535 cells.
        """
        reach = self.predictor.network.neighbours

        @functools.lru_cache(maxsize=2 * reach + 1)
        def checked(z: int) -> np.ndarray:
            return read_finite(read, z)

        def predicted(z: int) -> np.ndarray:
            near = np.clip(np.arange(z - reach, z + reach + 1), 0, count - 1)
            return self.predictor.section([checked(int(other)) for other in near])

        stack = None if self.agglomeration is None else ClosedStack(self.agglomeration, predicted, count)
        for z in range(count) if wanted is None else wanted:
            if stack is None or output == "probability":
                probability = closed = predicted(z)
            else:
                probability, closed = stack.section(z)
            if output == "probability":
                yield probability
            elif output == "mask":
                yield np.where((closed > self.threshold) & (probability > self._contour), np.uint8(255), np.uint8(0))
            else:
                yield label_cells(closed > self.threshold, probability, self._contour, f"section {z}")

    @property
    def _contour(self) -> float:
        # What closes borders between cells says nothing about where their membranes begin.
        return CONTOUR if self.agglomeration else min(self.threshold, CONTOUR)

    def difference(self, sections: np.ndarray) -> str | None:
        """How the grey levels of sections (Z, Y, X) differ from those trained on, in one sentence; None: little."""
        normalize = self.predictor.normalization
        return describe_difference(
            grey_levels(sections if normalize is None else normalize(sections)), self.grey_levels
        )


def read_finite(read: Callable[[int], np.ndarray], z: int) -> np.ndarray:
    """Section z as (Y, X), as `read` gives it.

    Raises:
        InputError: it is damaged, or holds NaN or infinite grey levels.
    """
    section = read(z)
    if section.dtype.kind == "f" and not np.isfinite(section).all():
        raise InputError(f"section {z} holds NaN or infinite grey levels; mend it first")
    return section


def label_cells(apart: np.ndarray, probability: np.ndarray, contour: float, where: str = "the section") -> np.ndarray:
    """Cells of a section: what tells them apart, grown by watershed to the contour of their membranes.

    Args:
        apart: bool (Y, X); each 4-connected component is a cell.
        probability: float32 (Y, X) in [0, 1] of cell interior.
        contour: cells end where the probability falls to this.
        where: how to call the section in a message.

    Returns:
        uint16 (Y, X): labels from 1, 0 for membrane.

    Raises:
        InputError: more than 65,535 cells.
    """
    cells, count = ndimage.label(apart)
    if count > np.iinfo(np.uint16).max:
        raise InputError(f"{where} has {count:,} cells, labels hold 65,535; cut it, or ask for a mask")
    return flood(probability, cells, probability > contour).astype(np.uint16)
