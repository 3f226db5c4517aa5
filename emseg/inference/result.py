"""Results in the form of their input: axes, resolution and, where nothing is lost by it, compression."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np

from emseg.data.sections import Sections
from emseg.inference.segmenter import OUTPUT_TYPES, Output
from emseg.inference.target import SOFTWARE

_LOSSLESS = ("adobe_deflate", "deflate", "lzma", "lzw", "packbits", "zstd")
"""TIFF compressions that hold every type of result as it is."""
_LOSSLESS_ZARR = ("blosc", "bz2", "gzip", "lz4", "lzma", "zlib", "zstd")
_LARGEST_TIFF = 2**32
"""Bytes; more needs 64-bit offsets, which ImageJ's own form lacks."""


def storage_of(sections: Sections) -> tuple[dict[str, Any], str | None]:
    """How the result of `sections` is stored: their `page`, with a compression that loses nothing.

    Returns:
        The facts; and a sentence where the compression is not that of the input.
    """
    page = dict(sections.page)
    if sections.kind == "zarr":
        key, instead = "compressors", "auto"
        lossy = [name for name in map(_codec_name, page[key] or ()) if name not in _LOSSLESS_ZARR]
    else:
        key, instead = "compression", "zlib"
        lossy = [name for name in [page.get(key)] if name is not None and name not in _LOSSLESS]
    if not lossy:
        return page, None
    page[key] = instead
    named = "that of Zarr" if instead == "auto" else instead
    return page, f"{sections.path} is compressed by {lossy[0]}, which may change results; theirs is {named}"


def write_tiff(
    path: Path,
    results: Iterable[np.ndarray],
    count: int | None,
    shape: tuple[int, int],
    page: dict[str, Any],
    kind: Output,
) -> None:
    """Write sections as a TIFF of emseg's.

    Args:
        path: of the file.
        results: (Y, X) each.
        count: sections of a stack; None: one section that is none.
        shape: (Y, X).
        page: see `storage_of`.
        kind: of result.
    """
    import tifffile

    whole = shape if count is None else (count, *shape)
    size = int(np.prod(whole)) * OUTPUT_TYPES[kind].itemsize
    imagej, ome = page.get("imagej"), page.get("ome")
    as_imagej = imagej is not None and size < _LARGEST_TIFF
    options: dict[str, Any] = {"metadata": {"axes": "YX" if count is None else "ZYX"} | (imagej or {}) | (ome or {})}
    if imagej is not None and not as_imagej:
        # Programs read this description as they do that of ImageJ's own form.
        options = {"metadata": None, "description": _imagej_description(count or 1, imagej)}
    if page.get("resolution"):
        options |= {"resolution": page["resolution"], "resolutionunit": page["resolution_unit"]}
    bigtiff = size > _LARGEST_TIFF // 2 and not as_imagej
    with tifffile.TiffWriter(path, imagej=as_imagej, ome=ome is not None, bigtiff=bigtiff) as tiff:
        tiff.write(
            iter(results),
            shape=whole,
            dtype=OUTPUT_TYPES[kind],
            photometric="minisblack",
            compression=page.get("compression"),
            software=SOFTWARE,
            **options,
        )


def write_zarr(
    folder: Path, result: Callable[[int], np.ndarray], shape: tuple[int, int, int], page: dict[str, Any], kind: Output
) -> None:
    """Write sections as a Zarr array (Z, Y, X); arguments as those of `write_tiff`, `result` gives section z."""
    import zarr

    depth, height, width = shape
    array = zarr.create_array(
        folder,
        shape=shape,
        chunks=(1, min(height, 1024), min(width, 1024)),
        dtype=OUTPUT_TYPES[kind],
        overwrite=True,
        **page,
    )
    for z in range(depth):
        array[z] = result(z)


def _imagej_description(count: int, size: dict[str, Any]) -> str:
    entries = {"ImageJ": "1.11a", "images": count, "slices": count, **size}
    return "".join(f"{key}={value}\n" for key, value in entries.items())


def _codec_name(codec: Any) -> str:
    name = getattr(codec, "codec_id", None) or type(codec).__name__
    return str(name).lower().removesuffix("codec")
