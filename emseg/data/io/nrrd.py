"""NRRD files, whole (.nrrd) or with a header of its own (.nhdr), of raw or gzipped data. The first axis is x."""

from __future__ import annotations

import gzip
import math
import os
import warnings
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from emseg.data.io.metadata import SOFTWARE, SOFTWARE_ATTRIBUTE, Metadata, VoxelSize, voxel_size_in_nm
from emseg.data.io.planes import Axes, find_axes
from emseg.data.io.sections import Format, Sections, checked, library, readable
from emseg.errors import InputError
from emseg.text import plain

_LARGEST_HEADER = 2**20
"""Bytes; headers in use have some hundred."""
_LARGEST_EXPANSION = 1100
"""Times that gzip makes data smaller at most, rounded up."""
_RAW = "raw"
_ENCODINGS = {_RAW: _RAW, "gzip": "gzip", "gz": "gzip"}
_BYTES = {"char": 1, "int8": 1, "short": 2, "int16": 2, "int": 4, "int32": 4, "long long": 8, "longlong": 8, "int64": 8}
_OF_AXES = (
    *("space", "space dimension", "space directions", "space units", "space origin"),
    *("spacings", "thicknesses", "axis mins", "axis maxs", "centerings", "kinds", "units", "labels"),
)
"""Entries that a result with the same axes takes over."""


@dataclass(frozen=True)
class NrrdStorage:
    """Entries about the axes as they stand in the header, name and text."""

    entries: dict[str, str] = field(default_factory=dict)


def open_nrrd(path: Path, _: str, labels: bool) -> Sections:
    """Open an image stack or a volume; see `open_sections`."""
    library("nrrd", path, "an NRRD file")
    with ExitStack() as files, readable(path):
        header, texts, end = _read_header(path)
        sizes = [int(size) for size in reversed(header["sizes"])]
        if header["dimension"] != len(sizes) or min(sizes) < 0:
            raise ValueError(f"{header['dimension']} axes have the sizes {header['sizes']}")
        axes, remarks = find_axes(str(path), tuple(sizes), None)
        shape = (1 if axes.z is None else sizes[axes.z], sizes[axes.y], sizes[axes.x])
        stored, dtype = checked(str(path), shape, _type(path, header), labels)
        encoding, data = _encoding(path, header), _data_file(path, header)
        # Axes of length 1 aside, sections follow each other as their rows do.
        file = files.enter_context(data.open("rb"))
        skip = header.get("byte skip", header.get("byteskip", 0))
        decode = _sections(file, end if data == path else 0, encoding, skip, shape, stored)
        voxel_size, unit = _voxel_size(header, axes, len(sizes))
        kept = files.pop_all()
    is_flat = axes.z is None
    entries = {name: texts[name] for name in _OF_AXES if name in texts} if len(sizes) == 3 - is_flat else {}
    metadata = Metadata(
        voxel_size,
        unit,
        "YX" if is_flat else "ZYX",
        None if encoding == _RAW else encoding,
        NrrdStorage(entries),
    )
    return Sections(
        path,
        "nrrd",
        shape,
        stored,
        dtype,
        decode,
        metadata=metadata,
        remarks=remarks,
        _files=kept,
    )


def write_nrrd(
    path: Path,
    result: Callable[[int], np.ndarray],
    shape: tuple[int, int, int],
    dtype: np.dtype[Any],
    metadata: Metadata,
) -> None:
    """Write sections as a volume in one file; see `Format`."""
    storage = metadata.storage if isinstance(metadata.storage, NrrdStorage) else NrrdStorage()
    sizes = shape[1:] if metadata.axes == "YX" else shape
    stored = dtype.newbyteorder("<")
    entries = {
        "type": {"f": "float" if dtype.itemsize == 4 else "double"}.get(dtype.kind, dtype.name),
        "dimension": len(sizes),
        "sizes": " ".join(map(str, reversed(sizes))),
        "endian": "little",
        "encoding": metadata.compression or "raw",
        **(storage.entries or _spacings(metadata.voxel_size)),
    }
    # The space comes before what counts its axes.
    ordered = sorted(
        entries.items(), key=lambda entry: entry[0] not in ("type", "dimension", "space", "space dimension")
    )
    lines = ["NRRD0005", *(f"{name}: {value}" for name, value in ordered), f"{SOFTWARE_ATTRIBUTE}:={SOFTWARE}", "", ""]
    with path.open("wb") as file:
        file.write("\n".join(lines).encode())
        with ExitStack() as streams:
            stream: Any = file
            if metadata.compression:
                # Without a name and a time, so that the same result gives the same bytes.
                stream = streams.enter_context(gzip.GzipFile("", "wb", 6, file, mtime=0))
            for z in range(shape[0]):
                stream.write(np.ascontiguousarray(result(z), stored).data)


def is_result(path: Path) -> bool:
    """See `Format`."""
    try:
        return f"{SOFTWARE_ATTRIBUTE}:={SOFTWARE}" in _lines(path)[0]
    except (OSError, ValueError):
        return False


def _lines(path: Path) -> tuple[list[str], int]:
    """The lines of a header, and at which byte the data begin behind the empty line; 0 where there is none."""
    with path.open("rb") as file:
        beginning = file.read(_LARGEST_HEADER)
    lines: list[str] = []
    place = 0
    for line in beginning.splitlines(keepends=True):
        place += len(line)
        if not line.strip():
            return lines, place
        try:
            lines.append(line.decode().rstrip())
        except UnicodeDecodeError:
            lines.append(line.decode("latin-1").rstrip())
    return lines, 0


def _read_header(path: Path) -> tuple[dict[str, Any], dict[str, str], int]:
    """The entries of a header, their texts, and at which byte the data begin behind it."""
    import nrrd

    lines, end = _lines(path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        # Decoded here: the library drops the sign for micro, which makes metres of micrometres.
        header = dict(nrrd.read_header(lines))
    split = (line.split(":", 1) for line in lines[1:] if ":" in line and not line.startswith("#"))
    if end == 0 and "data file" not in header and "datafile" not in header:
        raise ValueError("its header has no end")
    return header, {name.strip(): text.strip() for name, text in split}, end


def _type(path: Path, header: dict[str, Any]) -> np.dtype[Any]:
    name = " ".join(str(header["type"]).split())
    if name in ("float", "double"):
        found = np.dtype("f4" if name == "float" else "f8")
    else:
        bare = name.removeprefix("unsigned ").removeprefix("signed ").removesuffix("_t").removesuffix(" int")
        bare = bare if bare in _BYTES else bare.removeprefix("u")
        if bare not in _BYTES:
            raise InputError(f"{path} holds numbers of type {plain(name)[:40]}; save it as 8 or 16 bit grey levels")
        found = np.dtype(f"{'u' if name.startswith('u') else 'i'}{_BYTES[bare]}")
    if found.itemsize == 1:
        return found
    return np.dtype({"little": "<", "big": ">"}[header["endian"]] + found.str[1:])


def _encoding(path: Path, header: dict[str, Any]) -> str:
    found = _ENCODINGS.get(header["encoding"])
    if found is None:
        raise InputError(
            f"{path} has the encoding {plain(header['encoding'])[:40]}; raw and gzip are read: save it as one of them"
        )
    if header.get("line skip", header.get("lineskip", 0)):
        raise InputError(
            f"{path} skips lines of its data file, which is not read; say byte skip, or save it as one file"
        )
    return found


def _data_file(path: Path, header: dict[str, Any]) -> Path:
    """The file with the pixels: the NRRD file itself, or one beside its header."""
    name = header.get("data file", header.get("datafile"))
    if name is None:
        return path
    data = path.parent / name
    if Path(name).is_absolute() or ".." in Path(name).parts:
        raise InputError(
            f"{path} has its data in {plain(name)[:80]}; put them beside the header, and name them so there"
        )
    if not data.is_file():
        raise InputError(
            f"{path} has its data in {plain(name)[:80]}, and there is no such file beside it; one file of data is read"
        )
    return data


@dataclass
class _Gzipped:
    """Sections in a file that is gzipped from a byte on, read one after the other; an earlier one begins anew."""

    file: BinaryIO
    start: int
    skip: int
    shape: tuple[int, int, int]
    stored: np.dtype[Any]
    _stream: gzip.GzipFile | None = None

    def section(self, z: int) -> np.ndarray:
        """Section z (Y, X)."""
        size = self.shape[1] * self.shape[2] * self.stored.itemsize
        place = self.skip + z * size
        if self._stream is None or self._stream.tell() > place:
            self.file.seek(self.start)
            self._stream = gzip.GzipFile(fileobj=self.file, mode="rb")
        self._stream.seek(place)
        content = self._stream.read(size)
        if len(content) < size:
            raise ValueError("the data end early")
        return np.frombuffer(content, self.stored).reshape(self.shape[1:])


def _sections(
    file: BinaryIO, start: int, encoding: str, skip: int, shape: tuple[int, int, int], stored: np.dtype[Any]
) -> Callable[[int], np.ndarray]:
    """What reads a section, once it is sure that the file can hold as much as its header promises."""
    size, there = math.prod(shape) * stored.itemsize, os.fstat(file.fileno()).st_size - start
    if encoding == _RAW:
        skip = there - size if skip == -1 else skip
        if skip < 0 or skip + size > there:
            raise ValueError(f"it promises {size} bytes of pixels and holds {there}")
        return np.memmap(file, stored, "r", start + skip, shape).__getitem__
    if skip < 0 or skip + size > there * _LARGEST_EXPANSION:
        raise ValueError(f"it promises {size} bytes of pixels, more than {there} gzipped ones can be")
    return _Gzipped(file, start, skip, shape, stored).section


def _voxel_size(header: dict[str, Any], axes: Axes, count: int) -> tuple[VoxelSize | None, str | None]:
    """(z, y, x) in nm where the header says them, and the unit of its first axis."""
    directions = header.get("space directions")
    if directions is None:
        sizes, units = list(header.get("spacings", ())), list(header.get("units", ()))
    else:
        # An axis along none of those of space has no direction.
        rows = [np.full(1, np.nan) if row is None else np.abs(row) for row in directions]
        said = header.get("space units", ())
        along = [int(np.argmax(row)) for row in rows]
        sizes = [float(np.linalg.norm(row)) for row in rows]
        units = [said[axis] if axis < len(said) else "" for axis in along]
    if axes.z is None or not len(sizes) == len(units) == count:
        return None, None
    found = voxel_size_in_nm(axes.voxel(sizes[::-1]) or (), axes.voxel(units[::-1]) or ())
    return found, units[0] if found else None


def _spacings(voxel_size: VoxelSize | None) -> dict[str, str]:
    if voxel_size is None:
        return {}
    return {"spacings": " ".join(f"{size:.10g}" for size in reversed(voxel_size)), "units": '"nm" "nm" "nm"'}


FORMAT = Format("nrrd", "NRRD", (".nrrd",), open_nrrd, write=write_nrrd, is_result=is_result)
DETACHED = Format("nrrd", "NRRD header", (".nhdr",), open_nrrd)
"""Its results are of one file."""
