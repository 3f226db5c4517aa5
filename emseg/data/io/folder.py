"""What lies in a folder of single sections: which files are sections, in which order, and what is not read."""

from __future__ import annotations

import re
from itertools import pairwise
from pathlib import Path

from emseg.errors import InputError

SECTION_SUFFIXES = (".tif", ".tiff", ".png")
_OTHER_IMAGES = (
    "avif bmp btf czi dcm dm3 dm4 dng emi exr gif gz h5 hdf hdf5 heic img ims j2k jfif jp2 jpe jpeg jpf jpg jpx jxl "
    "jxr klb lif lsm mha mhd mrc mrcs n5 nd2 nhdr nii npy npz nrrd oib oif pbm pcx pgm pnm ppm psd raw rec ser spi st "
    "stk svs tf2 tf8 tga vsi wdp webp xcf zarr zip"
)
"""Suffixes of images, or of what may hold some, that are not read: a section must not vanish."""
JPEG = (".jpg", ".jpeg", ".jpe", ".jfif")
_NOTES = "csv dvc htm html ijm ini json log m md md5 pdf properties py rst sha1 sha256 toml tsv txt xml yaml yml"
"""Suffixes of what people and programs write beside sections: left aside without a word."""
_LITTER = ("thumbs.db", "desktop.ini")


def look_into(folder: Path) -> tuple[list[Path], list[str]]:
    """Section files of a folder in name order, numbers compared as numbers (2 before 10).

    Returns:
        The files; and a sentence for each thing that the user should know: what was left aside, gaps in the numbers.

    Raises:
        InputError: no section is there, or an image that is not read.
    """
    files, unknown = [], []
    for entry in sorted(folder.iterdir(), key=lambda entry: natural(entry.name)):
        suffix = entry.suffix.lower()
        if is_note(entry):
            continue
        if suffix[1:] in _OTHER_IMAGES.split():
            lossy = ", and JPEG changes grey levels at membranes" if suffix in JPEG else ""
            raise InputError(
                f"{entry} is not read: sections are .tif, .tiff or .png{lossy}; save it as one, or move it out of the "
                "folder"
            )
        if suffix in SECTION_SUFFIXES:
            files.append(entry)
        else:
            unknown.append(entry.name)
    if not files:
        raise InputError(f"{folder} holds no .tif, .tiff or .png sections")
    remarks = []
    if unknown:
        remarks.append(f"{folder}: left aside, as no section: {shortened(unknown)}")
    return files, remarks + _gaps(folder, files)


def is_note(entry: Path) -> bool:
    """Whether a file is what people and programs write beside sections."""
    is_hidden = entry.name.startswith(".") or entry.name.lower() in _LITTER
    return is_hidden or (entry.is_file() and entry.suffix.lower()[1:] in _NOTES.split())


def shortened(names: list[str]) -> str:
    """The first three of names."""
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def natural(name: str) -> list[tuple[int, int, str]]:
    """What names are sorted by so that numbers in them are compared as numbers (2 before 10)."""
    # isdecimal, not isdigit: a superscript is a digit, and no number.
    return [(0, int(part), "") if part.isdecimal() else (1, 0, part) for part in re.split(r"(\d+)", name) if part]


def _gaps(folder: Path, files: list[Path]) -> list[str]:
    """Where the one number that counts the files jumps, while elsewhere it goes up by one."""
    numbers = [[int(part) for part in re.findall(r"\d+", file.stem)] for file in files]
    texts = {re.sub(r"\d+", "#", file.stem) for file in files}
    if len(texts) > 1:
        return []
    counting = [place for place in zip(*numbers, strict=True) if len(set(place)) > 1]
    if len(counting) != 1:
        return []
    steps = [after - before for before, after in pairwise(counting[0])]
    if 1 not in steps:
        return []
    return [
        f"{folder}: no section between {files[z].name} and {files[z + 1].name}; they are taken to be neighbours"
        for z, step in enumerate(steps)
        if step > 1
    ][:3]
