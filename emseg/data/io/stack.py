"""Read and write stacks of sections; whatever is not a stack is refused in one sentence."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np

from emseg.data.io.formats import open_sections
from emseg.data.io.metadata import VoxelSize
from emseg.data.io.numbers import narrowed
from emseg.data.io.tiff_metadata import imagej_description, imagej_storage
from emseg.errors import InputError
from emseg.files import atomic_path


def read_stack(
    path: str | Path, warn: Callable[[str], None] = lambda sentence: None, labels: bool = False
) -> np.ndarray:
    """Read a whole stack: whatever `open_sections` opens.

    Args:
        path: of the stack.
        warn: told in a sentence what the user should know, such as a gap in the numbers of a folder's files.
        labels: keep numbers of every integer type as they are, and read images of two colours.

    Returns:
        (Z, Y, X) with the dtype of the file: uint8, uint16, bool, float16 or float32. Grey levels that are stored as
        wider or signed integers come as uint8, or uint16 where they need it. Labels are bool or any integer.

    Raises:
        InputError: see `open_sections`.
    """
    with closing(open_sections(path, labels)) as sections:
        for remark in sections.remarks:
            warn(remark)
        stack = sections.read_all()
        return stack if labels else narrowed(stack, sections.stored)


def write_stack(path: str | Path, stack: np.ndarray, voxel_size: VoxelSize | None = None) -> None:
    """Write a stack (Z, Y, X) as a zlib-compressed multi-page TIFF; bool is written as {0, 255}.

    The same array always gives the same bytes.

    Args:
        path: of the file.
        stack: what to write.
        voxel_size: (z, y, x) in nm; it is written as ImageJ does.

    Raises:
        InputError: `stack` is not 3-D or is empty.
    """
    import tifffile

    if stack.ndim != 3 or not stack.size:
        raise InputError(f"a stack has shape (Z, Y, X) and at least one pixel, not {stack.shape}")
    if stack.dtype == bool:
        stack = stack.astype(np.uint8) * 255
    options: dict[str, Any] = {"metadata": {"axes": "ZYX"}}
    if voxel_size is not None:
        storage = imagej_storage(voxel_size)
        options = {
            "metadata": None,
            "description": imagej_description(len(stack), storage.imagej or {}),
            "resolution": storage.resolution,
            "resolutionunit": storage.resolution_unit,
        }
    with atomic_path(path) as temporary:
        tifffile.imwrite(
            temporary,
            stack,
            photometric="minisblack",
            compression="zlib",
            compressionargs={"level": 1},
            bigtiff=stack.nbytes > 2**31,
            maxworkers=2,
            **options,
        )


def stack_digest(*stacks: np.ndarray) -> str:
    """Digest of every pixel, the shapes and dtypes of `stacks`: 32 hexadecimal digits of a SHA-256."""
    digest = hashlib.sha256()
    for stack in stacks:
        digest.update(f"{stack.dtype.str}{stack.shape}".encode())
        digest.update(np.ascontiguousarray(stack).data)
    return digest.hexdigest()[:32]


def section_digest(section: np.ndarray) -> str:
    """Digest of the pixels of one section (Y, X), however it is turned or mirrored: 32 hexadecimal digits.

    It is the smallest of eight, one for each symmetry of the square: the SHA-256 of its shape, such as `512x512`, and
    its pixels in C order, little-endian. It knows neither the section's stack nor its place there.
    """
    pixels = section.astype(section.dtype.newbyteorder("<"), copy=False)
    turned = [np.rot90(side, turns) for side in (pixels, pixels[:, ::-1]) for turns in range(4)]
    digests = []
    for each in turned:
        digest = hashlib.sha256(f"{each.shape[0]}x{each.shape[1]}".encode())
        digest.update(np.ascontiguousarray(each).data)
        digests.append(digest.hexdigest()[:32])
    return min(digests)
