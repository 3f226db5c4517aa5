"""TIFF files as labs and instruments write them: tags that may be absent, inverted and palette grey levels."""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from emseg.data.sections import Sections, checked, readable
from emseg.errors import InputError

_STACK_AXES = {"YX", "ZYX", "IYX", "QYX"}
_MIN_IS_WHITE, _MIN_IS_BLACK, _PALETTE = 0, 1, 3
_NO_COMPRESSION, _LARGEST_TABLE = 1, 16
_INCH, _UNITS = 2, (1, 2, 3)
_BYTE_COUNTS = (279, 325)
"""Tags of strips and of tiles."""


def open_tiff(path: Path) -> Sections:
    """Open a TIFF stack and check all of its pages, without reading a pixel.

    Raises:
        InputError: see `open_sections`.
    """
    import tifffile

    with ExitStack() as files, readable(path):
        # A chain of pages that breaks off the decoder only logs, and the stack would silently be shorter.
        with _complaints_of("tifffile") as complaints:
            tiff = files.enter_context(tifffile.TiffFile(path))
            series = tiff.series[0]
            first = tiff.pages.first
            # Pages that were written one after the other are a series each, and a stack all the same.
            pages = list(series.pages) if len(tiff.series) == 1 else list(tiff.pages)
        if None in pages:
            raise InputError(f"{path} lacks a section, or it is in another file that is not there; copy it again")
        if tiff.is_ome and len(tiff.pages) > len(pages):
            raise InputError(
                f"{path} has {len(tiff.pages)} pages but its OME entry speaks of {len(pages)}; save it again"
            )
        has_no_counts = first.compression == _NO_COMPRESSION and not any(tag in first.tags for tag in _BYTE_COUNTS)
        if has_no_counts:
            complaints = [text for text in complaints if "ByteCounts" not in text]
        if complaints:
            raise ValueError(complaints[0])
        if first.samplesperpixel > 1:
            raise InputError(f"{path} is in colour; expected grey-level sections, one channel")
        if len({(page.shape, page.dtype, page.keyframe.photometric) for page in pages}) > 1:
            raise InputError(f"{path} has pages of different sizes or types; a stack has one size and type")
        if series.axes not in _STACK_AXES:
            raise InputError(f"{path} has axes {series.axes}; expected YX or ZYX (sections, rows, columns): save it so")
        shape = (len(pages), *first.shape) if len(tiff.series) > 1 else (1, *series.shape)[-3:]
        stored = checked(path, shape, series.dtype)
        dtype, as_grey = _grey_levels(path, first, stored)
        if has_no_counts:
            for page in pages:
                page.databytecounts = _strip_sizes(first)
        has_page_each = len(pages) == shape[0] and first.shape == shape[1:]
        _require_whole(path, pages, series, shape, stored, has_page_each)
        memory = None
        if not has_page_each:
            # Sections one pixel high or wide share a page, and are small enough to be read at once.
            whole = tifffile.memmap(path, mode="r") if series.dataoffset is not None else series.asarray()
            memory = whole.reshape(shape)
        facts = _facts(tiff, first) | {"is_stack": series.ndim == 3 or len(tiff.series) > 1}
        kept = files.pop_all()

    def read(z: int) -> np.ndarray:
        return as_grey(np.array(memory[z]) if memory is not None else pages[z].asarray())

    return Sections(path, "tiff", shape, dtype, read, page=facts, _files=kept)


def _require_whole(
    path: Path, pages: list[Any], series: Any, shape: tuple[int, ...], dtype: np.dtype[Any], has_page_each: bool
) -> None:
    ends = [start + count for page in pages for start, count in zip(page.dataoffsets, page.databytecounts, strict=True)]
    if not has_page_each:
        if series.dataoffset is not None:
            # ImageJ keeps a large stack in one piece behind its first page.
            ends.append(series.dataoffset + math.prod(shape) * dtype.itemsize)
        elif min(shape[1:]) > 1:
            raise InputError(f"{path} keeps {shape[0]} sections in {len(pages)} pages; save a page per section")
    if max(ends) > path.stat().st_size:
        raise InputError(f"{path} is truncated: its last bytes are missing; copy it again")


def _strip_sizes(page: Any) -> tuple[int, ...]:
    """Bytes of each strip of a page that is not compressed and does not say so itself."""
    height, width = page.shape
    row = math.ceil(width * page.bitspersample / 8)
    rows = page.rowsperstrip
    return tuple(min(rows, height - start) * row for start in range(0, height, rows))


def _grey_levels(
    path: Path, page: Any, dtype: np.dtype[Any]
) -> tuple[np.dtype[Any], Callable[[np.ndarray], np.ndarray]]:
    """The type of a page's grey levels, black lowest, and what makes them of the numbers stored."""
    # No default is specified; without the tag programs take black for zero.
    photometric = page.photometric if "PhotometricInterpretation" in page.tags else _MIN_IS_BLACK
    if photometric == _PALETTE:
        table = _grey_table(path, page)
        return table.dtype, lambda stored: table[stored.astype(np.intp)]
    if photometric != _MIN_IS_WHITE:
        return dtype, lambda stored: stored
    if dtype.kind == "b":
        # tifffile calls the 0 of bool arrays white, whatever they mean, and so every mask that was saved with it.
        is_mask = page.is_shaped or page.software.startswith("tifffile")
        return dtype, (lambda stored: stored) if is_mask else np.logical_not
    if dtype.kind == "f":
        raise InputError(f"{path} says that its lowest value is white, of numbers without a highest; save it inverted")
    white = dtype.type(2**page.bitspersample - 1)
    return dtype, lambda stored: white - stored


def _grey_table(path: Path, page: Any) -> np.ndarray:
    """Grey level of each number that a palette page may hold: uint8, or uint16 for 16-bit numbers."""
    table = page.colormap
    bits = page.bitspersample
    if table is None or bits > _LARGEST_TABLE or table.shape != (3, 2**bits):
        raise InputError(f"{path} has numbers in place of grey levels but no table of them; save it as grey levels")
    if (table != table[0]).any():
        raise InputError(f"{path} is in colour, by its colour table; save it as grey levels")
    if bits > 8:
        return table[0].astype(np.uint16)
    # Tables hold 16 bits; some programs write 8 into them.
    return (table[0] >> 8 if table.max() > 255 else table[0]).astype(np.uint8)


def _facts(tiff: Any, page: Any) -> dict[str, Any]:
    """What a result takes over, all of it in a form that can be written."""
    facts: dict[str, Any] = {"compression": None, "resolution": None, "resolution_unit": None}
    if page.compression != _NO_COMPRESSION:
        facts["compression"] = getattr(page.compression, "name", str(page.compression)).lower()
    if "XResolution" in page.tags:
        resolution = tuple(page.resolution)
        unit = page.tags.valueof("ResolutionUnit", _INCH)
        if all(isinstance(value, int | float) and 0 < value < 2**31 for value in resolution):
            facts |= {"resolution": resolution, "resolution_unit": int(unit) if unit in _UNITS else 1}
    facts["imagej"] = _imagej_size(tiff.imagej_metadata or {}) if tiff.is_imagej else None
    facts["ome"] = _physical_size(tiff.ome_metadata) if tiff.is_ome else None
    return facts


def _imagej_size(found: dict[str, Any]) -> dict[str, Any]:
    """Distance of sections and unit, in the seven bits that ImageJ's description holds."""
    size: dict[str, Any] = {}
    if isinstance(spacing := found.get("spacing"), int | float) and math.isfinite(spacing):
        size["spacing"] = spacing
    if isinstance(unit := found.get("unit"), str) and "\n" not in unit:
        size["unit"] = "".join(sign if sign.isascii() else f"\\u{ord(sign) & 0xFFFF:04X}" for sign in unit)
    return size


def _physical_size(text: str | None) -> dict[str, Any]:
    size: dict[str, Any] = {}
    for key, value in re.findall(r'(PhysicalSize[XYZ](?:Unit)?)="([^"]+)"', text or ""):
        if key.endswith("Unit"):
            if not re.search(r"[<>&]", value):
                size[key] = value
        elif re.fullmatch(r"[0-9]*\.?[0-9]+(?:[eE][+-]?[0-9]{1,2})?", value) and float(value) > 0:
            size[key] = float(value)
    return size


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
