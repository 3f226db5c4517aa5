"""One meaning for labels: True is cell interior, False is membrane."""

from __future__ import annotations

import numpy as np

from emseg.errors import InputError


def as_interior(label: np.ndarray, name: str = "label") -> np.ndarray:
    """Cell interior as bool, same shape, from bool, {0, 1} or {0, 255} labels of any dtype.

    Raises:
        InputError: a value is neither, or the array is not numeric.
    """
    label = np.asarray(label)
    if label.dtype == bool:
        return label
    if label.dtype.kind not in "uif":
        raise InputError(f"{name} has dtype {label.dtype}; expected bool, {{0, 1}} or {{0, 255}}")
    values = np.unique(label)
    if not (set(values.tolist()) <= {0, 1} or set(values.tolist()) <= {0, 255}):
        shown = ", ".join(f"{value:g}" for value in values[:6]) + (", ..." if len(values) > 6 else "")
        raise InputError(
            f"{name} has values {shown}; expected 0 for membrane and 1 or 255 for cell interior, nothing else"
        )
    return label > 0
