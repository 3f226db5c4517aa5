"""Bring labelled sections in: found, read as their card or the user says, checked, and written whole."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from emseg.data.check import Report, check_stacks, require_sound
from emseg.data.datasets.card import CARD_FILE, Card, Stack, read_card
from emseg.data.datasets.download import Progress
from emseg.data.datasets.known import SYNTHETIC, differing_pixels, find_stack, known_cards
from emseg.data.datasets.obtain import Obtained, obtain
from emseg.data.labelled import Labelled, read_labelled
from emseg.data.labels import LabelReading
from emseg.data.sources import (
    SOURCE_FILES,
    SOURCES_FOLDER,
    Source,
    is_placeholder,
    read_source,
    require_source_name,
    source_of,
    write_source,
)
from emseg.data.synthetic import make_synthetic
from emseg.errors import InputError
from emseg.files import atomic_folder, hold, require_own

_DOWNLOADS = ".downloads"


@dataclass(frozen=True)
class Given:
    """What a user says of sections that are brought in.

    Attributes:
        card: of the dataset, the lab's own; None: that of a known one, or card.yaml beside the sections.
        reading: how labels are to be read; None: as the card says, else it is found out.
        images, labels: the file or folder of each, where their names do not say so.
    """

    card: Card | None = None
    reading: LabelReading | None = None
    images: str | None = None
    labels_at: str | None = None

    @property
    def labels(self) -> dict[str, Any]:
        """What it changes of a card."""
        return {"labels": self.reading} if self.reading else {}

    @property
    def places(self) -> dict[str, Any]:
        """What it changes of a stack of a card."""
        return {"images": self.images, "labels": self.labels_at} if self.images or self.labels_at else {}


def add_source(
    name: str,
    origin: Path | None,
    folder: Path = SOURCES_FOLDER,
    progress: Progress | None = None,
    warn: Callable[[str], None] = lambda sentence: None,
    overwrite: bool = False,
    given: Given | None = None,
) -> Path:
    """Bring a source in: check it, then write it to `folder`/`name`, whole or not at all.

    Args:
        name: of a dataset that has a card, or the name to give to a lab's own sections.
        origin: the folder, archive or HDF5 file to take them from; None downloads, or draws synthetic.
        folder: where sources live.
        progress: called with bytes done and bytes in all while downloading.
        warn: told in a sentence what the user should know.
        overwrite: replace other sections of that name.
        given: what the user says of the sections.

    Returns:
        The folder that now holds images.tif, labels.tif and card.yaml.

    Raises:
        InputError: the sections are missing, damaged, not those of the card, or do not pass `check_stacks`; or they
            cannot be written.
        RunError: the disk is full.
    """
    require_source_name(name)
    given = given or Given()
    if name == SYNTHETIC and (origin is not None or given != Given()):
        raise InputError(f"{SYNTHETIC} names the sections that emseg generates; give your own another name")
    target = folder / name
    if name == SYNTHETIC:
        source = source_of(name, Labelled(*make_synthetic()))
        source = replace(source, own_card=_kept(known_cards()[name], Stack(), source, []))
    else:
        card, stack = _card_for(name, origin, given)
        if origin is None and not overwrite and _is_here(target, card):
            return target
        obtained = obtain(card, stack, origin, folder / _DOWNLOADS / name, progress, warn)
        found = obtained.found
        report = _checked(found, _reading(card, found))
        require_sound(report, str(origin or name))
        for note in report.notes:
            warn(note)
        source = source_of(name, found, report.labels, report.test_labels, str(origin or name))
        _require_the_cards(source, card, stack)
        card = _card_of(source, card, stack, obtained, warn)
        drawn = [labels.membrane_width for labels in (report.labels, report.test_labels) if labels]
        card = card.model_copy(update={"drawn_membrane_pixels": next(filter(None, drawn), None)})
        if report.notes:
            notes = [*([card.note] if card.note else []), *map(_ended, report.notes)]
            card = card.model_copy(update={"note": " ".join(notes)})
        source = replace(source, own_card=card)
    with _held(target):
        if target.is_dir() and not overwrite and not is_placeholder(target):
            _require_same(target, source)
        with atomic_folder(target, (*SOURCE_FILES, ".gitkeep")) as temporary:
            write_source(temporary, source)
            if (target / ".gitkeep").exists():
                (temporary / ".gitkeep").touch()
    return target


def check_folder(
    folder: Path,
    reading: LabelReading | None,
    images: str | None,
    labels: str | None,
    warn: Callable[[str], None],
) -> tuple[Labelled, Report]:
    """What `add_source` would find in a folder, how it would read the labels, and what is wrong.

    Args:
        folder: that holds images and labels.
        reading: how labels are to be read; None: as a card in the folder says, else it is found out.
        images, labels: the file or folder of each, where their names do not say so.
        warn: told in a sentence what the user should know.

    Raises:
        InputError: images or labels are missing or damaged.
    """
    found = read_labelled(folder, warn, images, labels)
    card, _ = _card_for("sections", folder, Given(reading=reading))
    return found, _checked(found, _reading(card, found))


def _checked(found: Labelled, reading: LabelReading) -> Report:
    return check_stacks(found.images, found.labels, found.test_images, found.test_labels, reading)


def _reading(card: Card, found: Labelled) -> LabelReading:
    """How labels are read, with the size of a pixel where files or card say it."""
    voxel = found.voxel_size or card.voxel_size_nm
    return card.labels.model_copy(update={"pixel_nm": float(voxel[-1])}) if voxel else card.labels


def _ended(sentence: str) -> str:
    return sentence if sentence.endswith(".") else f"{sentence}."


def _card_for(name: str, origin: Path | None, given: Given) -> tuple[Card, Stack]:
    """The card that says how to read what is added, and the stack of it."""
    card, stack = _card_of_name(name, origin, given.card)
    return card.model_copy(update=given.labels), stack.model_copy(update=given.places)


def _card_of_name(name: str, origin: Path | None, card: Card | None) -> tuple[Card, Stack]:
    if found := find_stack(name, card):
        return found
    if origin is None:
        raise InputError(f"{name} is not a dataset with a card ({', '.join(known_cards())}); say --from FOLDER")
    if not (origin / CARD_FILE).is_file():
        return Card(name=name, title="a lab's own sections"), Stack()
    card = read_card(origin / CARD_FILE).model_copy(update={"name": name})
    if found := find_stack(name, card):
        return found
    raise InputError(f"{origin / CARD_FILE} speaks of several stacks; bring in one folder of sections for each")


def _is_here(folder: Path, card: Card) -> bool:
    try:
        source = read_source(folder, folder.name) if folder.is_dir() else None
    except InputError:
        return False
    return source is not None and source.card is not None and source.card.name == card.name


def _require_the_cards(source: Source, card: Card, stack: Stack) -> None:
    """Refuse sections that are not those that the card speaks of."""
    if stack.pixels:
        different = differing_pixels(stack, source.images, source.labels, source.test_images)
        if different:
            raise InputError(
                f"the pixels of {different} are not those of the {card.title}; fetch them again, or give your own "
                "sections another name"
            )
    elif stack.data_digests and source.digest not in stack.data_digests:
        raise InputError(
            f"the sections have digest {source.digest}, not one that the card of {card.name} names; "
            f"correct the card, or take data_digests out of it"
        )
    for images, size in ((source.images, stack.size), (source.test_images, stack.test_size)):
        if size and len(images) and list(images.shape) != size:
            shown, right = (" x ".join(map(str, shape)) for shape in (images.shape, size))
            raise InputError(f"the sections of {source.name} are {shown}, but its card says {right}; correct either")


def _card_of(source: Source, card: Card, stack: Stack, obtained: Obtained, warn: Callable[[str], None]) -> Card:
    """The card to lay beside sections that were added."""
    if (known := source.known_card) and known.name != card.name:
        warn(f"these are the sections of {known.name}: {known.title}; its licence and citations hold for them")
        card = known
    in_files = obtained.found.voxel_size
    if card.voxel_size_nm is None and in_files:
        card = card.model_copy(update={"voxel_size_nm": list(in_files)})
    elif in_files and card.voxel_size_nm and not np.allclose(in_files, card.voxel_size_nm, rtol=0.01):
        said, found = (" x ".join(f"{part:g}" for part in size) for size in (card.voxel_size_nm, in_files))
        warn(f"the files say that a voxel is {found} nm, the card {said} nm; the card counts")
    if card.name in known_cards() and not known and not obtained.are_files_known:
        note = f"nothing shows that these are the sections of {card.name}: their pixels are not known to emseg"
        warn(note)
        card = card.model_copy(update={"note": note})
    return _kept(card, stack, source, obtained.origins)


def _kept(card: Card, stack: Stack, source: Source, origins: list[Any]) -> Card:
    """A card that speaks of the sections as `write_source` writes them, and of no others."""
    tested = list(source.test_images.shape) if len(source.test_images) else None
    alone = Stack(name=stack.name, size=list(source.images.shape), test_size=tested, data_digests=[source.digest])
    left = {"labels", "stacks", "fetched", "origins"}
    if card.name in known_cards():
        # They hold where the pixels are recognised, and come from the card that is recognised then.
        left |= {"published", "reference"}
    entries = {key: getattr(card, key) for key in Card.model_fields if key not in left}
    return Card(**entries, stacks=[alone], origins=origins or card.origins)


def _require_same(folder: Path, source: Source) -> None:
    """Refuse to replace other sections, from which runs may have been trained."""
    require_own(folder, (*SOURCE_FILES, ".gitkeep"))
    try:
        known = read_source(folder, source.name).digest
    except InputError:
        known = "damaged"
    if known != source.digest:
        raise InputError(
            f"{folder} holds other sections (digest {known[:8]}, the new ones have {source.digest[:8]}); "
            "choose another name, or give --overwrite to replace them"
        )


def _held(path: Path) -> AbstractContextManager[None]:
    return hold(path, f"another command is writing {path}; wait for it")
