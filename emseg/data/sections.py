"""Sections on disk, checked before a pixel is read: a TIFF stack, a folder of images, one image or a Zarr array."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from emseg.errors import InputError

SECTION_SUFFIXES = (".tif", ".tiff", ".png")
LARGEST_SECTION = 2**28
"""Pixels. More is a damaged header or a decompression bomb: the largest sections in use have some 10^8."""
LARGEST_STACK = 2**20
"""Sections. More is a damaged header: a stack of so many would be five centimetres thick."""
_TYPES = tuple(np.dtype(name) for name in ("uint8", "uint16", "bool", "float16", "float32"))


@dataclass
class Sections:
    """A stack that is not in memory.

    Attributes:
        path: where it is.
        kind: `tiff`, `folder`, `image` (one PNG) or `zarr`.
        shape: (Z, Y, X).
        dtype: uint8, uint16, bool, float16 or float32.
        names: file name of each section of a folder.
        page: what a TIFF says about itself: compression, resolution, ImageJ and OME entries; of a Zarr array, what
            `zarr.create_array` takes to make one like it.
        remarks: sentences that the user should see, such as a gap in the numbers of a folder's files.
    """

    path: Path
    kind: str
    shape: tuple[int, int, int]
    dtype: np.dtype[Any]
    _decode: Callable[[int], np.ndarray]
    names: list[str] = field(default_factory=list)
    page: dict[str, Any] = field(default_factory=dict)
    remarks: list[str] = field(default_factory=list)
    _files: ExitStack = field(default_factory=ExitStack)

    def __len__(self) -> int:
        return self.shape[0]

    def read(self, z: int) -> np.ndarray:
        """Section z as (Y, X), in the byte order of this machine.

        Raises:
            InputError: it is damaged.
        """
        with readable(self.path, f", section {z}"):
            section = self._decode(z)
            if section.shape != self.shape[1:]:
                raise ValueError(f"it has {section.shape} pixels in place of {self.shape[1:]}")
            return section.astype(self.dtype, copy=False)

    def read_all(self) -> np.ndarray:
        """The whole stack (Z, Y, X).

        Raises:
            InputError: a section is damaged, or the stack does not fit into memory.
        """
        try:
            stack = np.empty(self.shape, self.dtype)
        except MemoryError as error:
            size = np.prod(self.shape, dtype=float) * self.dtype.itemsize / 2**30
            raise InputError(f"{self.path} needs {size:,.0f} GiB of memory, more than there is; cut it") from error
        for z in range(len(self)):
            stack[z] = self.read(z)
        return stack

    def close(self) -> None:
        """Close what is open."""
        self._files.close()


def open_sections(path: str | Path) -> Sections:
    """Open sections and check all of them, without reading a pixel.

    Raises:
        InputError: missing, empty, truncated, in colour, of an unknown type or axes, larger than
            `LARGEST_SECTION`, or a folder of mixed sizes or types or with images that are not read.
    """
    path = Path(path)
    if not path.exists():
        raise InputError(
            f"{path} does not exist; expected a TIFF stack, a folder of sections, an image or a Zarr array"
        )
    if path.is_dir():
        is_zarr = any((path / name).is_file() for name in ("zarr.json", ".zarray", ".zgroup"))
        if not is_zarr and path.suffix != ".zarr":
            return _open_folder(path)
        from emseg.data.zarr_array import open_zarr

        return open_zarr(path)
    if path.suffix.lower() not in SECTION_SUFFIXES:
        raise InputError(f"{path} is not a TIFF or PNG file; use .tif, .tiff or .png, a folder or a Zarr array")
    if path.stat().st_size == 0:
        raise InputError(f"{path} is empty (0 bytes); copy it again")
    if path.suffix.lower() == ".png":
        return _open_png(path)
    from emseg.data.tiff import open_tiff

    return open_tiff(path)


@contextmanager
def readable(path: Path, where: str = "") -> Iterator[None]:
    """Whatever a decoder raises on a damaged file becomes one sentence about the file: each means the same."""
    try:
        yield
    except InputError:
        raise
    except PermissionError as error:
        raise InputError(f"{path}{where} may not be read; ask for the permission") from error
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise InputError(f"{path}{where} is truncated or not readable ({reason[:120]}); copy it again") from error


def checked(path: Path, shape: tuple[int, ...], dtype: Any) -> np.dtype[Any]:
    """The type of sections in the byte order of this machine.

    Raises:
        InputError: a type that is not read, no pixels, or more than a section or a stack has.
    """
    native = np.dtype(dtype).newbyteorder("=")
    if native not in _TYPES:
        raise InputError(
            f"{path} is {native}; expected 8-bit or 16-bit grey levels without a sign, or 16-bit or 32-bit float: "
            "save it as one of them"
        )
    if 0 in shape:
        raise InputError(f"{path} has shape {shape}; expected at least one pixel")
    if shape[-1] * shape[-2] > LARGEST_SECTION:
        raise InputError(
            f"{path} says its sections have {shape[-2]} x {shape[-1]} pixels; the most that is read is "
            f"{LARGEST_SECTION:,} pixels: the file is damaged, or cut the sections"
        )
    if len(shape) == 3 and shape[0] > LARGEST_STACK:
        raise InputError(
            f"{path} says it has {shape[0]:,} sections; the most that is read is {LARGEST_STACK:,}: "
            "the file is damaged, or cut the stack"
        )
    return native


def _open_png(path: Path) -> Sections:
    from PIL import Image

    with readable(path), Image.open(path) as image:
        width, height = image.size
        mode, frames = image.mode, getattr(image, "n_frames", 1)
    if mode not in ("1", "L", "I;16", "I"):
        raise InputError(f"{path} is in colour or not grey-level ({mode}); expected 8 or 16 bit, one channel")
    if frames > 1:
        raise InputError(f"{path} is animated, of {frames} images; save each as a section")
    dtype = checked(path, (1, height, width), {"1": bool, "L": np.uint8}.get(mode, np.uint16))

    def read(_: int) -> np.ndarray:
        with Image.open(path) as image:
            return np.array(image)

    return Sections(path, "image", (1, height, width), dtype, read)


def _open_folder(path: Path) -> Sections:
    from emseg.data.folder import look_into

    files, remarks = look_into(path)
    opened = [open_sections(file) for file in files]
    for each in opened:
        each.close()
        if len(each) != 1:
            raise InputError(f"{each.path} has {len(each)} pages; a folder of sections needs one page per file")
        if each.shape != opened[0].shape or each.dtype != opened[0].dtype:
            raise InputError(
                f"{each.path} is {each.shape[1]} x {each.shape[2]} {each.dtype} but {files[0].name} is "
                f"{opened[0].shape[1]} x {opened[0].shape[2]} {opened[0].dtype}; a stack has one size and type"
            )

    def read(z: int) -> np.ndarray:
        with closing(open_sections(files[z])) as file:
            return file.read(0)

    shape = (len(files), *opened[0].shape[1:])
    facts = opened[0].page
    return Sections(path, "folder", shape, opened[0].dtype, read, [file.name for file in files], facts, remarks)
