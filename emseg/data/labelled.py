"""A lab's folder of labelled sections: which files are images and labels, and what is in them, not yet checked."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from emseg.data.stack import read_stack
from emseg.errors import InputError

_IMAGE_NAMES = ("train-volume", "images", "image", "volume", "sections", "raw")
_LABEL_NAMES = ("train-labels", "labels", "label", "masks", "annotations")


@dataclass(frozen=True)
class Labelled:
    """Images and labels as they are in the files, each (Z, Y, X); the test stack may be missing, or its labels."""

    images: np.ndarray
    labels: np.ndarray
    test_images: np.ndarray | None = None
    test_labels: np.ndarray | None = None


def read_labelled(folder: Path, warn: Callable[[str], None] = lambda sentence: None) -> Labelled:
    """Read the stacks of a folder.

    Images are `images.tif` (or train-volume, volume, sections, raw; a folder of that name does too), labels are
    `labels.tif` (or train-labels, masks, annotations). The test stack is test-volume with test-labels.

    Args:
        folder: that holds them.
        warn: told in a sentence what the user should know, such as a gap in the numbers of the files.

    Raises:
        InputError: images or labels are missing, or a stack is damaged.
    """
    if not folder.is_dir():
        raise InputError(f"{folder} is not a folder; expected one that holds images and labels")
    test_images, test_labels = (_locate(folder, (stem,)) for stem in ("test-volume", "test-labels"))
    return Labelled(
        read_stack(_find(folder, _IMAGE_NAMES, "images"), warn),
        read_stack(_find(folder, _LABEL_NAMES, "labels")),
        read_stack(test_images, warn) if test_images else None,
        read_stack(test_labels) if test_labels else None,
    )


def _find(folder: Path, stems: tuple[str, ...], what: str) -> Path:
    found = _locate(folder, stems)
    if found is None:
        raise InputError(f"{folder} has no {what}: expected {what}.tif, or a folder {what} of single sections")
    return found


def _locate(folder: Path, stems: tuple[str, ...]) -> Path | None:
    for stem in stems:
        for candidate in (folder / f"{stem}.tif", folder / f"{stem}.tiff", folder / stem):
            if candidate.exists():
                return candidate
    return None
