"""Scores per section first; means, confidence intervals and every comparison come from that table."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from emseg.metrics.inputs import binarise, prepare
from emseg.metrics.overlap import section_dice, section_iou, section_iou_thresholded, section_pixel_error
from emseg.metrics.rand import section_rand_error
from emseg.settings import LEAKING_PROTOCOLS, PROTOCOLS

SECTION_METRICS = {
    "iou": section_iou,
    "iou_thresholded": section_iou_thresholded,
    "dice": section_dice,
    "pixel_error": section_pixel_error,
    "rand_error": section_rand_error,
}
LOWER_IS_BETTER = frozenset({"pixel_error", "rand_error", "train_loss"})
_RESAMPLES = 2000


@dataclass(frozen=True)
class Scores:
    """Scores of one model on one set of sections, under one protocol.

    Attributes:
        protocol: a name in `PROTOCOLS`; a score without one cannot be made.
        data_digest: of the labelled data the sections belong to.
        per_section: a row per section, column `section` and a column per metric.
    """

    protocol: str
    data_digest: str
    per_section: pd.DataFrame

    def __post_init__(self) -> None:
        if self.protocol not in PROTOCOLS:
            raise ValueError(f"a score needs a protocol, one of {', '.join(PROTOCOLS)}, not {self.protocol!r}")
        if not self.data_digest or self.per_section.empty:
            raise ValueError("a score needs the digest of its data and at least one section")

    @property
    def leaks(self) -> bool:
        """Whether the protocol tests on warped copies of training sections."""
        return self.protocol in LEAKING_PROTOCOLS

    def summary(self) -> dict[str, dict[str, float]]:
        """Mean and 95 % bootstrap interval of each metric: {metric: {mean, low, high}}."""
        return {
            metric: summarise(self.per_section[metric].to_numpy())
            for metric in SECTION_METRICS
            if metric in self.per_section
        }


def score_stack(probability: np.ndarray, label: np.ndarray, threshold: float = 0.5) -> pd.DataFrame:
    """Score every section of a stack.

    Args:
        probability: one section (Y, X) or a stack (Z, Y, X); float in [0, 1] or bool.
        label: same shape; bool, {0, 1} or {0, 255}.
        threshold: cell interior is probability > threshold.

    Returns:
        A row per section, columns `section` (index in the stack), `iou`, `iou_thresholded`, `dice`,
        `pixel_error`, `rand_error`.

    Raises:
        ValueError: input that is none of these.
    """
    probability, interior = prepare(probability, label)
    rows: list[dict[str, Any]] = []
    for section, (predicted, truth) in enumerate(zip(binarise(probability, threshold), interior, strict=True)):
        rows.append({"section": section} | {name: metric(predicted, truth) for name, metric in SECTION_METRICS.items()})
    return pd.DataFrame(rows)


def summarise(values: np.ndarray, confidence: float = 0.95, seed: int = 0) -> dict[str, float]:
    """Mean of per-section values with its percentile bootstrap interval over sections.

    Args:
        values: (sections,).
        confidence: coverage of the interval, in (0, 1).
        seed: of the resampling.

    Returns:
        {"mean", "low", "high"}.
    """
    random = np.random.default_rng(seed)
    means = values[random.integers(0, len(values), (_RESAMPLES, len(values)))].mean(axis=1)
    low, high = np.quantile(means, [(1 - confidence) / 2, (1 + confidence) / 2])
    return {"mean": float(values.mean()), "low": float(low), "high": float(high)}


def is_collapsed(probability: np.ndarray) -> bool:
    """Whether a prediction says the same everywhere: nearly constant, or all of one class at 0.5."""
    return bool(probability.std() < 1e-3 or (probability > 0.5).all() or not (probability > 0.5).any())
