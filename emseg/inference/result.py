"""Results in the form of their input: axes, resolution and, where nothing is lost by it, compression."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from emseg.data.sections import Sections
from emseg.inference.segmenter import OUTPUT_TYPES, Output
from emseg.inference.target import SOFTWARE, SOFTWARE_ATTRIBUTE

_LOSSLESS = ("adobe_deflate", "deflate", "lzma", "lzw", "packbits", "zstd")
"""TIFF compressions that hold every type of result as it is."""
_LOSSLESS_ZARR = ("blosc", "bz2", "gzip", "lz4", "lzma", "zlib", "zstd")
_LARGEST_TIFF = 2**32
"""Bytes; more needs 64-bit offsets, which ImageJ's own form lacks."""


def storage_of(sections: Sections, kind: Output) -> tuple[dict[str, Any], str | None]:
    """How a result of `sections` is stored: their `page`, with a compression that loses nothing and can be written.

    Returns:
        The facts; and a sentence where they are not those of the input.
    """
    page, is_zarr = dict(sections.page), sections.kind == "zarr"
    if is_zarr:
        key, instead, keep = "compressors", "auto", "zarr_format"
        found = [_codec_name(codec) for codec in page[key] or ()]
    else:
        key, instead, keep = "compression", "zlib", "is_stack"
        found = [page[key]] if page.get(key) else []
    forms = [page, page | {key: instead}, {key: instead, keep: page.get(keep)}]
    if any(name not in (_LOSSLESS_ZARR if is_zarr else _LOSSLESS) for name in found):
        del forms[0]
    form = next((form for form in forms if _can_be_written(form, is_zarr, kind)), forms[-1])
    if form == page:
        return page, None
    named = " and ".join(found) if found else "what its header says"
    return form, f"{sections.path} is stored with {named}; its result is stored without, so that nothing is lost"


def _can_be_written(page: dict[str, Any], is_zarr: bool, kind: Output) -> bool:
    """Try it on one small section: headers may say what no encoder takes, and that must not show after the work."""
    # Of ones: Zarr leaves out what is all zero.
    section = np.ones((16, 16), OUTPUT_TYPES[kind])
    try:
        if is_zarr:
            write_zarr({}, lambda _: section, (1, 16, 16), page, kind)
        else:
            write_tiff(io.BytesIO(), [section], 1 if page.get("is_stack") else None, (16, 16), page, kind)
    except Exception:  # encoders raise whatever they like
        return False
    return True


def write_tiff(
    path: Path | BinaryIO,
    results: Iterable[np.ndarray],
    count: int | None,
    shape: tuple[int, int],
    page: dict[str, Any],
    kind: Output,
) -> None:
    """Write sections as a TIFF of emseg's.

    Args:
        path: of the file, or the file.
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
    folder: Path | dict[str, Any],
    result: Callable[[int], np.ndarray],
    shape: tuple[int, int, int],
    page: dict[str, Any],
    kind: Output,
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
        **page | {"attributes": page.get("attributes", {}) | {SOFTWARE_ATTRIBUTE: SOFTWARE}},
    )
    for z in range(depth):
        array[z] = result(z)


def _imagej_description(count: int, size: dict[str, Any]) -> str:
    entries = {"ImageJ": "1.11a", "images": count, "slices": count, **size}
    return "".join(f"{key}={value}\n" for key, value in entries.items())


def _codec_name(codec: Any) -> str:
    name = getattr(codec, "codec_id", None) or type(codec).__name__
    return str(name).lower().removesuffix("codec")
