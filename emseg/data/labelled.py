"""A lab's labelled sections: which files and arrays are images and labels, and what is in them, not yet checked."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from emseg.data.io import roles
from emseg.data.io.folder import is_note, natural, shortened
from emseg.data.io.formats import format_of, open_sections, split_place
from emseg.data.io.metadata import VoxelSize
from emseg.data.io.stack import read_stack
from emseg.errors import InputError

_ROLES = {
    "images": roles.IMAGES,
    "labels": roles.LABELS,
    "test-volume": roles.TEST_IMAGES,
    "test-labels": roles.TEST_LABELS,
}
"""What a dataset has, and how its files may be called."""
Warn = Callable[[str], None]


@dataclass(frozen=True)
class Labelled:
    """Images and labels as they are in the files, each (Z, Y, X); the test stack may be missing, or its labels.

    `voxel_size` is (z, y, x) in nm as the images say it, or else the labels; None where neither does.
    """

    images: np.ndarray
    labels: np.ndarray
    test_images: np.ndarray | None = None
    test_labels: np.ndarray | None = None
    voxel_size: VoxelSize | None = None


def read_labelled(
    folder: Path,
    warn: Warn = lambda sentence: None,
    images: str | Path | None = None,
    labels: str | Path | None = None,
) -> Labelled:
    """Read the stacks of a folder.

    Images are `images` in any format, as a file or a folder of single sections (or train-volume, volume, sections,
    raw); labels are `labels` (or train-labels, masks, membranes, annotations, gt). The test stack is test-volume with
    test-labels. An HDF5 or Zarr file may hold both.

    Args:
        folder: that holds them; or an HDF5 file or Zarr group with both.
        warn: told in a sentence what the user should know, such as a gap in the numbers of the files.
        images: the file or folder of the images, in `folder` or elsewhere, where its name does not say so.
        labels: of the labels, likewise.

    Raises:
        InputError: images or labels are missing, or several may be meant; or a stack is damaged.
    """
    if not folder.exists():
        raise InputError(f"{folder} does not exist; expected a folder that holds images and labels")
    found = _Found(folder)
    places = (
        _given(folder, images) or found.one("images"),
        _given(folder, labels) or found.one("labels"),
        found.at_most_one("test-volume"),
        found.at_most_one("test-labels"),
    )
    for remark in found.left_aside([place for place in places if place]):
        warn(remark)
    return read_parts(*places, warn)


def stack_folders(folder: Path, images: str | Path | None = None, labels: str | Path | None = None) -> list[Path]:
    """The folders in `folder` that each hold a stack with its labels; none where `folder` itself holds one.

    `images` and `labels` are what the user says of their places, see `read_labelled`.

    Raises:
        InputError: a test stack lies beside such folders.
    """
    places = [place for place in (images, labels) if place is not None]

    def holds(entry: Path, elsewhere: bool) -> bool:
        if any((elsewhere and split_place(place)[0].exists()) or _is_inside(entry, place) for place in places):
            return True
        return any(role in ("images", "labels") for each in entry.iterdir() for role, _ in _roles_of(each))

    if not folder.is_dir() or format_of(folder) is not None or holds(folder, elsewhere=True):
        return []
    entries = sorted((entry for entry in folder.iterdir() if not is_note(entry)), key=lambda entry: natural(entry.name))
    found = [
        entry for entry in entries if entry.is_dir() and format_of(entry) is None and holds(entry, elsewhere=False)
    ]
    tested = [entry.name for entry in entries if _roles_of(entry)]
    if found and tested:
        raise InputError(
            f"{folder}: {shortened(tested)} lies beside folders of stacks; move it into the folder of one of them"
        )
    return found


def read_parts(
    images: str | Path,
    labels: str | Path,
    test_images: str | Path | None = None,
    test_labels: str | Path | None = None,
    warn: Warn = lambda sentence: None,
) -> Labelled:
    """Read stacks from where they are.

    Raises:
        InputError: one is damaged.
    """
    train, train_labels = _read_pair(str(images), str(labels), warn)
    test, tested = _read_pair(
        str(test_images) if test_images else None, str(test_labels) if test_labels else None, warn
    )
    assert train is not None
    assert train_labels is not None
    voxel_size = _voxel_size(str(images), False) or _voxel_size(str(labels), True)
    return Labelled(train, train_labels, test, tested, voxel_size)


def _read_pair(images: str | None, labels: str | None, warn: Warn) -> tuple[np.ndarray | None, np.ndarray | None]:
    """Images with their labels; what is to be said of both is said once."""
    said: set[str] = set()

    def once(place: str, sentence: str) -> None:
        if (about := sentence.removeprefix(place)) not in said:
            warn(sentence)
        said.add(about)

    return (
        None if images is None else read_stack(images, lambda sentence: once(images, sentence)),
        None if labels is None else read_stack(labels, lambda sentence: once(labels, sentence), labels=True),
    )


class _Found:
    """Files of a folder by what their names say they are."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        is_one = folder.is_file() or format_of(folder) is not None
        entries = [folder] if is_one else sorted(entry for entry in folder.iterdir() if not is_note(entry))
        self._entries = entries
        self._places: dict[str, list[str]] = {role: [] for role in _ROLES}
        for entry in entries:
            for role, place in _roles_of(entry):
                self._places[role].append(place)

    def one(self, role: str) -> str:
        place = self.at_most_one(role)
        if place is None:
            there = shortened([entry.name for entry in self._entries]) or "nothing"
            raise InputError(
                f"{self._folder} has no {role}; there is {there}. Name a file, or a folder of single sections, "
                f"{', '.join(_ROLES[role])}; or say which it is with --{role}"
            )
        return place

    def at_most_one(self, role: str) -> str | None:
        places = self._places[role]
        if len(places) > 1:
            option = f", or say which with --{role}" if role in ("images", "labels") else ""
            raise InputError(
                f"{self._folder}: {' and '.join(map(_name, places))} may both be the {role}; "
                f"move all but one out of the folder{option}"
            )
        return places[0] if places else None

    def left_aside(self, used: list[str]) -> list[str]:
        """A sentence about files that are none of the stacks."""
        unused = [
            entry.name
            for entry in self._entries
            if not any(place == str(entry) or place.startswith((f"{entry}:", f"{entry}/")) for place in used)
        ]
        return [f"{self._folder}: left aside, as neither images nor labels: {shortened(unused)}"] if unused else []


def _roles_of(entry: Path) -> list[tuple[str, str]]:
    """What a file or folder holds, by its name; or what the arrays in it are, by theirs."""
    form = format_of(entry)
    if form is None and not entry.is_dir():
        return []
    if form is not None and form.datasets is not None:
        names = form.datasets(entry)
        images, labels = (roles.find(names, labels) for labels in (False, True))
        if images and labels and images != labels:
            return [("images", f"{entry}:{images}"), ("labels", f"{entry}:{labels}")]
    stem = entry.name if form is None else entry.name[: -len(entry.suffix)]
    # images.ome.tif, images.ome.zarr
    stem = roles.plain_name(stem).removesuffix(".ome")
    return [(role, str(entry)) for role, names in _ROLES.items() if stem in names]


def _given(folder: Path, place: str | Path | None) -> str | None:
    """A place as the user gave it: in the folder, or as it stands."""
    if place is None:
        return None
    return str(folder / place if _is_inside(folder, place) else place)


def _is_inside(folder: Path, place: str | Path) -> bool:
    return split_place(folder / place)[0].exists()


def _name(place: str) -> str:
    return Path(place).name


def _voxel_size(place: str, labels: bool) -> VoxelSize | None:
    with closing(open_sections(place, labels)) as sections:
        return sections.metadata.voxel_size
