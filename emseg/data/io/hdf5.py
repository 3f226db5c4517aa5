"""HDF5 files, in the layouts of CREMI, ilastik and others: FILE.h5:volumes/raw."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from emseg.data.io.metadata import SOFTWARE, SOFTWARE_ATTRIBUTE, Metadata, VoxelSize, voxel_size_in_nm
from emseg.data.io.planes import Axes, Planes, chunk_of, find_axes
from emseg.data.io.roles import choose
from emseg.data.io.sections import Format, Sections, checked, library, readable
from emseg.errors import InputError

_RESULT = "exported_data"
"""Dataset of a result whose input does not say one: where ilastik looks for it and puts its own."""
_LOSSLESS = ("gzip", "lzf")


@dataclass(frozen=True)
class Hdf5Storage:
    """Where the dataset lies, and the filter options h5py takes to make one like it."""

    inner: str = _RESULT
    filters: dict[str, Any] = field(default_factory=dict)


def open_hdf5(path: Path, inner: str, labels: bool) -> Sections:
    """Open a dataset; see `open_sections`. Without `inner` it is found by its name, or is the only one."""
    h5py = library("h5py", path, "an HDF5 file")
    with ExitStack() as files, readable(path):
        file = files.enter_context(h5py.File(path, "r"))
        inner = inner.strip("/") or choose(str(path), _names(file), labels)
        if inner not in file or not isinstance(file[inner], h5py.Dataset):
            raise InputError(f"{path} has no dataset {inner}; it has {', '.join(_names(file)) or 'none'}")
        dataset, where = file[inner], f"{path}:{inner}"
        if dataset.dtype.kind not in "buif":
            raise InputError(f"{where} is {dataset.dtype}; expected numbers")
        axes, remarks = find_axes(where, dataset.shape, _axis_names(dataset))
        planes = Planes(dataset, axes, dataset.chunks, dataset.read_direct)
        stored, dtype = checked(where, planes.shape, dataset.dtype, labels)
        filters = {"compression_opts": dataset.compression_opts, "shuffle": dataset.shuffle}
        voxel_size, unit = _voxel_size(dataset, axes)
        metadata = Metadata(
            voxel_size,
            unit,
            "YX" if axes.z is None else "ZYX",
            dataset.compression or ("another filter" if dataset.id.get_create_plist().get_nfilters() else None),
            Hdf5Storage(inner, filters if dataset.compression else {}),
        )
        kept = files.pop_all()
    return Sections(
        path,
        "hdf5",
        planes.shape,
        stored,
        dtype,
        planes.read,
        inner=inner,
        metadata=metadata,
        remarks=remarks,
        _decode_all=planes.read_all,
        _files=kept,
    )


def datasets_of(path: Path) -> list[str]:
    """Places of the arrays in a file that may be sections.

    Raises:
        InputError: it is damaged, or h5py is not installed.
    """
    h5py = library("h5py", path, "an HDF5 file")
    with readable(path), h5py.File(path, "r") as file:
        return _names(file)


def write_hdf5(
    path: Path,
    result: Callable[[int], np.ndarray],
    shape: tuple[int, int, int],
    dtype: np.dtype[Any],
    metadata: Metadata,
) -> None:
    """Write sections as a dataset; see `Format`."""
    import h5py

    storage = metadata.storage if isinstance(metadata.storage, Hdf5Storage) else Hdf5Storage()
    with h5py.File(path, "w") as file:
        file.attrs[SOFTWARE_ATTRIBUTE] = SOFTWARE
        chunks = chunk_of(shape) if metadata.compression else None
        dataset = file.create_dataset(
            storage.inner, shape, dtype, chunks=chunks, compression=metadata.compression, **storage.filters
        )
        if metadata.voxel_size:
            dataset.attrs["resolution"] = metadata.voxel_size
            dataset.attrs["units"] = ["nm"] * 3
        for z in range(shape[0]):
            dataset[z] = result(z)


def forms(metadata: Metadata) -> list[Metadata]:
    """See `Format`."""
    storage = metadata.storage
    if not isinstance(storage, Hdf5Storage):
        return [Metadata(metadata.voxel_size, "nm", compression="gzip")]
    plain = Metadata(metadata.voxel_size, "nm", compression="gzip", storage=Hdf5Storage(storage.inner))
    return [metadata, plain] if metadata.compression in (None, *_LOSSLESS) else [plain]


def is_result(path: Path) -> bool:
    """See `Format`."""
    try:
        with library("h5py", path, "an HDF5 file").File(path, "r") as file:
            return bool(file.attrs.get(SOFTWARE_ATTRIBUTE) == SOFTWARE)
    except Exception:  # whatever it is, it is no result
        return False


def _names(file: Any) -> list[str]:
    """Datasets of numbers with rows and columns, in the order of their names."""
    import h5py

    found = []

    def visit(name: str, item: Any) -> None:
        if isinstance(item, h5py.Dataset) and item.ndim >= 2 and item.dtype.kind in "buif":
            found.append(name)

    file.visititems(visit)
    return found


def _axis_names(dataset: Any) -> Sequence[str] | None:
    """As ilastik's axistags or HDF5's own dimension labels say them."""
    tags = dataset.attrs.get("axistags")
    if tags is not None:
        try:
            return [axis["key"] for axis in json.loads(tags)["axes"]]
        except (ValueError, KeyError, TypeError):
            return None
    # HDF5's own names of axes.
    names = [dimension.label for dimension in dataset.dims]
    return names if all(names) else None


def _voxel_size(dataset: Any, axes: Axes) -> tuple[VoxelSize | None, str | None]:
    """As CREMI, funlib and pytorch-3dunet write it; axes in the order of the array."""
    for key, unit in (("resolution", "nm"), ("voxel_size", "nm"), ("element_size_um", "µm")):
        sizes = dataset.attrs.get(key)
        if sizes is None or np.shape(sizes) != (3,) or dataset.ndim != 3 or axes.z is None:
            continue
        units = np.ravel(dataset.attrs.get("units", unit) if unit == "nm" else unit).tolist()
        each = [text.decode() if isinstance(text, bytes) else str(text) for text in units]
        found = voxel_size_in_nm(axes.voxel(list(sizes)) or (), axes.voxel(each) or () if len(each) == 3 else each[0])
        return found, each[0]
    return None, None


FORMAT = Format(
    "hdf5", "HDF5", (".h5", ".hdf5", ".hdf"), open_hdf5, datasets_of, write_hdf5, forms=forms, is_result=is_result
)
