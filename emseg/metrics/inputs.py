"""What every metric accepts, checked once."""

from __future__ import annotations

import numpy as np


def prepare(probability: np.ndarray, label: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Probability as float or bool and label as bool, both (Z, Y, X).

    Args:
        probability: one section (Y, X) or a stack (Z, Y, X); float in [0, 1] or bool.
        label: same shape; bool, {0, 1} or {0, 255}.

    Raises:
        ValueError: shapes that differ, integer or NaN probabilities, values outside [0, 1], other labels.
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
    interior = as_labels(label)
    if probability.ndim == 2:
        probability, interior = probability[None], interior[None]
    return probability, interior


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
        raise ValueError(f"label has values {values[:6]}; expected {{0, 1}} or {{0, 255}}: 0 membrane, else interior")
    return label > 0
