"""What no network is needed for: the bars that every model has to clear."""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy import ndimage

from emseg.data.labelled_sections import LabelledSections
from emseg.metrics.scoring import score_stack
from emseg.records.calibration import GreyThreshold

THRESHOLD_BASELINE = "baseline: threshold"
MAJORITY_BASELINE = "baseline: all interior"
_SMOOTHINGS = (0.0, 1.0, 2.0)


def score_baselines(grey: GreyThreshold, test: LabelledSections) -> pd.DataFrame:
    """Scores per test section of a grey-level threshold and of the majority class.

    Args:
        grey: the threshold, fitted on validation sections.
        test: the test sections.

    Returns:
        A row per baseline and section, columns as `score_stack` gives them and `model`.
    """
    predictions = {
        THRESHOLD_BASELINE: threshold_prediction(test.images, grey.sigma, grey.level),
        MAJORITY_BASELINE: np.ones(test.labels.shape, bool),
    }
    tables = []
    for model, predicted in predictions.items():
        table = score_stack(predicted, **test.for_metrics)
        table["section"] = test.numbers
        tables.append(table.assign(model=model))
    return pd.concat(tables, ignore_index=True)


def fit_threshold(images: np.ndarray, labels: np.ndarray, ignore: np.ndarray | None = None) -> tuple[float, int]:
    """Gaussian sigma (pixels) and grey level with the least pixel error on images uint8 and labels bool (Z, Y, X).

    Pixels where `ignore` (bool, same shape) is True are left out.
    """
    counted = np.ones(labels.shape, bool) if ignore is None else ~ignore
    best = (2.0, 0.0, 0)
    for sigma in _SMOOTHINGS:
        smooth = _smooth(images, sigma)
        interior, membrane = (np.bincount(smooth[counted & (labels == kind)], minlength=256) for kind in (True, False))
        # Error of "grey level > t is interior": interior at or below t, and membrane above it.
        errors = (np.cumsum(interior) + membrane.sum() - np.cumsum(membrane)) / np.count_nonzero(counted)
        best = min(best, (float(errors.min()), sigma, int(errors.argmin())))
    return best[1], best[2]


def threshold_prediction(images: np.ndarray, smoothing: float, level: int) -> np.ndarray:
    """Interior, bool (Z, Y, X): smoothed grey levels of uint8 images above a level."""
    return _smooth(images, smoothing) > level


def _smooth(images: np.ndarray, sigma: float) -> np.ndarray:
    return np.rint(ndimage.gaussian_filter(images.astype(np.float32), (0, sigma, sigma))).astype(np.uint8)
