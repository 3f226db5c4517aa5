"""Sections on disk, checked before a pixel is read: a TIFF stack, a folder of images, one image or a Zarr array."""

from __future__ import annotations

import logging
import re
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
_STACK_AXES = {"YX", "ZYX", "IYX", "QYX"}
_TYPES = tuple(np.dtype(name) for name in ("uint8", "uint16", "bool", "float16", "float32"))


@dataclass
class Sections:
    """A stack that is not in memory.

    Attributes:
        path: where it is.
        kind: `tiff`, `folder`, `image` (one PNG) or `zarr`.
        shape: (Z, Y, X).
        dtype: uint8, uint16, bool, float16 or float32.
        read: section z as (Y, X).
        names: file name of each section of a folder.
        page: what a TIFF says about itself: compression, resolution, ImageJ and OME entries; of a Zarr array, what
            `zarr.create_array` takes to make one like it.
    """

    path: Path
    kind: str
    shape: tuple[int, int, int]
    dtype: np.dtype[Any]
    read: Callable[[int], np.ndarray]
    names: list[str] = field(default_factory=list)
    page: dict[str, Any] = field(default_factory=dict)
    _files: ExitStack = field(default_factory=ExitStack)

    def __len__(self) -> int:
        return self.shape[0]

    def read_all(self) -> np.ndarray:
        """The whole stack (Z, Y, X)."""
        return np.stack([self.read(z) for z in range(len(self))])

    def close(self) -> None:
        """Close what is open."""
        self._files.close()


def open_sections(path: str | Path) -> Sections:
    """Open sections and check all of them, without reading a pixel.

    Raises:
        InputError: missing, empty, truncated, in colour, of an unknown type or axes, larger than
            `LARGEST_SECTION`, or a folder of mixed sizes or types.
    """
    path = Path(path)
    if not path.exists():
        raise InputError(
            f"{path} does not exist; expected a TIFF stack, a folder of sections, an image or a Zarr array"
        )
    if path.is_dir():
        is_zarr = any((path / name).is_file() for name in ("zarr.json", ".zarray", ".zgroup"))
        return _open_zarr(path) if is_zarr or path.suffix == ".zarr" else _open_folder(path)
    if path.suffix.lower() not in SECTION_SUFFIXES:
        raise InputError(f"{path} is not a TIFF or PNG file; use .tif, .tiff or .png, a folder or a Zarr array")
    if path.stat().st_size == 0:
        raise InputError(f"{path} is empty (0 bytes); copy it again")
    return _open_png(path) if path.suffix.lower() == ".png" else _open_tiff(path)


def _open_tiff(path: Path) -> Sections:
    import tifffile

    with ExitStack() as files:
        # The decoder raises whatever it likes on damaged files; each means the same to the user. A chain of pages
        # that breaks off it only logs, and the stack would silently be shorter.
        with _readable(path), _complaints_of("tifffile") as complaints:
            tiff = files.enter_context(tifffile.TiffFile(path))
            series = tiff.series[0]
            first = tiff.pages.first
            # Pages that were written one after the other are a series each, and a stack all the same.
            pages = list(series.pages) if len(tiff.series) == 1 else list(tiff.pages)
            if complaints:
                raise ValueError(complaints[0])
        if first.samplesperpixel > 1:
            raise InputError(f"{path} is in colour; expected grey-level sections, one channel")
        if len({(page.shape, page.dtype) for page in pages}) > 1:
            raise InputError(f"{path} has pages of different sizes or types; a stack has one size and type")
        if series.axes not in _STACK_AXES:
            raise InputError(f"{path} has axes {series.axes}; expected YX or ZYX (sections, rows, columns)")
        shape = (len(pages), *first.shape) if len(tiff.series) > 1 else (1, *series.shape)[-3:]
        dtype = _checked(path, shape, series.dtype)
        ends = [
            start + count for page in pages for start, count in zip(page.dataoffsets, page.databytecounts, strict=True)
        ]
        has_page_each = len(pages) == shape[0] and first.shape == shape[1:]
        if not has_page_each:
            if series.dataoffset is not None:
                # ImageJ keeps a large stack in one piece behind its first page.
                ends.append(series.dataoffset + int(np.prod(shape)) * dtype.itemsize)
            elif min(shape[1:]) > 1:
                raise InputError(f"{path} keeps {shape[0]} sections in {len(pages)} pages; save a page per section")
        if max(ends) > path.stat().st_size:
            raise InputError(f"{path} is truncated: its last bytes are missing; copy it again")
        memory = None
        if not has_page_each:
            # Sections one pixel high or wide share a page, and are small enough to be read at once.
            whole = tifffile.memmap(path, mode="r") if series.dataoffset is not None else series.asarray()
            memory = whole.reshape(shape)
        kept = files.pop_all()

    def read(z: int) -> np.ndarray:
        with _readable(path, f", section {z}"):
            return np.array(memory[z]) if memory is not None else pages[z].asarray()

    facts = {
        "compression": first.compression.name.lower() if first.compression.value != 1 else None,
        "resolution": (first.resolution[0], first.resolution[1]) if "XResolution" in first.tags else None,
        "resolution_unit": int(first.tags["ResolutionUnit"].value) if "ResolutionUnit" in first.tags else None,
        "imagej": dict(tiff.imagej_metadata or {}) if tiff.is_imagej else None,
        "ome": _physical_size(tiff.ome_metadata) if tiff.is_ome else None,
        "is_stack": series.ndim == 3 or len(tiff.series) > 1,
    }
    return Sections(path, "tiff", shape, dtype, read, page=facts, _files=kept)


@contextmanager
def _readable(path: Path, where: str = "") -> Iterator[None]:
    """Whatever a decoder raises becomes one sentence about the file."""
    try:
        yield
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise InputError(f"{path}{where} is truncated or not readable ({reason[:120]}); copy it again") from error


@contextmanager
def _complaints_of(name: str) -> Iterator[list[str]]:
    complaints: list[str] = []

    class Collect(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            complaints.append(record.getMessage())

    logger, handler = logging.getLogger(name), Collect(logging.ERROR)
    logger.addHandler(handler)
    before, logger.propagate = logger.propagate, False
    try:
        yield complaints
    finally:
        logger.removeHandler(handler)
        logger.propagate = before


def _physical_size(text: str | None) -> dict[str, Any]:
    found = dict(re.findall(r'(PhysicalSize[XYZ](?:Unit)?)="([^"]+)"', text or ""))
    return {key: value if key.endswith("Unit") else float(value) for key, value in found.items()}


def _open_png(path: Path) -> Sections:
    from PIL import Image

    with _readable(path), Image.open(path) as image:
        width, height = image.size
        mode = image.mode
    if mode not in ("1", "L", "I;16", "I"):
        raise InputError(f"{path} is in colour or not grey-level ({mode}); expected 8 or 16 bit, one channel")
    dtype = _checked(path, (1, height, width), {"1": bool, "L": np.uint8}.get(mode, np.uint16))

    def read(_: int) -> np.ndarray:
        with _readable(path), Image.open(path) as image:
            return np.asarray(image).astype(dtype)

    return Sections(path, "image", (1, height, width), dtype, read)


def section_files(folder: Path) -> list[Path]:
    """Section files of a folder in name order, numbers compared as numbers (2 before 10)."""

    def natural(file: Path) -> list[tuple[int, int | str]]:
        return [(0, int(part)) if part.isdigit() else (1, part) for part in re.split(r"(\d+)", file.name) if part]

    return sorted(
        (f for f in folder.iterdir() if f.suffix.lower() in SECTION_SUFFIXES and not f.name.startswith(".")),
        key=natural,
    )


def _open_folder(path: Path) -> Sections:
    files = section_files(path)
    if not files:
        raise InputError(f"{path} holds no .tif, .tiff or .png sections")
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
    return Sections(path, "folder", shape, opened[0].dtype, read, [file.name for file in files], facts)


def _open_zarr(path: Path) -> Sections:
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
    dtype = _checked(path, array.shape, array.dtype)

    def read(z: int) -> np.ndarray:
        return np.asarray(array[z])

    facts = {
        "attributes": dict(array.attrs),
        "compressors": array.compressors or None,
        "zarr_format": array.metadata.zarr_format,
        "dimension_names": getattr(array.metadata, "dimension_names", None),
    }
    depth, height, width = array.shape
    return Sections(path, "zarr", (depth, height, width), dtype, read, page=facts)


def _checked(path: Path, shape: tuple[int, ...], dtype: Any) -> np.dtype[Any]:
    if dtype not in _TYPES:
        raise InputError(f"{path} is {np.dtype(dtype)}; expected 8-bit, 16-bit or 32-bit float grey levels")
    if 0 in shape:
        raise InputError(f"{path} has shape {shape}; expected at least one pixel")
    if shape[-1] * shape[-2] > LARGEST_SECTION:
        raise InputError(
            f"{path} says its sections have {shape[-2]} x {shape[-1]} pixels; the most that is read is "
            f"{LARGEST_SECTION:,} pixels: the file is damaged, or cut the sections"
        )
    return np.dtype(dtype)
