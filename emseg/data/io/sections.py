"""Sections on disk, checked before a pixel is read, and what a format has to bring for them."""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from emseg.data.io.metadata import Metadata
from emseg.data.io.numbers import RefusedError, converted, type_read
from emseg.errors import InputError

LARGEST_SECTION = 2**28
"""Pixels. More is a damaged header or a decompression bomb: the largest sections in use have some 10^8."""
LARGEST_STACK = 2**20
"""Sections. More is a damaged header: a stack of so many would be five centimetres thick."""


@dataclass
class Sections:
    """A stack that is not in memory.

    Attributes:
        path: of the file or folder.
        kind: `folder`, or the kind of its format, such as `tiff`.
        shape: (Z, Y, X).
        stored: type of the numbers in the file.
        dtype: type of the sections: uint8, uint16, bool, float16 or float32; of labels bool or any integer.
        inner: place of the array inside the file, such as `volumes/raw`.
        names: file name of each section of a folder.
        metadata: what the file says beside its pixels.
        remarks: sentences that the user should see, such as a gap in the numbers of a folder's files.
        label_table: colours in which a program shows labels by number, where the file has such a table.
    """

    path: Path
    kind: str
    shape: tuple[int, int, int]
    stored: np.dtype[Any]
    dtype: np.dtype[Any]
    _decode: Callable[[int], np.ndarray]
    inner: str = ""
    names: list[str] = field(default_factory=list)
    metadata: Metadata = field(default_factory=Metadata)
    remarks: list[str] = field(default_factory=list)
    label_table: bytes | None = None
    _decode_all: Callable[[np.ndarray], None] | None = None
    """Fills an array of the stored type (Z, Y, X), faster than section by section."""
    _files: ExitStack = field(default_factory=ExitStack)

    def __len__(self) -> int:
        return self.shape[0]

    @property
    def where(self) -> str:
        """How to call it in a message: FILE.h5:volumes/raw."""
        return f"{self.path}:{self.inner}" if self.inner else str(self.path)

    def read(self, z: int) -> np.ndarray:
        """Section z as (Y, X), in the byte order of this machine.

        Raises:
            InputError: it is damaged, in colour, or has values that do not fit.
        """
        with readable(f"{self.where}, section {z}"):
            section = self._decode(z)
            if section.shape != self.shape[1:]:
                raise ValueError(f"it has {section.shape} pixels in place of {self.shape[1:]}")
            return converted(section, self.dtype)

    def read_all(self) -> np.ndarray:
        """The whole stack (Z, Y, X).

        Raises:
            InputError: a section is damaged, or the stack does not fit into memory.
        """
        stack = self._allocate()
        if self._decode_all is not None and self.stored.newbyteorder("=") == self.dtype:
            # Read again below where that fails: one section at a time tells which of them is damaged.
            with suppress(Exception):
                self._decode_all(stack)
                return stack
        for z in range(len(self)):
            stack[z] = self.read(z)
        return stack

    def _allocate(self) -> np.ndarray:
        size = int(np.prod(self.shape, dtype=object)) * self.dtype.itemsize
        try:
            if size > _memory():
                raise MemoryError
            return np.empty(self.shape, self.dtype)
        except MemoryError as error:
            raise InputError(
                f"{self.where} needs {size / 2**30:,.0f} GiB of memory, more than there is; cut it"
            ) from error

    def close(self) -> None:
        """Close what is open."""
        self._files.close()


def library(name: str, path: Path, what: str) -> Any:
    """The library that reads a format, imported when a file of it comes.

    Args:
        name: of the library.
        path: of the file that needs it.
        what: is in the file, such as "an MRC file".

    Raises:
        InputError: it is not installed.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise InputError(f"{path} is {what}; `pip install emseg[volumes]` to read it") from error


@dataclass(frozen=True)
class Format:
    """A kind of file with sections.

    Attributes:
        kind: short name, that of its module.
        name: how to call it in a message.
        suffixes: of its files, in lower case.
        open: makes sections of (path, place of the array inside it or "", whether they are labels).
        datasets: lists the places of arrays inside a file; None: the format holds one array.
        write: writes a result, (path, function that gives section z, shape (Z, Y, X), dtype, metadata); None: no
            results are written in this format.
        forms: metadata of a result like the input, the best first: those after it are for a storage that loses
            something, or that cannot be written.
        is_result: whether a file says of itself that emseg wrote it.
    """

    kind: str
    name: str
    suffixes: tuple[str, ...]
    open: Callable[[Path, str, bool], Sections]
    datasets: Callable[[Path], list[str]] | None = None
    write: Callable[[Path, Callable[[int], np.ndarray], tuple[int, int, int], np.dtype[Any], Metadata], None] | None = (
        None
    )
    forms: Callable[[Metadata], list[Metadata]] = lambda metadata: [metadata]
    is_result: Callable[[Path], bool] = lambda path: False


@contextmanager
def readable(where: Path | str) -> Iterator[None]:
    """Whatever a decoder raises on a damaged file becomes one sentence about the file: each means the same."""
    try:
        yield
    except InputError:
        raise
    except RefusedError as error:
        raise InputError(f"{where}: {error}") from error
    except PermissionError as error:
        raise InputError(f"{where} may not be read; ask for the permission") from error
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise InputError(f"{where} is truncated or not readable ({reason[:120]}); copy it again") from error


def checked(
    where: str, shape: tuple[int, ...], stored: Any, labels: bool = False
) -> tuple[np.dtype[Any], np.dtype[Any]]:
    """The stored type of sections, and the one that they are read as; see `type_read`.

    Raises:
        InputError: a type that is not read, no pixels, or more than a section or a stack has.
    """
    if stored is None:
        raise InputError(f"{where} holds numbers of a type that is not read; save it as 8 or 16 bit grey levels")
    dtype = type_read(where, stored, labels)
    if 0 in shape:
        raise InputError(f"{where} has shape {shape}; expected at least one pixel")
    if shape[-1] * shape[-2] > LARGEST_SECTION:
        raise InputError(
            f"{where} says its sections have {shape[-2]} x {shape[-1]} pixels; the most that is read is "
            f"{LARGEST_SECTION:,} pixels: the file is damaged, or cut the sections"
        )
    if len(shape) == 3 and shape[0] > LARGEST_STACK:
        raise InputError(
            f"{where} says it has {shape[0]:,} sections; the most that is read is {LARGEST_STACK:,}: "
            "the file is damaged, or cut the stack"
        )
    return np.dtype(stored), dtype


def _memory() -> float:
    """Bytes of this machine; infinite where it does not say."""
    try:
        return float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    except (AttributeError, ValueError, OSError):
        return float("inf")
