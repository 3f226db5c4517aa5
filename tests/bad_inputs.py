"""Files that must be refused in one sentence, wherever they come in: a corpus shared by several tests."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
import tifffile
from PIL import Image

SECTION = np.random.default_rng(0).integers(0, 255, (48, 40), dtype=np.uint8)


def tiff_bytes(**options: object) -> bytes:
    """A TIFF of one section, with the options of tifffile."""
    import io

    stream = io.BytesIO()
    data = options.pop("data", SECTION)
    tifffile.imwrite(stream, data, **({"photometric": "minisblack"} | options))
    return stream.getvalue()


def bomb() -> bytes:
    """A TIFF of a few hundred bytes that says it has 200,000 x 200,000 pixels."""
    side = 200_000
    strip = zlib.compress(bytes(1000))
    entries = [
        (256, 4, 1, side),
        (257, 4, 1, side),
        (258, 3, 1, 8),
        (259, 3, 1, 8),
        (262, 3, 1, 1),
        (273, 4, 1, 200),
        (277, 3, 1, 1),
        (278, 4, 1, side),
        (279, 4, 1, len(strip)),
    ]
    header = b"II*\x00" + struct.pack("<I", 8) + struct.pack("<H", len(entries))
    for tag, kind, count, value in entries:
        header += struct.pack("<HHII", tag, kind, count, value)
    return (header + struct.pack("<I", 0)).ljust(200, b"\x00") + strip


def png_bomb() -> bytes:
    """A PNG header that says it has 100,000 x 100,000 pixels."""
    header = struct.pack(">IIBBBBB", 100_000, 100_000, 8, 0, 0, 0, 0)
    chunk = b"IHDR" + header
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + chunk + struct.pack(">I", zlib.crc32(chunk))


def rgb() -> bytes:
    """A TIFF in colour."""
    return tiff_bytes(data=np.full((32, 32, 3), (200, 10, 10), np.uint8), photometric="rgb")


FILES = {
    "empty.tif": (b"", "empty"),
    "text.tif": (b"not a TIFF at all", "not readable"),
    "truncated.tif": (tiff_bytes(data=np.stack([SECTION] * 5))[:-4000], "truncated"),
    "broken-chain.tif": (tiff_bytes(data=np.stack([SECTION] * 5), compression="zlib")[:-200], "truncated"),
    "half-header.tif": (tiff_bytes()[:6], "not readable"),
    "bomb.tif": (bomb(), "200000"),
    "bomb.png": (png_bomb(), "100000 x 100000"),
    "rgb.tif": (rgb(), "in colour"),
    "channels.tif": (
        tiff_bytes(data=np.stack([[SECTION] * 3] * 2), metadata={"axes": "ZCYX"}, imagej=True),
        "axes ZCYX",
    ),
    "double.tif": (tiff_bytes(data=SECTION.astype(np.float64)), "float64"),
    "signed.tif": (tiff_bytes(data=SECTION.astype(np.int32) - 1000), "values go from -1000"),
    "wide.tif": (tiff_bytes(data=SECTION.astype(np.uint32) * 1000), "grey levels from 0 to 65,535"),
    "four.tif": (tiff_bytes(data=np.zeros((2, 3, 16, 16), np.uint8)), "axes"),
    "nan.tif": (tiff_bytes(data=np.full((16, 16), np.nan, np.float32)), "NaN"),
    "truncated.png": (b"\x89PNG\r\n\x1a\n\x00\x00", "not readable"),
    "section.jpg": (b"\xff\xd8\xff", "JPEG changes grey levels"),
    "section.bmp": (b"BM", "BMP is not read; what is read: TIFF"),
    "archive.npz": (b"PK", "save the array in it as .npy"),
}
"""Name: (content, a part of the sentence)."""


def write_mixed_folder(folder: Path) -> Path:
    """A folder of sections of different sizes."""
    folder.mkdir(parents=True)
    tifffile.imwrite(folder / "1.tif", SECTION)
    tifffile.imwrite(folder / "2.tif", SECTION[:20])
    return folder


def write_colour_png(path: Path) -> Path:
    """A PNG in colour."""
    Image.fromarray(np.full((16, 16, 3), (200, 10, 10), np.uint8)).save(path)
    return path
