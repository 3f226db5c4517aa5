"""A trained network with everything that segmenting new sections needs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from scipy import ndimage
from skimage.segmentation import watershed

from emseg.data.normalization import describe_difference, grey_levels
from emseg.errors import InputError
from emseg.inference.predictor import Predictor

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
        threshold: that validation sections chose, for cells.
        grey_levels: quantiles of the training sections, normalised.
        name: what to call the model, such as models:/emseg-membrane/3.
        fingerprint: of weights and settings; two segmenters with the same one give the same result.
    """

    predictor: Predictor
    threshold: float
    grey_levels: dict[str, float]
    name: str
    fingerprint: str

    def segment(self, section: np.ndarray, output: Output) -> np.ndarray:
        """Segment one section (Y, X).

        Returns:
            `probability`: float32 in [0, 1], of cell interior. `mask`: uint8, 255 where the probability is above
            the threshold. `cells`: uint16 labels from 1, 0 for membrane, one label per cell of this section.

        Raises:
            InputError: the section holds NaN or infinite grey levels.
        """
        if section.dtype.kind == "f" and not np.isfinite(section).all():
            raise InputError("a section holds NaN or infinite grey levels; mend it first")
        probability = next(self.predictor.stream([section]))
        if output == "probability":
            return probability
        if output == "mask":
            return np.where(probability > self.threshold, np.uint8(255), np.uint8(0))
        return label_cells(probability, self.threshold)

    def difference(self, sections: np.ndarray) -> str | None:
        """How the grey levels of sections (Z, Y, X) differ from those trained on, in one sentence; None: little."""
        normalize = self.predictor.normalization
        return describe_difference(
            grey_levels(sections if normalize is None else normalize(sections)), self.grey_levels
        )


def label_cells(probability: np.ndarray, threshold: float) -> np.ndarray:
    """Cells of a section: components above the threshold, grown by watershed to the contour of membranes.

    The threshold that validation chose tells cells apart, and is high for that; the contour at 0.5 is where the
    network sees the membrane begin.

    Args:
        probability: float32 (Y, X) in [0, 1] of cell interior.
        threshold: each 4-connected component above it is a cell.

    Returns:
        uint16 (Y, X): labels from 1, 0 for membrane.

    Raises:
        InputError: more than 65,535 cells.
    """
    cells, count = ndimage.label(probability > threshold)
    if count > np.iinfo(np.uint16).max:
        raise InputError(f"a section has {count:,} cells, labels hold 65,535; cut it, or ask for a mask")
    contour = min(threshold, CONTOUR)
    return watershed(-probability, cells, mask=probability > contour).astype(np.uint16)
