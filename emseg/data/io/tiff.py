"""TIFF files as labs and instruments write them, and results like them.

Tags may be absent; grey levels may be inverted, in a table, or stored as colour; sections may lie along time.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from emseg.data.io.metadata import SOFTWARE, Metadata
from emseg.data.io.numbers import single_channel, two_colours
from emseg.data.io.planes import along
from emseg.data.io.sections import Format, Sections, checked, readable
from emseg.data.io.tiff_metadata import (
    NO_COMPRESSION,
    TiffStorage,
    imagej_description,
    imagej_storage,
    metadata_of,
)
from emseg.errors import InputError

_Z_AXES = "ZIQ"
"""What stands for sections: Z, and the axes of files that do not say."""
_MIN_IS_WHITE, _MIN_IS_BLACK, _RGB, _PALETTE, _YCBCR = 0, 1, 2, 3, 6
_LARGEST_TABLE = 16
_BYTE_COUNTS = (279, 325)
"""Tags of strips and of tiles."""
_LOSSLESS = ("adobe_deflate", "deflate", "lzma", "lzw", "packbits", "zstd")
"""Compressions that hold every type of result as it is."""
_LARGEST_TIFF = 2**32
"""Bytes; more needs 64-bit offsets, which ImageJ's own form lacks."""

_Convert = Callable[[np.ndarray], np.ndarray]


def open_tiff(path: Path, _: str, labels: bool) -> Sections:
    """Open a stack and check all of its pages; see `open_sections`."""
    import tifffile

    with ExitStack() as files, readable(path):
        # A chain of pages that breaks off the decoder only logs, and the stack would silently be shorter.
        with _complaints_of("tifffile") as complaints:
            tiff = files.enter_context(tifffile.TiffFile(path))
            series = tiff.series[0]
            first = tiff.pages.first
            # Pages that were written one after the other are a series each, and a stack all the same.
            is_one = len(tiff.series) == 1
            pages = list(series.pages) if is_one else list(tiff.pages)
        if None in pages:
            raise InputError(f"{path} lacks a section, or it is in another file that is not there; copy it again")
        if tiff.is_ome and len(tiff.pages) > len(pages):
            raise InputError(
                f"{path} has {len(tiff.pages)} pages but its OME entry speaks of {len(pages)}; save it again"
            )
        has_no_counts = first.compression == NO_COMPRESSION and not any(tag in first.tags for tag in _BYTE_COUNTS)
        if has_no_counts:
            complaints = [text for text in complaints if "ByteCounts" not in text]
        if complaints:
            raise ValueError(complaints[0])
        if len({(page.shape, page.dtype, page.keyframe.photometric) for page in pages}) > 1:
            raise InputError(f"{path} has pages of different sizes or types; a stack has one size and type")
        remarks: list[str] = []
        shape = (len(pages), first.imagelength, first.imagewidth)
        if is_one and first.samplesperpixel == 1:
            shape, remarks = _shape_of(path, series)
        stored, dtype = checked(str(path), shape, series.dtype, labels)
        as_one_channel = _one_channel(path, first, labels)
        dtype, as_grey, label_table = _grey_levels(path, first, stored, dtype, labels)
        if has_no_counts:
            for page in pages:
                page.databytecounts = _strip_sizes(first)
        has_page_each = len(pages) == shape[0] and (first.samplesperpixel > 1 or first.shape == shape[1:])
        _require_whole(path, pages, series, shape, stored, has_page_each)
        memory = None
        if not has_page_each:
            # Sections one pixel high or wide share a page, and are small enough to be read at once.
            whole = tifffile.memmap(path, mode="r") if series.dataoffset is not None else series.asarray()
            memory = whole.reshape(shape)
        is_stack = shape[0] > 1 or series.ndim - (first.samplesperpixel > 1) == 3
        metadata = metadata_of(tiff, first, is_stack)
        if as_one_channel is not None:
            as_one_channel(first.asarray())
        kept = files.pop_all()

    def read(z: int) -> np.ndarray:
        section = np.array(memory[z]) if memory is not None else pages[z].asarray()
        for convert in (as_one_channel, as_grey):
            if convert is not None:
                section = convert(section)
        return section

    def read_all(out: np.ndarray) -> None:
        if memory is not None:
            out[:] = memory
        # Views, since their shape is set to that of the file.
        elif is_one:
            series.asarray(out=out.view())
        else:
            tiff.asarray(key=slice(None), series=None, out=out.view())

    return Sections(
        path,
        "tiff",
        shape,
        stored,
        dtype,
        read,
        metadata=metadata,
        remarks=remarks,
        label_table=label_table,
        _decode_all=read_all if as_one_channel is None and as_grey is None else None,
        _files=kept,
    )


def _shape_of(path: Path, series: Any) -> tuple[tuple[int, int, int], list[str]]:
    """(Z, Y, X) of grey-level sections, and a sentence where they lie along another axis than Z."""
    long = [(axis, size) for axis, size in zip(series.axes, series.shape, strict=True) if axis not in "YX" and size > 1]
    if not {"Y", "X"} <= set(series.axes) or series.axes.index("Y") > series.axes.index("X") or len(long) > 1:
        raise InputError(
            f"{path} has axes {series.axes} of shape {series.shape}; expected YX or ZYX (sections, rows, columns): "
            "save one channel or time point of it"
        )
    count = long[0][1] if long else 1
    remarks = [along(str(path), count, long[0][0])] if long and long[0][0] not in _Z_AXES else []
    return (count, *(series.shape[series.axes.index(axis)] for axis in "YX")), remarks


def _one_channel(path: Path, page: Any, labels: bool) -> _Convert | None:
    """What makes (Y, X) of a page with several samples per pixel; None: it has one."""
    if page.samplesperpixel == 1:
        return None
    extra = len(page.extrasamples)
    if page.photometric not in (_MIN_IS_WHITE, _MIN_IS_BLACK, _RGB, _YCBCR) or extra > 1:
        raise InputError(f"{path} is in colour; expected grey-level sections, one channel")
    place = page.axes.index("S")
    return lambda section: single_channel(np.moveaxis(section, place, -1), labels, extra == 1)


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
    path: Path, page: Any, stored: np.dtype[Any], dtype: np.dtype[Any], labels: bool
) -> tuple[np.dtype[Any], _Convert | None, bytes | None]:
    """The type of a page's grey levels, black lowest, and what makes them of the numbers stored; None: they are them.

    Labels by number may have a table of colours to show them in, which is returned too.
    """
    # No default is specified; without the tag programs take black for zero.
    photometric = page.photometric if "PhotometricInterpretation" in page.tags else _MIN_IS_BLACK
    if photometric == _PALETTE:
        table = page.colormap
        bits = page.bitspersample
        if table is None or bits > _LARGEST_TABLE or table.shape != (3, 2**bits):
            raise InputError(f"{path} has numbers in place of grey levels but no table of them; save it as grey levels")
        if labels and bits > 1 and (table != table[0]).any():
            return dtype, None, table.tobytes()
        grey = _grey_table(path, table, bits, labels)
        return grey.dtype, lambda numbers: grey[numbers.astype(np.intp)], None
    if photometric != _MIN_IS_WHITE:
        return dtype, None, None
    if stored.kind == "b":
        # tifffile calls the 0 of bool arrays white, whatever they mean, and so every mask that was saved with it.
        is_mask = page.is_shaped or page.software.startswith("tifffile")
        return dtype, None if is_mask else np.logical_not, None
    if stored.kind != "u":
        raise InputError(f"{path} says that its lowest value is white, of numbers without a highest; save it inverted")
    white = stored.type(2**page.bitspersample - 1)
    return dtype, lambda numbers: white - numbers, None


def _grey_table(path: Path, table: np.ndarray, bits: int, labels: bool) -> np.ndarray:
    """Grey level of each number that a palette page may hold: uint8, or uint16 for 16-bit numbers."""
    if (table != table[0]).any():
        brightness = two_colours(table.T[None]) if labels else None
        if brightness is None:
            raise InputError(f"{path} is in colour, by its colour table; save it as grey levels")
        table = brightness
    if bits > 8:
        return table[0].astype(np.uint16)
    # Tables hold 16 bits; some programs write 8 into them.
    return (table[0] >> 8 if table.max() > 255 else table[0]).astype(np.uint8)


def write_tiff(
    path: Path,
    result: Callable[[int], np.ndarray],
    shape: tuple[int, int, int],
    dtype: np.dtype[Any],
    metadata: Metadata,
) -> None:
    """Write sections as a TIFF of emseg's; see `Format`."""
    import tifffile

    storage = metadata.storage if isinstance(metadata.storage, TiffStorage) else imagej_storage(metadata.voxel_size)
    whole = shape[1:] if metadata.axes == "YX" else shape
    size = math.prod(whole) * dtype.itemsize
    imagej, ome = storage.imagej, storage.ome
    as_imagej = imagej is not None and size < _LARGEST_TIFF
    options: dict[str, Any] = {"metadata": {"axes": metadata.axes} | (imagej or {}) | (ome or {})}
    if imagej is not None and not as_imagej:
        # Programs read this description as they do that of ImageJ's own form.
        options = {"metadata": None, "description": imagej_description(shape[0], imagej)}
    if storage.resolution:
        options |= {"resolution": storage.resolution, "resolutionunit": storage.resolution_unit}
    bigtiff = size > _LARGEST_TIFF // 2 and not as_imagej
    with tifffile.TiffWriter(path, imagej=as_imagej, ome=ome is not None, bigtiff=bigtiff) as tiff:
        tiff.write(
            (result(z) for z in range(shape[0])),
            shape=whole,
            dtype=dtype,
            photometric="minisblack",
            compression=metadata.compression,
            software=SOFTWARE,
            **options,
        )


def forms(metadata: Metadata) -> list[Metadata]:
    """See `Format`."""
    if not isinstance(metadata.storage, TiffStorage):
        storage = imagej_storage(metadata.voxel_size)
        return [Metadata(metadata.voxel_size, "nm", metadata.axes, "zlib", storage)]
    deflated = replace(metadata, compression="zlib")
    plain = Metadata(axes=metadata.axes, compression="zlib", storage=TiffStorage())
    return [*([metadata] if metadata.compression in (None, *_LOSSLESS) else []), deflated, plain]


def is_result(path: Path) -> bool:
    """See `Format`."""
    import tifffile

    try:
        with tifffile.TiffFile(path) as tiff:
            return bool(tiff.pages.first.software == SOFTWARE)
    except Exception:  # whatever it is, it is no result
        return False


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


FORMAT = Format("tiff", "TIFF", (".tif", ".tiff"), open_tiff, write=write_tiff, forms=forms, is_result=is_result)
