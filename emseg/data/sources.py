"""Labelled sections in data/sources: datasets that have a card, the synthetic ones, a lab's own folder."""

from __future__ import annotations

import json
import os
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, get_args

import numpy as np

from emseg.data.cell_numbers import number_parts
from emseg.data.datasets.card import CARD_FILE, OWN_SECTIONS, Card, Noted, Provenance, Stack, read_card, write_card
from emseg.data.datasets.known import SYNTHETIC, how_to_add, recognise
from emseg.data.io.stack import read_stack, section_digest, stack_digest, write_stack
from emseg.data.labelled import Labelled, read_labelled
from emseg.data.labels import Labels, as_interior
from emseg.data.synthetic import make_synthetic
from emseg.errors import InputError
from emseg.files import put_back
from emseg.settings import LabelsAs

SOURCES_FOLDER = Path("data/sources")
PREPARED_FOLDER, PREPARED_MANIFEST = Path("data/prepared"), "prepared.json"
"""What the pipeline made of a source."""
_MEANINGS = ("cells", "ignore", "test_cells", "test_ignore")
SOURCE_FILES = (
    *("images.tif", "labels.tif", "test-volume.tif", "test-labels.tif"),
    *("cells.tif", "ignore.tif", "test-cells.tif", "test-ignore.tif"),
    CARD_FILE,
)
"""What `write_source` writes."""
_LONGEST_NAME = 100


@dataclass(frozen=True)
class Source:
    """Labelled sections: training stacks one after the other and, where there is one, a test stack.

    `images` and `test_images` are uint8 or uint16 (Z, Y, X); `labels` and `test_labels` are bool, True for cell
    interior. The test arrays have no sections where the source has none. `cells` and `test_cells` are uint32, the
    number of each cell, 0 on membrane; `ignore` and `test_ignore` are bool, True where pixels neither train nor score.
    `own_card` is the one that lies beside them. `stacks` are the names of several stacks and how many sections each
    has, in their order along Z; it is empty where all sections are of one.
    """

    name: str
    images: np.ndarray
    labels: np.ndarray
    test_images: np.ndarray
    test_labels: np.ndarray
    cells: np.ndarray | None = None
    ignore: np.ndarray | None = None
    test_cells: np.ndarray | None = None
    test_ignore: np.ndarray | None = None
    own_card: Card | None = None
    stacks: dict[str, int] = field(default_factory=dict)

    @property
    def lengths(self) -> list[int]:
        """How many sections each training stack has."""
        return list(self.stacks.values()) or [len(self.images)]

    @property
    def places(self) -> np.ndarray:
        """Where the training sections are along z, (Z,): consecutive in a stack, with a gap between stacks."""
        return np.arange(len(self.images)) + np.repeat(np.arange(len(self.lengths)), self.lengths)

    @property
    def digest(self) -> str:
        """Digest of every pixel and label, and of where stacks end, 32 hexadecimal digits."""
        stacks = [self.images, self.labels, self.test_images, self.test_labels]
        more = [self.cells, self.ignore, self.test_cells, self.test_ignore]
        if any(stack is not None for stack in more):
            stacks += [np.empty(0, bool) if stack is None else stack for stack in more]
        if self.stacks:
            stacks.append(np.array(self.lengths, "<i8"))
        return stack_digest(*stacks)

    @cached_property
    def section_digests(self) -> list[str]:
        """`section_digest` of the images of the training stacks."""
        return [section_digest(image) for image in self.images]

    @cached_property
    def test_section_digests(self) -> list[str]:
        """`section_digest` of the images of the test stack."""
        return [section_digest(image) for image in self.test_images]

    @cached_property
    def known_card(self) -> Card | None:
        """The card of the dataset that the pixels are of, whatever the source is called; None: no known one."""
        return recognise(self.images, self.labels, self.test_images, self.digest)

    @cached_property
    def card(self) -> Card | None:
        """What is known of the sections; a card that lies beside others than its own is not theirs."""
        own = self.own_card
        if own and own.digests and self.digest not in own.digests:
            own = None
        return self.known_card or own

    @property
    def voxel_size_nm(self) -> tuple[float, float, float] | None:
        """Nanometres (z, y, x), where they are known."""
        if self.card is None or self.card.voxel_size_nm is None:
            return None
        z, y, x = self.card.voxel_size_nm
        return z, y, x

    @property
    def noted(self) -> Noted | None:
        """What the record of a run notes of the sections; None where nothing is known."""
        if self.card is None:
            return None
        known = {key: getattr(self.card, key) for key in Provenance.model_fields}
        return Noted(**known, recognised=self.known_card.name if self.known_card else None)


def load_source(name: str, folder: str | Path = SOURCES_FOLDER, labels: LabelsAs | None = None) -> Source:
    """Load what `emseg data add NAME` brought in; `synthetic` needs no adding.

    Where it was not brought in but the pipeline's data/prepared is of it, such as after `dvc pull`, that is loaded.

    Args:
        name: of the source.
        folder: where sources live.
        labels: how cells count: by number, or as connected parts of the interior; None: as they were brought in.

    Raises:
        InputError: nothing of that name was added, or its files are damaged; or its cells have no numbers.
    """
    source = _found_source(name, folder)
    if labels == "interior" and source.cells is not None:
        return replace(source, cells=None, test_cells=None, own_card=_of_any_digest(source.own_card))
    if labels == "cells" and source.cells is None:
        if source.known_card is None or source.known_card.name != SYNTHETIC:
            raise InputError(
                f"the cells of {name} have no numbers, which data.labels asks for; bring them in with --cells, or set "
                "data.labels to null"
            )
        numbers = make_synthetic(by_number=True)[2]
        return replace(source, cells=number_parts(numbers)[0], own_card=_of_any_digest(source.own_card))
    return source


def load_source_of(name: str, digest: str, folder: str | Path = SOURCES_FOLDER) -> Source:
    """The source, its cells counted such that it has a digest; as it was brought in, if it has it in no way.

    Raises:
        InputError: nothing of that name was added, or its files are damaged.
    """
    given = load_source(name, folder)
    if given.digest == digest:
        return given
    for labels in get_args(LabelsAs):
        with suppress(InputError):
            if (other := load_source(name, folder, labels)).digest == digest:
                return other
    return given


def _of_any_digest(card: Card | None) -> Card | None:
    """A card for sections whose cells count in another way, which gives them another digest."""
    if card is None:
        return None
    stacks = [stack.model_copy(update={"data_digests": []}) for stack in card.stacks]
    return card.model_copy(update={"stacks": stacks, "data_digests": []})


def _found_source(name: str, folder: str | Path) -> Source:
    location = Path(folder) / name
    put_back(location)
    if location.is_dir() and not is_placeholder(location):
        return read_source(location, name)
    if name == SYNTHETIC:
        images, labels = make_synthetic()
        return source_of(name, Labelled(images, labels))
    if prepared := _prepared_source(name, Path(folder).parent / PREPARED_FOLDER.name):
        return prepared
    there = f"there are {', '.join(sources)}; " if (sources := list_sources(folder)) else ""
    raise InputError(f"no source named {name} in {folder}; {there}bring it in with `{how_to_add(name)}`")


def list_sources(folder: str | Path = SOURCES_FOLDER) -> list[str]:
    """The names of what was added."""
    return sorted(place.name for place in Path(folder).glob("*") if place.is_dir() and not place.name.startswith("."))


def is_placeholder(location: Path) -> bool:
    """Whether git keeps the folder of a source only so that DVC has something to depend on: synthetic is generated."""
    return location.name == "synthetic" and all(file.name == ".gitkeep" for file in location.iterdir())


def _prepared_source(name: str, folder: Path) -> Source | None:
    """What stage prepare wrote, if it is of this source.

    Raises:
        InputError: it is, and is damaged.
    """
    try:
        manifest = json.loads((folder / PREPARED_MANIFEST).read_text(encoding="utf-8"))
        source, digest = manifest["source"], manifest["digest"]
    except (OSError, ValueError, LookupError, TypeError):
        return None
    if source != name:
        return None
    found = read_source(folder, name)
    if found.digest != digest:
        raise InputError(
            f"{folder} is damaged: its sections do not have the digest in {PREPARED_MANIFEST}; pull it again"
        )
    return found


def read_source(folder: Path, name: str) -> Source:
    """Read a folder that holds images and labels, and perhaps a test stack and a card; see `read_labelled`.

    Raises:
        InputError: images or labels are missing, damaged, or differ in number or size; or the card is not one, or
            speaks of other stacks.
    """
    source = source_of(name, read_labelled(folder), where=str(folder))
    stored: dict[str, Any] = {
        part: read_stack(file, labels=True)
        for part in _MEANINGS
        if (file := folder / f"{part.replace('_', '-')}.tif").is_file()
    }
    stored = {part: stack > 0 if part.endswith("ignore") else stack for part, stack in stored.items()}
    card = read_card(folder / CARD_FILE) if (folder / CARD_FILE).is_file() else None
    return replace(source, **stored, own_card=card, stacks=card.lengths_of(source.images, folder) if card else {})


def require_source_name(name: str) -> None:
    """Refuse what cannot name a source, and so a folder.

    Raises:
        InputError: it is empty, too long, or holds other characters than a name may.
    """
    if not name or name.startswith(".") or any(not (c.isalnum() or c in "-_.") for c in name):
        raise InputError(f"'{name}' cannot name a source; use letters, digits, '-', '_' and '.'")
    if len(os.fsencode(name)) > _LONGEST_NAME:
        raise InputError(f"{name[:20]}... is longer than {_LONGEST_NAME} bytes; choose a shorter name")


def write_source(folder: Path, source: Source) -> None:
    """Write the stacks of a source into a folder, as `read_source` finds them, with the card beside them."""
    stacks = {
        "images.tif": source.images,
        "labels.tif": source.labels,
        "test-volume.tif": source.test_images,
        "test-labels.tif": source.test_labels,
        **{f"{part.replace('_', '-')}.tif": getattr(source, part) for part in _MEANINGS},
    }
    for file, stack in stacks.items():
        if stack is not None and len(stack):
            write_stack(folder / file, stack)
    card = source.own_card
    if card is None and source.stacks:
        # Where stacks end is said nowhere else.
        named = [Stack(name=name, size=[length, *source.images.shape[1:]]) for name, length in source.stacks.items()]
        card = Card(name=source.name, title=OWN_SECTIONS, stacks=named)
    if card:
        write_card(folder / CARD_FILE, card)


def source_of(
    name: str, found: Labelled, training: Labels | None = None, test: Labels | None = None, where: str = ""
) -> Source:
    """Sections as their files have them, with labels that say what they mean.

    Args:
        name: of the source.
        found: what is in the files.
        training, test: what the labels mean; None: masks, 0 on membrane and 1 or 255 in cells.
        where: what to call the files in messages; by default `name`.

    Raises:
        InputError: images and labels differ in number or size, or are of a type or of values that are not read.
    """
    where = where or name
    _require_pairs(found, where)
    none = found.images[:0]
    tested = none if found.test_labels is None else found.test_labels
    training = training or Labels(as_interior(found.labels, f"{where}: labels"))
    test = test or Labels(as_interior(tested, f"{where}: test-labels"))
    return Source(
        name,
        found.images,
        training.interior,
        none if found.test_images is None else found.test_images,
        test.interior,
        training.cells,
        training.ignore,
        test.cells,
        test.ignore,
    )


def _require_pairs(found: Labelled, where: str) -> None:
    pairs = [("images", found.images, "labels", found.labels)]
    if found.test_images is not None and found.test_labels is not None and len(found.test_labels):
        pairs.append(("test-volume", found.test_images, "test-labels", found.test_labels))
    for image_name, image, label_name, label in pairs:
        if len(image) != len(label):
            raise InputError(
                f"{where}: {len(image)} sections in {image_name} but {len(label)} in {label_name}; "
                "every section needs its label"
            )
        if image.shape != label.shape:
            raise InputError(
                f"{where}: {image_name} are {image.shape[1]} x {image.shape[2]} pixels but {label_name} are "
                f"{label.shape[1]} x {label.shape[2]}"
            )
    for image_name, images in (("images", found.images), ("test-volume", found.test_images)):
        if images is not None and images.dtype not in (np.uint8, np.uint16):
            raise InputError(f"{where}: {image_name} are {images.dtype}; expected 8-bit or 16-bit grey levels")
