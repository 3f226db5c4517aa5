"""Which axes of an array of any number are sections, rows and columns; and sections of it, without the rest."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from emseg.errors import InputError

_LARGEST_SLAB = 2**28
"""Bytes of sections that are kept because a chunk holds all of them."""
_AT_ONCE = 2**25
"""Bytes that are read at once where all sections are."""
_CHANNELS, _SMALLEST = (2, 3, 4), 16


@dataclass(frozen=True)
class Axes:
    """Places of the axes of sections (None: a single section), rows and columns among those of an array."""

    z: int | None
    y: int
    x: int

    def voxel(self, sizes: Sequence[Any]) -> list[Any] | None:
        """(z, y, x) of a value for each axis of the array."""
        return None if self.z is None else [sizes[axis] for axis in (self.z, self.y, self.x)]


def find_axes(where: str, shape: tuple[int, ...], names: Sequence[str] | None) -> tuple[Axes, list[str]]:
    """Tell sections, rows and columns of an array; axes of length 1 do not count.

    Args:
        where: how to call the array in a message.
        shape: of the array.
        names: of its axes, such as `tczyx`; None: rows and columns are the last two, sections the one before.

    Returns:
        The axes; and a sentence where sections lie along another axis than z.

    Raises:
        InputError: it has no rows and columns, or more than one axis beside them.
    """
    known = [str(name).lower()[:1] for name in names] if names and len(names) == len(shape) else None
    if known is None or not {"x", "y"} <= set(known) or len(set(known)) < len(known):
        known = None
        last = len(shape) - 1
        while last > 2 and shape[last] == 1:
            last -= 1
        y, x = last - 1, last
    else:
        y, x = known.index("y"), known.index("x")
    if y < 0:
        raise InputError(f"{where} has shape {shape}; expected (Z, Y, X)")
    others = [axis for axis in range(len(shape)) if axis not in (y, x)]
    long = [axis for axis in others if shape[axis] != 1]
    called = f"axes {''.join(known).upper()}, " if known else ""
    if len(long) > 1:
        raise InputError(f"{where} has {called}shape {shape}; expected (Z, Y, X): cut out one channel or time point")
    if known is None and len(shape) == 3 and shape[2] in _CHANNELS and min(shape[:2]) >= _SMALLEST:
        raise InputError(f"{where} has shape {shape}, as an image in colour; expected (Z, Y, X), grey levels alone")
    z = long[0] if long else next((axis for axis in others if known is None or known[axis] == "z"), None)
    remarks = []
    if known and long and known[long[0]] != "z":
        remarks.append(along(where, shape[long[0]], known[long[0]]))
    return Axes(z, y, x), remarks


def along(where: str, count: int, axis: str) -> str:
    """The sentence about planes that are taken for sections."""
    return f"{where}: its {count} planes lie along {axis.upper()}; they are taken for sections"


class Planes:
    """Sections of an array (numpy, Zarr or HDF5), of which a few at most are in memory."""

    def __init__(
        self,
        array: Any,
        axes: Axes,
        chunks: tuple[int, ...] | None = None,
        fill: Callable[[np.ndarray], None] | None = None,
    ) -> None:
        """Sections of `array`; `fill` fills an array of the same shape and type with all of it."""
        self._array, self._axes, self._fill = array, axes, fill
        shape = array.shape
        count = 1 if axes.z is None else shape[axes.z]
        self.shape: tuple[int, int, int] = (count, shape[axes.y], shape[axes.x])
        self._section_bytes = shape[axes.y] * shape[axes.x] * array.dtype.itemsize
        self._together = min(count, chunks[axes.z]) if chunks and axes.z is not None else 1
        if self._together * self._section_bytes > _LARGEST_SLAB:
            self._together = 1
        self._kept: tuple[int, np.ndarray] | None = None

    def read(self, z: int) -> np.ndarray:
        """Section z (Y, X). Those that lie in one chunk with it are read with it, once."""
        if self._together == 1:
            return self._slab(z, z + 1)[0]
        first = z - z % self._together
        kept = self._kept
        if kept is None or kept[0] != first:
            self._kept = kept = (first, self._slab(first, min(first + self._together, len(self))))
        return kept[1][z - first].copy()

    def read_all(self, out: np.ndarray) -> None:
        """Fill `out` (Z, Y, X) with every section."""
        if self._fill is not None and self._axes == Axes(0, 1, 2) and self._array.dtype == out.dtype:
            self._fill(out)
            return
        step = self._together * max(1, _AT_ONCE // max(1, self._together * self._section_bytes))
        for first in range(0, len(self), step):
            stop = min(first + step, len(self))
            out[first:stop] = self._slab(first, stop)

    def __len__(self) -> int:
        return self.shape[0]

    def _slab(self, first: int, stop: int) -> np.ndarray:
        index: list[Any] = [0] * len(self._array.shape)
        index[self._axes.y] = index[self._axes.x] = slice(None)
        if self._axes.z is not None:
            index[self._axes.z] = slice(first, stop)
        found = np.asarray(self._array[tuple(index)])
        kept = sorted(axis for axis in (self._axes.z, self._axes.y, self._axes.x) if axis is not None)
        wanted = [kept.index(axis) for axis in (self._axes.z, self._axes.y, self._axes.x) if axis is not None]
        return found.transpose(wanted).reshape(stop - first, *self.shape[1:])


def chunk_of(shape: tuple[int, int, int]) -> tuple[int, int, int]:
    """Chunk of a result: a section, or a tile of it where it is large."""
    return (1, min(shape[1], 1024), min(shape[2], 1024)) if math.prod(shape) else (1, 1, 1)
