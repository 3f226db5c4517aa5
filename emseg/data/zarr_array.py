"""Zarr arrays as sections, and what is kept of them for a result."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from emseg.data.sections import Sections, checked, readable
from emseg.errors import InputError


def open_zarr(path: Path) -> Sections:
    """Open a Zarr array (Z, Y, X), without reading a pixel.

    Raises:
        InputError: see `open_sections`.
    """
    try:
        import zarr
    except ImportError as error:
        raise InputError(f"{path} is a Zarr array; `pip install emseg[volumes]` to read it") from error
    try:
        array = zarr.open(path, mode="r")
    except Exception as error:
        raise InputError(f"{path} is not a readable Zarr array ({' '.join(str(error).split())[:120]})") from error
    if not isinstance(array, zarr.Array):
        raise InputError(f"{path} is a Zarr group; name the array in it, such as {path}/raw")
    if array.ndim != 3:
        raise InputError(f"{path} has shape {array.shape}; expected (Z, Y, X)")
    dtype = checked(path, array.shape, array.dtype)

    def read(z: int) -> np.ndarray:
        return np.asarray(array[z])

    with readable(path):
        facts: dict[str, Any] = {
            "attributes": dict(array.attrs),
            "compressors": array.compressors or None,
            "zarr_format": array.metadata.zarr_format,
            "dimension_names": getattr(array.metadata, "dimension_names", None),
        }
    depth, height, width = array.shape
    return Sections(path, "zarr", (depth, height, width), dtype, read, page=facts)
