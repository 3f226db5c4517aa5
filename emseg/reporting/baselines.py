"""What no network is needed for: the bars that every model has to clear."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy import ndimage

from emseg.data.augmented import FoldData
from emseg.metrics.scoring import Scores, score_stack
from emseg.settings import ProtocolName

_SMOOTHINGS = (0.0, 1.0, 2.0)
_TRAINING_IMAGES = 60


def baseline_rows(data: FoldData, protocol: ProtocolName, digest: str) -> list[dict[str, Any]]:
    """Scores of a grey-level threshold and of the majority class on the test sections of a fold.

    The threshold baseline smooths the image with a Gaussian and thresholds it; both numbers are chosen for the
    least pixel error on training images. Each row is {model, parameters, metric: {mean, low, high}}.
    """
    smoothing, threshold = fit_threshold(data.images[:_TRAINING_IMAGES], data.labels[:_TRAINING_IMAGES])
    predictions = {
        "baseline: threshold": threshold_prediction(data.test_images, smoothing, threshold),
        "baseline: all interior": np.ones(data.test_labels.shape, bool),
    }
    return [
        {"model": name, "parameters": 2 if "threshold" in name else 0}
        | Scores(protocol, digest, score_stack(predicted, data.test_labels)).summary()
        for name, predicted in predictions.items()
    ]


def fit_threshold(images: np.ndarray, labels: np.ndarray) -> tuple[float, float]:
    """Gaussian sigma (pixels) and grey level with the least pixel error on images uint8 and labels bool (N, Y, X)."""
    best = (1.0, 0.0, 0.0)
    for sigma in _SMOOTHINGS:
        smooth = np.stack([_smooth(image, sigma) for image in images])
        for threshold in np.arange(20, 236, 3):
            error = float(np.mean((smooth > threshold) != labels))
            best = min(best, (error, sigma, float(threshold)))
    return best[1], best[2]


def threshold_prediction(images: np.ndarray, smoothing: float, threshold: float) -> np.ndarray:
    """Interior, bool (Z, Y, X): smoothed grey levels of uint8 images above a threshold."""
    return np.stack([_smooth(image, smoothing) > threshold for image in images])


def _smooth(image: np.ndarray, sigma: float) -> np.ndarray:
    return ndimage.gaussian_filter(image.astype(np.float32), sigma)
