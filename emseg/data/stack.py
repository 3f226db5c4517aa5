"""Read and write stacks of sections; whatever is not a stack is refused in one sentence."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np

from emseg.errors import InputError
from emseg.files import atomic_path

SECTION_SUFFIXES = (".tif", ".tiff", ".png")


def read_stack(path: str | Path) -> np.ndarray:
    """Read a multi-page TIFF, or a folder of single-page TIFF or PNG files in name order.

    Returns an array (Z, Y, X) with the dtype of the file: uint8, uint16, bool or float32.

    Raises:
        InputError: the path is missing or empty, a file is truncated, unreadable, in colour, of another
            dtype, or the sections of a folder differ in size or dtype.
    """
    path = Path(path)
    if not path.exists():
        raise InputError(f"{path} does not exist; expected a TIFF stack or a folder of TIFF or PNG sections")
    if not path.is_dir():
        return _as_stack(_read_file(path), path)
    files = section_files(path)
    if not files:
        raise InputError(f"{path} holds no .tif, .tiff or .png sections")
    sections: list[np.ndarray] = []
    for file in files:
        pages = _as_stack(_read_file(file), file)
        if len(pages) != 1:
            raise InputError(f"{file} has {len(pages)} pages; a folder of sections needs one page per file")
        if sections and pages[0].shape != sections[0].shape:
            raise InputError(
                f"{file} is {_size(pages[0])} pixels but {files[0].name} is {_size(sections[0])}; "
                "all sections of a stack must have one size"
            )
        if sections and pages.dtype != sections[0].dtype:
            raise InputError(f"{file} is {pages.dtype} but {files[0].name} is {sections[0].dtype}; use one dtype")
        sections.append(pages[0])
    return np.stack(sections)


def section_files(folder: Path) -> list[Path]:
    """Section files of a folder in name order, numbers compared as numbers (2 before 10)."""
    import re

    def natural(file: Path) -> list[tuple[int, int | str]]:
        return [(0, int(part)) if part.isdigit() else (1, part) for part in re.split(r"(\d+)", file.name) if part]

    return sorted(
        (f for f in folder.iterdir() if f.suffix.lower() in SECTION_SUFFIXES and not f.name.startswith(".")),
        key=natural,
    )


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


def _read_file(path: Path) -> np.ndarray:
    if path.suffix.lower() not in SECTION_SUFFIXES:
        raise InputError(f"{path} is not a TIFF or PNG file; use .tif, .tiff or .png")
    if path.stat().st_size == 0:
        raise InputError(f"{path} is empty (0 bytes); copy it again")
    try:
        if path.suffix.lower() == ".png":
            from skimage.io import imread

            return np.asarray(imread(path))
        import tifffile

        with tifffile.TiffFile(path) as tiff:
            pages = list(tiff.pages)
            if any(page.samplesperpixel > 1 for page in pages):
                raise InputError(f"{path} is in colour; expected grey-level sections, one channel")
            if len({page.shape for page in pages}) > 1:
                raise InputError(f"{path} has pages of different sizes; all sections must have one size")
            if tiff.is_imagej or len(tiff.series) == 1:
                return np.asarray(tiff.asarray())
            return np.stack([page.asarray() for page in pages])
    except InputError:
        raise
    # Decoders raise whatever they like on damaged files; each of those means the same to the user.
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise InputError(f"{path} is truncated or not readable ({reason[:120]}); copy it again") from error


def _as_stack(array: np.ndarray, path: Path) -> np.ndarray:
    if array.ndim == 2:
        array = array[None]
    if array.ndim != 3 or (array.shape[-1] in (3, 4) and path.suffix.lower() == ".png"):
        raise InputError(f"{path} has shape {array.shape}; expected grey-level sections (Y, X) or (Z, Y, X)")
    if array.dtype not in (np.uint8, np.uint16, np.bool_, np.float16, np.float32):
        raise InputError(f"{path} is {array.dtype}; expected 8-bit or 16-bit grey levels")
    return array


def _size(section: np.ndarray) -> str:
    return " x ".join(map(str, section.shape))
