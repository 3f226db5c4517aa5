"""Arrays of numpy, `.npy`: mapped into memory, never read whole."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from emseg.data.io.metadata import Metadata
from emseg.data.io.planes import Planes, find_axes
from emseg.data.io.sections import Format, Sections, checked, readable


def open_npy(path: Path, _: str, labels: bool) -> Sections:
    """Open an array (Z, Y, X) or (Y, X); see `open_sections`."""
    with readable(path):
        array = np.lib.format.open_memmap(path, mode="r")
    axes, remarks = find_axes(str(path), array.shape, None)
    planes = Planes(array, axes)
    stored, dtype = checked(str(path), planes.shape, array.dtype, labels)
    return Sections(
        path,
        "npy",
        planes.shape,
        stored,
        dtype,
        planes.read,
        metadata=Metadata(axes="YX" if axes.z is None else "ZYX"),
        remarks=remarks,
        _decode_all=planes.read_all,
    )


def write_npy(
    path: Path,
    result: Callable[[int], np.ndarray],
    shape: tuple[int, int, int],
    dtype: np.dtype[Any],
    metadata: Metadata,
) -> None:
    """Write sections as an array; see `Format`."""
    array = np.lib.format.open_memmap(path, mode="w+", dtype=dtype, shape=shape[1:] if metadata.axes == "YX" else shape)
    for z, section in enumerate(array.reshape(shape)):
        section[:] = result(z)
    array.flush()


FORMAT = Format("npy", "numpy", (".npy",), open_npy, write=write_npy, forms=lambda found: [Metadata(axes=found.axes)])
