"""The formats of sections, and what opens any of them."""

from __future__ import annotations

import re
from contextlib import closing
from pathlib import Path

import numpy as np

from emseg.data.io import hdf5, mrc, npy, nrrd, png, tiff, zarr
from emseg.data.io.folder import JPEG, look_into
from emseg.data.io.sections import Format, Sections
from emseg.errors import InputError

FORMATS: tuple[Format, ...] = (
    *(tiff.FORMAT, png.FORMAT, zarr.FORMAT, hdf5.FORMAT, mrc.FORMAT),
    *(nrrd.FORMAT, nrrd.DETACHED, npy.FORMAT),
)
"""A format is a module with a `FORMAT`, and a word here."""
BY_SUFFIX = {suffix: each for each in FORMATS for suffix in each.suffixes}
_OTHERS = {
    **dict.fromkeys(JPEG, "JPEG changes grey levels where contrast is high, at membranes"),
    ".bmp": "BMP is not read",
    ".zip": "archives are not read: unpack it",
    ".npz": "archives are not read: save the array in it as .npy",
}
"""Why files of other kinds are not read, where there is more to say than that."""
_CONTAINERS = "|".join(re.escape(suffix) for each in FORMATS if each.datasets for suffix in each.suffixes)
_INSIDE = re.compile(rf"(.*?(?:{_CONTAINERS})):(.+)", re.IGNORECASE)


def open_sections(path: str | Path, labels: bool = False) -> Sections:
    """Open sections and check all of them, without reading a pixel more than tells grey from colour.

    Args:
        path: a TIFF stack, a folder of sections, one image, or an array of Zarr, HDF5, MRC, NRRD or numpy. An array
            inside a file has its place behind a colon: FILE.h5:volumes/raw.
        labels: keep numbers of every integer type, and read images of two colours.

    Raises:
        InputError: missing, empty, truncated, in colour, of an unknown type or axes, larger than
            `LARGEST_SECTION`, of several arrays of which none is named, or a folder of mixed sizes or types or with
            images that are not read.
    """
    path, inner = split_place(path)
    if not path.exists():
        raise InputError(f"{path} does not exist; expected {readable_kinds()}")
    form = format_of(path)
    if path.is_dir() and form is None:
        return _open_folder(path, labels)
    if form is None or (inner and form.datasets is None):
        reason = _OTHERS.get(path.suffix.lower(), f"'{path.suffix}' files are not read" if path.suffix else "not read")
        raise InputError(f"{path}: {reason}; what is read: {readable_kinds()}. Save it as one of them, such as TIFF")
    if path.is_file() and path.stat().st_size == 0:
        raise InputError(f"{path} is empty (0 bytes); copy it again")
    if path.is_dir() != (form is zarr.FORMAT):
        raise InputError(f"{path} is a {'folder' if path.is_dir() else 'file'}, which no {form.name} is; rename it")
    return form.open(path, inner, labels)


def split_place(path: str | Path) -> tuple[Path, str]:
    """A file, and the place of an array inside it or "": FILE.h5:volumes/raw gives FILE.h5 and volumes/raw."""
    found = None if Path(path).exists() else _INSIDE.fullmatch(str(path))
    return (Path(found[1]), found[2]) if found else (Path(path), "")


def format_of(path: Path) -> Format | None:
    """The format of a file or folder, by its suffix, and of Zarr also by what lies in the folder."""
    if path.is_dir() and any((path / name).is_file() for name in zarr.HEADERS):
        return zarr.FORMAT
    return BY_SUFFIX.get(path.suffix.lower())


def readable_kinds() -> str:
    """What is read, for messages."""
    each = ", ".join(f"{form.name} ({', '.join(form.suffixes)})" for form in FORMATS)
    return f"{each}, or a folder of TIFF or PNG sections"


def _open_folder(path: Path, labels: bool) -> Sections:
    files, remarks = look_into(path)
    opened = [open_sections(file, labels) for file in files]
    first = opened[0]
    for each in opened:
        each.close()
        if len(each) != 1:
            raise InputError(f"{each.path} has {len(each)} pages; a folder of sections needs one page per file")
        if each.shape != first.shape or each.dtype != first.dtype:
            raise InputError(
                f"{each.path} is {each.shape[1]} x {each.shape[2]} {each.dtype} but {files[0].name} is "
                f"{first.shape[1]} x {first.shape[2]} {first.dtype}; a stack has one size and type"
            )
        if each.label_table != first.label_table:
            raise InputError(
                f"{each.path} has another table of colours than {files[0].name}: its numbers may mean something else; "
                "save both without a table, as numbers"
            )

    def read(z: int) -> np.ndarray:
        with closing(open_sections(files[z], labels)) as file:
            return file.read(0)

    return Sections(
        path,
        "folder",
        (len(files), *first.shape[1:]),
        first.stored,
        first.dtype,
        read,
        names=[file.name for file in files],
        metadata=first.metadata,
        remarks=remarks,
    )
