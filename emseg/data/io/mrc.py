"""MRC files, as electron microscopes and IMOD write them. Rows come in the order of the file."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from emseg.data.io.metadata import SOFTWARE, Metadata, voxel_size_in_nm
from emseg.data.io.planes import Planes, find_axes
from emseg.data.io.sections import Format, Sections, checked, library, readable

_IMOD_STAMP, _IMOD_SIGNED = 1146047817, 1
_STAMP_PLACE = 152
"""Bytes into the header at which IMOD writes a stamp and then flags."""


def open_mrc(path: Path, _: str, labels: bool) -> Sections:
    """Open an image stack or a volume; see `open_sections`."""
    mrcfile = library("mrcfile", path, "an MRC file")
    with ExitStack() as files, readable(path), warnings.catch_warnings():
        # It warns of what it then refuses, or of entries that have no bearing on pixels.
        warnings.simplefilter("ignore")
        file = files.enter_context(mrcfile.mmap(path, mode="r"))
        array = _unsigned(path, file.data)
        axes, remarks = find_axes(str(path), array.shape, None)
        planes = Planes(array, axes)
        stored, dtype = checked(str(path), planes.shape, array.dtype, labels)
        voxel = file.voxel_size
        voxel_size = voxel_size_in_nm([float(voxel.z), float(voxel.y), float(voxel.x)], "å")
        kept = files.pop_all()
    metadata = Metadata(voxel_size, "Å" if voxel_size else None, "YX" if axes.z is None else "ZYX")
    return Sections(
        path,
        "mrc",
        planes.shape,
        stored,
        dtype,
        planes.read,
        metadata=metadata,
        remarks=remarks,
        _decode_all=planes.read_all,
        _files=kept,
    )


def write_mrc(
    path: Path,
    result: Callable[[int], np.ndarray],
    shape: tuple[int, int, int],
    dtype: np.dtype[Any],
    metadata: Metadata,
) -> None:
    """Write sections as a volume; see `Format`. MRC has no unsigned bytes: a mask has 16 bits."""
    import mrcfile

    is_flat = metadata.axes == "YX"
    mode = mrcfile.utils.mode_from_dtype(dtype)
    with mrcfile.new_mmap(path, shape[1:] if is_flat else shape, mode, overwrite=True) as file:
        for z, section in enumerate(file.data.reshape(shape)):
            section[:] = result(z)
        if metadata.voxel_size:
            file.voxel_size = tuple(size * 10 for size in reversed(metadata.voxel_size))
        file.add_label(SOFTWARE)
        file.update_header_stats()


def is_result(path: Path) -> bool:
    """See `Format`."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with library("mrcfile", path, "an MRC file").open(path, mode="r", header_only=True) as file:
                return any(label.startswith(SOFTWARE) for label in file.get_labels())
    except Exception:  # whatever it is, it is no result
        return False


def _unsigned(path: Path, array: np.ndarray) -> np.ndarray:
    """Bytes are signed by the standard, but IMOD writes unsigned ones and says so in flags of its own."""
    if array.dtype != np.int8:
        return array
    with path.open("rb") as file:
        file.seek(_STAMP_PLACE)
        raw = file.read(8)
    order = "<" if int.from_bytes(raw[:4], "little") == _IMOD_STAMP else ">"
    stamp, flags = np.frombuffer(raw, f"{order}i4")
    return array.view(np.uint8) if stamp == _IMOD_STAMP and not flags & _IMOD_SIGNED else array


FORMAT = Format(
    "mrc",
    "MRC",
    (".mrc", ".mrcs", ".rec", ".st"),
    open_mrc,
    write=write_mrc,
    forms=lambda found: [Metadata(found.voxel_size, "Å", found.axes)],
    is_result=is_result,
)
