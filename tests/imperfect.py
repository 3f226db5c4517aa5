"""What a network may make of sections, without training one."""

import numpy as np
from scipy import ndimage


def imperfect_probability(labels: np.ndarray, seed: int = 0) -> np.ndarray:
    """float32 (Z, Y, X) of bool labels: blurred membranes, some of them faint, and dark spots inside cells."""
    random = np.random.default_rng(seed)
    faint = ndimage.gaussian_filter(random.normal(size=labels.shape), (0, 3, 3)) * 10
    dark = ndimage.gaussian_filter(random.normal(size=labels.shape), (0, 2, 2)) * 10
    membrane = ndimage.gaussian_filter((~labels).astype(float), (0, 0.8, 0.8)) * np.where(faint > 1.2, 0.35, 1.0)
    return np.clip(0.99 - 1.2 * membrane - 0.5 * (dark > 2.4), 0.01, 0.99).astype(np.float32)
