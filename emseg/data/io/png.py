"""PNG files of every mode, as long as they are grey; labels also of two colours."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np

from emseg.data.io.metadata import Metadata
from emseg.data.io.numbers import single_channel
from emseg.data.io.sections import Format, Sections, checked, readable
from emseg.errors import InputError

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_GREY = 0
_TYPES = (0, 2, 3, 4, 6)
"""Colour types of the specification: grey, colour, palette, grey and colour with an alpha channel."""


def open_png(path: Path, _: str, labels: bool) -> Sections:
    """Open one section; see `open_sections`."""
    with readable(path):
        width, height, bits, colour, table, frames = _header(path)
    if frames > 1:
        raise InputError(f"{path} is animated, of {frames} images; save each as a section")
    is_mask = bits == 1 and colour == _GREY
    stored, dtype = checked(str(path), (1, height, width), bool if is_mask else f"u{max(bits, 8) // 8}", labels)
    # Two colours are told by their brightness, more are the numbers themselves.
    numbers = labels and table is not None and len(table) > 2 and (table != table[:, :1]).any()

    def read(_: int) -> np.ndarray:
        if numbers:
            from PIL import Image

            with Image.open(path) as image:
                return np.array(image)
        from imagecodecs import png_decode

        section = png_decode(path.read_bytes())
        if section.ndim == 3:
            return single_channel(section, labels, section.shape[-1] in (2, 4))
        return section > 0 if is_mask else section

    if colour != _GREY:
        with readable(path):
            read(0)
    return Sections(
        path,
        "png",
        (1, height, width),
        stored,
        dtype,
        read,
        metadata=Metadata(axes="YX"),
        label_table=table.tobytes() if numbers and table is not None else None,
    )


def _header(path: Path) -> tuple[int, int, int, int, np.ndarray | None, int]:
    """Width, height, bits, colour type, colour table (N, 3) and number of images."""
    table, frames = None, 1
    with path.open("rb") as file:
        if file.read(8) != _SIGNATURE:
            raise ValueError("not a PNG file")
        size, name = struct.unpack(">I4s", file.read(8))
        if name != b"IHDR" or size != 13:
            raise ValueError("its header is missing")
        width, height, bits, colour, *_ = struct.unpack(">IIBBBBB", file.read(13))
        if colour not in _TYPES or bits not in (1, 2, 4, 8, 16):
            raise ValueError(f"colour type {colour} of {bits} bits")
        file.seek(4, 1)
        while len(head := file.read(8)) == 8:
            size, name = struct.unpack(">I4s", head)
            if name == b"IDAT":
                break
            if name == b"PLTE" and size <= 768:
                table = np.frombuffer(file.read(size), np.uint8).reshape(-1, 3)
                file.seek(4, 1)
                continue
            if name == b"acTL":
                frames = struct.unpack(">I", file.read(4))[0]
                size -= 4
            file.seek(size + 4, 1)
    return width, height, bits, colour, table, frames


FORMAT = Format("png", "PNG", (".png",), open_png)
