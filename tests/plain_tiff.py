"""TIFFs written byte by byte after the specification, so that any tag may be absent or odd."""

from __future__ import annotations

import struct

import numpy as np

WIDTH, HEIGHT, BITS, COMPRESSION, PHOTOMETRIC = 256, 257, 258, 259, 262
OFFSETS, SAMPLES, ROWS, COUNTS, RESOLUTION, UNIT, TABLE = 273, 277, 278, 279, 282, 296, 320
OPTIONAL = (COMPRESSION, SAMPLES, ROWS, COUNTS)
_SHORT, _LONG, _RATIONAL = 3, 4, 5


def plain_tiff(
    section: np.ndarray,
    without: tuple[int, ...] = (),
    order: str = "<",
    strips: int = 1,
    bits: int | None = None,
    **odd: int,
) -> bytes:
    """A TIFF of one section (Y, X), not compressed.

    Args:
        section: uint8, uint16 or bool, stored one bit per pixel.
        without: tags that are left out.
        order: `<` or `>`, of the bytes.
        strips: into how many the rows are divided.
        bits: what BitsPerSample says, if not the truth.
        odd: `photometric`, `unit` (with a resolution), `compression`: values to store.
    """
    height, width = section.shape
    stored = (
        np.packbits(section, axis=1) if section.dtype == bool else section.astype(section.dtype.newbyteorder(order))
    )
    parts = [part.tobytes() for part in np.array_split(stored, strips)]
    rows = len(np.array_split(stored, strips)[0])
    starts = [8 + sum(map(len, parts[:index])) for index in range(strips)]
    entries: dict[int, tuple[int, list[int]]] = {
        WIDTH: (_SHORT, [width]),
        HEIGHT: (_SHORT, [height]),
        BITS: (_SHORT, [bits or (1 if section.dtype == bool else section.dtype.itemsize * 8)]),
        COMPRESSION: (_SHORT, [odd.get("compression", 1)]),
        PHOTOMETRIC: (_SHORT, [odd.get("photometric", 1)]),
        OFFSETS: (_LONG, starts),
        SAMPLES: (_SHORT, [1]),
        ROWS: (_SHORT, [rows]),
        COUNTS: (_LONG, [len(part) for part in parts]),
    }
    if "unit" in odd:
        entries |= {RESOLUTION: (_RATIONAL, [250, 1]), 283: (_RATIONAL, [250, 1]), UNIT: (_SHORT, [odd["unit"]])}
    kept = sorted((tag, *entry) for tag, entry in entries.items() if tag not in without)
    place = 8 + sum(map(len, parts)) + sum(map(len, parts)) % 2
    behind = place + 2 + 12 * len(kept) + 4
    directory, values = struct.pack(f"{order}H", len(kept)), b""
    for tag, kind, numbers in kept:
        packed = struct.pack(f"{order}{len(numbers)}{'H' if kind == _SHORT else 'I'}", *numbers)
        count = len(numbers) // 2 if kind == _RATIONAL else len(numbers)
        if len(packed) > 4:
            packed, values = struct.pack(f"{order}I", behind + len(values)), values + packed
        directory += struct.pack(f"{order}HHI", tag, kind, count) + packed.ljust(4, b"\0")
    header = (b"II" if order == "<" else b"MM") + struct.pack(f"{order}HI", 42, place)
    return (header + b"".join(parts)).ljust(place, b"\0") + directory + struct.pack(f"{order}I", 0) + values
