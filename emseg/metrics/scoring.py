"""Scores per section first; means, confidence intervals and every comparison come from that table."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from emseg.metrics.challenge import ChallengeSweep, cross_fitted
from emseg.metrics.inputs import binarise, prepare
from emseg.metrics.overlap import section_dice, section_iou, section_iou_thresholded, section_pixel_error
from emseg.metrics.rand import section_rand_error
from emseg.metrics.segments import section_adapted_rand_error, section_variation_of_information
from emseg.metrics.warping import warping_error
from emseg.settings import LEAKING_PROTOCOLS, PROTOCOLS, ValidationMetric

PIXEL_METRICS = {
    "iou": section_iou,
    "iou_thresholded": section_iou_thresholded,
    "dice": section_dice,
    "pixel_error": section_pixel_error,
    "rand_error": section_rand_error,
}
SEGMENT_METRICS = (
    "v_rand",
    "v_rand_split",
    "v_rand_merge",
    "v_info",
    "v_info_split",
    "v_info_merge",
    "adapted_rand_error",
    "vi_split",
    "vi_merge",
    "warping_error",
)
ORACLE_METRICS = ("v_rand_oracle", "v_info_oracle")
"""Best over thresholds on the reported sections themselves: optimistic, shown beside the honest values."""
THRESHOLDED_METRICS = ("v_rand_thresholded", "v_info_thresholded")
"""Beside those of cells found by agglomeration: what thresholding the same probability gives."""
ALL_METRICS = (*PIXEL_METRICS, *SEGMENT_METRICS, *ORACLE_METRICS, *THRESHOLDED_METRICS)
LOWER_IS_BETTER = frozenset(
    {"pixel_error", "rand_error", "adapted_rand_error", "vi_split", "vi_merge", "warping_error", "train_loss"}
)
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
            for metric in ALL_METRICS
            if metric in self.per_section
        }


def score_stack(probability: np.ndarray, label: np.ndarray, threshold: float = 0.5) -> pd.DataFrame:
    """Score every section of a stack with every metric, at one threshold.

    Args:
        probability: one section (Y, X) or a stack (Z, Y, X); float in [0, 1] or bool.
        label: same shape; bool, {0, 1} or {0, 255}.
        threshold: cell interior is probability > threshold.

    Returns:
        A row per section, columns `section` (index in the stack), those of `PIXEL_METRICS` and `SEGMENT_METRICS`.

    Raises:
        ValueError: input that is none of these, or a section without interior in its label.
    """
    return score_pixels(probability, label, threshold).merge(score_segments(probability, label, threshold))


def score_pixels(probability: np.ndarray, label: np.ndarray, threshold: float = 0.5) -> pd.DataFrame:
    """The part of `score_stack` that counts pixels; also defined for sections without interior."""
    return _score(
        probability,
        label,
        threshold,
        lambda predicted, truth: {name: metric(predicted, truth) for name, metric in PIXEL_METRICS.items()},
    )


def score_segments(probability: np.ndarray, label: np.ndarray, threshold: float = 0.5) -> pd.DataFrame:
    """The part of `score_stack` that compares cells."""
    return _score(probability, label, threshold, _segment_scores)


def score_validation(
    probability: np.ndarray, label: np.ndarray, metrics: Iterable[ValidationMetric]
) -> dict[ValidationMetric, float]:
    """Means over validation sections (Z, Y, X): V_rand and V_info `cross_fitted`, pixel metrics at 0.5."""
    pixels = score_pixels(probability, label)
    return {
        metric: cross_fitted(probability, label, metric)
        if metric == "v_rand" or metric == "v_info"
        else float(pixels[metric].mean())
        for metric in metrics
    }


def _segment_scores(predicted: np.ndarray, interior: np.ndarray) -> dict[str, float]:
    sweep = ChallengeSweep(0.5)
    sweep.add(predicted, interior)
    rand, info = sweep.v_rand(), sweep.v_info()
    variation = section_variation_of_information(predicted, interior)
    values = [rand.value, rand.split, rand.merge, info.value, info.split, info.merge]
    values += [section_adapted_rand_error(predicted, interior), *variation]
    return dict(zip(SEGMENT_METRICS, [*values, warping_error(predicted, interior).value], strict=True))


def _score(
    probability: np.ndarray,
    label: np.ndarray,
    threshold: float,
    metrics: Callable[[np.ndarray, np.ndarray], dict[str, float]],
) -> pd.DataFrame:
    probability, interior = prepare(probability, label)
    rows: list[dict[str, Any]] = [
        {"section": section} | metrics(predicted, truth)
        for section, (predicted, truth) in enumerate(zip(binarise(probability, threshold), interior, strict=True))
    ]
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
