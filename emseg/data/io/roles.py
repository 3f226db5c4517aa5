"""What files, folders and arrays inside files are called, where they hold images or labels."""

from __future__ import annotations

import re

from emseg.errors import InputError

IMAGES = (
    *("images", "image", "train-volume", "train-images", "train-image", "train-raw", "volume", "sections", "raw"),
    "em",
)
LABELS = (
    *("labels", "label", "train-labels", "train-label", "train-masks", "annotations", "annotation", "masks", "mask"),
    *("membranes", "membrane", "gt", "ground-truth", "groundtruth", "segmentation", "seg", "neuron-ids"),
)
TEST_IMAGES = ("test-volume", "test-images", "test-image", "test-raw", "test-sections")
TEST_LABELS = ("test-labels", "test-label", "test-masks", "test-gt", "test-membranes", "test-annotations")
_ARRAYS = {
    False: ("volumes/raw", "raw", "exported-data", "data", "volume", "main", "images", "image", "em"),
    True: (
        "volumes/labels/neuron-ids", "labels/neuron-ids", "neuron-ids", "exported-data", "labels", "label",
        "segmentation", "seg", "gt", "ground-truth", "masks", "mask", "membranes",
    ),
}  # fmt: skip
"""By whether labels are wanted: arrays inside a file, the surest first; they may lie in folders."""


def plain_name(name: str) -> str:
    """A name as it is compared: lower case, hyphens between words."""
    return re.sub(r"[ _]+", "-", name.strip().lower())


def find(names: list[str], labels: bool) -> str | None:
    """The array among `names` whose name says that it holds images, or labels; None: no name says so."""
    for wanted in _ARRAYS[labels]:
        found = [name for name in names if f"/{plain_name(name)}".endswith(f"/{wanted}")]
        if len(found) == 1:
            return found[0]
        if found:
            return None
    return None


def choose(where: str, names: list[str], labels: bool) -> str:
    """The array to read of those in a file: the only one, or that whose name says so.

    Raises:
        InputError: there is none, or several that may be meant.
    """
    if not names:
        raise InputError(f"{where} holds no array with rows and columns")
    chosen = names[0] if len(names) == 1 else find(names, labels)
    if chosen is None:
        shown = ", ".join(names[:8]) + (", ..." if len(names) > 8 else "")
        raise InputError(f"{where} holds {len(names)} arrays ({shown}); say which, such as {where}:{names[0]}")
    return chosen
