"""One version of labelled sections, from a folder: as emseg wrote it, or a lab's own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from emseg.data.datasets.card import CARD_FILE, read_card
from emseg.data.incoming import check_folder
from emseg.data.sources import PREPARED_MANIFEST, Source, read_source
from emseg.errors import InputError

_OWN_FILES = (PREPARED_MANIFEST, "cells.tif", "ignore.tif", "test-cells.tif", "test-ignore.tif")
"""Files that emseg alone writes beside images and labels."""


def read_version(folder: Path, warn: Callable[[str], None] = lambda sentence: None) -> Source:
    """Read sections that `emseg data add` or stage prepare wrote, or any folder that `emseg data check` reads.

    Args:
        folder: that holds images and labels.
        warn: told in a sentence what the user should know.

    Raises:
        InputError: images or labels are missing or damaged, or it is unclear what the labels mean.
    """
    if _is_own(folder):
        return read_source(folder, folder.name)
    incoming, report = check_folder(folder, None, None, None, warn)
    is_several = len(incoming.found) > 1
    if any(each.labels is None for each in incoming.reports) or (is_several and report.problems):
        raise InputError(f"{folder}: " + "; ".join(report.problems))
    for note in report.notes:
        warn(note)
    return incoming.joined(incoming.unnamed(folder.name, str(folder)))


def _is_own(folder: Path) -> bool:
    """Whether labels lie there as `write_source` leaves them, which are read in one way alone."""
    if any((folder / name).is_file() for name in _OWN_FILES):
        return True
    try:
        noted = read_card(folder / CARD_FILE).digests
        return bool(noted) and read_source(folder, folder.name).digest in noted
    except (OSError, InputError):
        return False
