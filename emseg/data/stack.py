"""Read and write stacks of sections; whatever is not a stack is refused in one sentence."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import numpy as np

from emseg.data.sections import open_sections
from emseg.errors import InputError
from emseg.files import atomic_path


def read_stack(path: str | Path, warn: Callable[[str], None] = lambda sentence: None) -> np.ndarray:
    """Read a whole stack: whatever `open_sections` opens.

    Args:
        path: of the stack.
        warn: told in a sentence what the user should know, such as a gap in the numbers of a folder's files.

    Returns:
        (Z, Y, X) with the dtype of the file: uint8, uint16, bool, float16 or float32.

    Raises:
        InputError: see `open_sections`.
    """
    with closing(open_sections(path)) as sections:
        for remark in sections.remarks:
            warn(remark)
        return sections.read_all()


def write_stack(path: str | Path, stack: np.ndarray) -> None:
    """Write a stack (Z, Y, X) as a zlib-compressed multi-page TIFF; bool is written as {0, 255}.

    The same array always gives the same bytes.

    Raises:
        InputError: `stack` is not 3-D or is empty.
    """
    import tifffile

    if stack.ndim != 3 or not stack.size:
        raise InputError(f"a stack has shape (Z, Y, X) and at least one pixel, not {stack.shape}")
    if stack.dtype == bool:
        stack = stack.astype(np.uint8) * 255
    with atomic_path(path) as temporary:
        tifffile.imwrite(
            temporary,
            stack,
            photometric="minisblack",
            compression="zlib",
            compressionargs={"level": 1},
            metadata={"axes": "ZYX"},
            bigtiff=stack.nbytes > 2**31,
            maxworkers=2,
        )


def stack_digest(*stacks: np.ndarray) -> str:
    """Digest of every pixel, the shapes and dtypes of `stacks`: 32 hexadecimal digits of a SHA-256."""
    digest = hashlib.sha256()
    for stack in stacks:
        digest.update(f"{stack.dtype.str}{stack.shape}".encode())
        digest.update(np.ascontiguousarray(stack).data)
    return digest.hexdigest()[:32]
