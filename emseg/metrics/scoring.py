"""Scores per section first; means, confidence intervals and every comparison come from that table."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from pydantic import BaseModel, ConfigDict

from emseg.metrics.challenge import ChallengeSweep, cross_fitted
from emseg.metrics.inputs import Truth, binarise, prepare
from emseg.metrics.overlap import section_dice, section_iou, section_iou_thresholded, section_pixel_error
from emseg.metrics.rand import section_rand_error
from emseg.metrics.segments import section_adapted_rand_error, section_variation_of_information
from emseg.metrics.warping import section_warping_error
from emseg.settings import LEAKING_PROTOCOLS, PROTOCOLS, TRANSFER, ValidationMetric

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
MEANINGS = {
    "iou": "overlap of interior, Jaccard",
    "iou_thresholded": "the reference paper's stepped IoU",
    "dice": "overlap of interior, Dice",
    "pixel_error": "share of pixels on the wrong side",
    "rand_error": "pixel pairs, by class alone",
    "v_rand": "agreement of cells, pixel pairs",
    "v_rand_split": "its part that cut cells lower",
    "v_rand_merge": "its part that joined cells lower",
    "v_info": "agreement of cells, information",
    "v_info_split": "its part that cut cells lower",
    "v_info_merge": "its part that joined cells lower",
    "adapted_rand_error": "disagreement of cells, as SNEMI3D",
    "vi_split": "lost by cut cells, nats",
    "vi_merge": "lost by joined cells, nats",
    "warping_error": "share of pixels that cut or join",
    "v_rand_oracle": "threshold chosen on these sections",
    "v_info_oracle": "threshold chosen on these sections",
    "v_rand_thresholded": "had the cells been thresholded",
    "v_info_thresholded": "had the cells been thresholded",
}
"""What each metric says, in up to 34 characters. Those of `LOWER_IS_BETTER` are 0 at best, the others 1."""
_RESAMPLES = 2000


class Interval(BaseModel):
    """A mean over sections with its bootstrap interval, 95 % unless asked otherwise."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False, frozen=True)

    mean: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.mean:.4f} [{self.low:.4f}, {self.high:.4f}]"


@dataclass(frozen=True)
class Scores:
    """Scores of one model on one set of sections, under one protocol.

    Attributes:
        protocol: a name in `PROTOCOLS`, or `TRANSFER`; a score without one cannot be made.
        data_digest: of the labelled data the sections belong to.
        per_section: a row per section, column `section` and a column per metric.
    """

    protocol: str
    data_digest: str
    per_section: pd.DataFrame

    def __post_init__(self) -> None:
        if self.protocol not in (known := (*PROTOCOLS, TRANSFER)):
            raise ValueError(f"a score needs a protocol, one of {', '.join(known)}, not {self.protocol!r}")
        if not self.data_digest or self.per_section.empty:
            raise ValueError("a score needs the digest of its data and at least one section")

    @property
    def leaks(self) -> bool:
        """Whether the protocol tests on warped copies of training sections."""
        return self.protocol in LEAKING_PROTOCOLS

    def summary(self) -> dict[str, Interval]:
        """Mean and interval of each metric over the sections."""
        return {
            metric: summarise(self.per_section[metric].to_numpy())
            for metric in ALL_METRICS
            if metric in self.per_section
        }


def score_stack(
    probability: np.ndarray,
    label: np.ndarray,
    threshold: float = 0.5,
    *,
    cells: bool = False,
    ignore: np.ndarray | None = None,
) -> pd.DataFrame:
    """Score every section of a stack with every metric, at one threshold.

    Args:
        probability: one section (Y, X) or a stack (Z, Y, X); float in [0, 1] or bool.
        label: same shape; bool, {0, 1} or {0, 255}.
        threshold: cell interior is probability > threshold.
        cells: whether `label` holds cells by number, 0 on membrane; see `v_rand` and `warping_error`.
        ignore: same shape, bool; pixels that count for nothing.

    Returns:
        A row per section, columns `section` (index in the stack), those of `PIXEL_METRICS` and `SEGMENT_METRICS`.

    Raises:
        ValueError: input that is none of these, or a section without interior in its label.
    """
    prepared = prepare(probability, label, cells, ignore)
    return _score(prepared, threshold, _pixel_scores).merge(_score(prepared, threshold, _segment_scores))


def score_pixels(
    probability: np.ndarray,
    label: np.ndarray,
    threshold: float = 0.5,
    *,
    cells: bool = False,
    ignore: np.ndarray | None = None,
) -> pd.DataFrame:
    """The part of `score_stack` that counts pixels; also defined for sections without interior."""
    return _score(prepare(probability, label, cells, ignore), threshold, _pixel_scores)


def score_segments(
    probability: np.ndarray,
    label: np.ndarray,
    threshold: float = 0.5,
    *,
    cells: bool = False,
    ignore: np.ndarray | None = None,
) -> pd.DataFrame:
    """The part of `score_stack` that compares cells."""
    return _score(prepare(probability, label, cells, ignore), threshold, _segment_scores)


def score_validation(
    probability: np.ndarray,
    label: np.ndarray,
    metrics: Iterable[ValidationMetric],
    *,
    cells: bool = False,
    ignore: np.ndarray | None = None,
) -> dict[ValidationMetric, float]:
    """Means over validation sections (Z, Y, X): V_rand and V_info `cross_fitted`, pixel metrics at 0.5."""
    pixels = score_pixels(probability, label, cells=cells, ignore=ignore)
    return {
        metric: cross_fitted(probability, label, metric, cells=cells, ignore=ignore)
        if metric == "v_rand" or metric == "v_info"
        else float(pixels[metric].mean())
        for metric in metrics
    }


def _pixel_scores(predicted: np.ndarray, truth: Truth) -> dict[str, float]:
    pixels = truth.counted(predicted)
    return {name: metric(*pixels) for name, metric in PIXEL_METRICS.items()}


def _segment_scores(predicted: np.ndarray, truth: Truth) -> dict[str, float]:
    sweep = ChallengeSweep(0.5)
    sweep.add_truth(predicted, truth)
    rand, info = sweep.v_rand(), sweep.v_info()
    variation = section_variation_of_information(predicted, truth)
    values = [rand.value, rand.split, rand.merge, info.value, info.split, info.merge]
    values += [section_adapted_rand_error(predicted, truth), *variation]
    return dict(zip(SEGMENT_METRICS, [*values, section_warping_error(predicted, truth)[0]], strict=True))


def _score(
    prepared: tuple[np.ndarray, list[Truth]],
    threshold: float,
    metrics: Callable[[np.ndarray, Truth], dict[str, float]],
) -> pd.DataFrame:
    probability, truths = prepared
    rows: list[dict[str, Any]] = [
        {"section": section} | metrics(predicted, truth)
        for section, (predicted, truth) in enumerate(zip(binarise(probability, threshold), truths, strict=True))
    ]
    return pd.DataFrame(rows)


def summarise(values: np.ndarray, confidence: float = 0.95, seed: int = 0) -> Interval:
    """Mean of per-section values with its percentile bootstrap interval over sections.

    Args:
        values: (sections,).
        confidence: coverage of the interval, in (0, 1).
        seed: of the resampling.
    """
    random = np.random.default_rng(seed)
    means = values[random.integers(0, len(values), (_RESAMPLES, len(values)))].mean(axis=1)
    low, high = np.quantile(means, [(1 - confidence) / 2, (1 + confidence) / 2])
    return Interval(mean=float(values.mean()), low=float(low), high=float(high))


def is_collapsed(probability: np.ndarray) -> bool:
    """Whether a prediction says the same everywhere: nearly constant, or all of one class at 0.5."""
    return bool(probability.std() < 1e-3 or (probability > 0.5).all() or not (probability > 0.5).any())
