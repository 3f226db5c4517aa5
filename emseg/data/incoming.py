"""Sections that a user brings: found, read as their card or the user says, and checked."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from emseg.data.check import Report, check_stacks, require_sound
from emseg.data.datasets.card import CARD_FILE, OWN_SECTIONS, Card, Stack, read_card, stack_name
from emseg.data.datasets.known import differing_pixels, find_stacks, known_cards
from emseg.data.datasets.obtain import Obtained, obtain_several
from emseg.data.joining import check_together, join, join_cards, notes_on_cells
from emseg.data.labelled import Labelled, stack_folders
from emseg.data.labels import LabelReading
from emseg.data.sources import Source, source_of
from emseg.errors import InputError

Warn = Callable[[str], None]


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


@dataclass(frozen=True)
class Incoming:
    """Stacks that were found and checked, not yet a source.

    Attributes:
        card: of all of them.
        found: each stack of the card with what is in its files.
        reports: of each stack on its own, in the same order.
    """

    card: Card
    found: list[tuple[Stack, Obtained]]
    reports: list[Report]

    @property
    def calls(self) -> list[str]:
        """What to call each stack."""
        return [f"stack {stack.name or self.card.name}" for stack, _ in self.found]

    @property
    def files(self) -> dict[str, Labelled]:
        """What is in the files, by what to call it."""
        return {name: obtained.found for name, (_, obtained) in zip(self.calls, self.found, strict=True)}

    def report(self, before: dict[str, Labelled] | None = None) -> Report:
        """All that is to be said of the stacks, among one another and with those that were there before."""
        return check_together(dict(zip(self.calls, self.reports, strict=True)), {**(before or {}), **self.files})

    @property
    def checked(self) -> dict[str, tuple[Labelled, Report]]:
        """What is in the files with the report on it, by what to call it."""
        return dict(zip(self.calls, zip(self.files.values(), self.reports, strict=True), strict=True))

    def unnamed(self, name: str, where: str) -> dict[str, Source]:
        """Each stack as a source without a card, by what to call it; `where` is what messages call the files.

        Raises:
            InputError: images and labels do not go together.
        """
        return {
            call: source_of(name, found, report.labels, report.test_labels, where)
            for call, (found, report) in self.checked.items()
        }

    def joined(self, parts: dict[str, Source]) -> Source:
        """The sections of all stacks, which go together, as one source without a card."""
        lengths = {str(stack.name): len(obtained.found.images) for stack, obtained in self.found}
        return join(next(iter(parts.values())).name, list(parts.values()), lengths)

    def sources(self, name: str, where: str, warn: Warn) -> dict[str, Source]:
        """Each stack as a source with a card of its own, by what to call it.

        Raises:
            InputError: they are not those that the card speaks of.
        """
        parts = self.unnamed(name, where)
        for (call, source), (stack, obtained), report in zip(parts.items(), self.found, self.reports, strict=True):
            _require_the_cards(source, self.card, stack)
            drawn = [labels.membrane_width for labels in (report.labels, report.test_labels) if labels]
            card = _card_of(source, self.card, stack, obtained, warn).model_copy(
                update={"drawn_membrane_pixels": next(filter(None, drawn), None)}
            )
            parts[call] = replace(source, own_card=card)
        return parts


def find_incoming(card: Card, found: list[tuple[Stack, Obtained]]) -> Incoming:
    """Stacks with the report on each."""
    reports = []
    for _, obtained in found:
        each = obtained.found
        reading = _reading(card, each)
        reports.append(check_stacks(each.images, each.labels, each.test_images, each.test_labels, reading))
    return Incoming(card, found, reports)


def make_source(name: str, incoming: Incoming, where: str, warn: Warn) -> Source:
    """A source, with its card, of stacks that are sound.

    Args:
        name: of the source.
        incoming: the stacks.
        where: what to call the files in messages.
        warn: told in a sentence what the user should know.

    Raises:
        InputError: a problem that checking found, or the sections are not those of the card.
    """
    report = incoming.report()
    require_sound(report, where)
    parts = incoming.sources(name, where, _once(warn))
    if len(parts) == 1:
        ((_, source),) = parts.items()
        assert source.own_card
        card, notes = source.own_card, report.notes
    else:
        source = incoming.joined(parts)
        digests = incoming.card.data_digests
        if digests and source.digest not in digests:
            raise InputError(_other_digest(source, incoming.card))
        card = describe(
            join_cards(incoming.card, {call: part.own_card for call, part in parts.items() if part.own_card}), source
        )
        notes = report.notes + notes_on_cells(parts)
    for note in notes:
        warn(note)
    return replace(source, own_card=noted(card, notes))


def check_folder(
    folder: Path, reading: LabelReading | None, images: str | None, labels: str | None, warn: Warn
) -> tuple[Incoming, Report]:
    """What `emseg data add` would find in a folder, how it would read the labels, and what is wrong.

    Args:
        folder: that holds images and labels, or a folder with images and labels for each of several stacks.
        reading: how labels are to be read; None: as a card in the folder says, else it is found out.
        images, labels: the file or folder of each, where their names do not say so.
        warn: told in a sentence what the user should know.

    Raises:
        InputError: images or labels are missing or damaged.
    """
    if not folder.exists():
        raise InputError(f"{folder} does not exist; expected a folder that holds images and labels")
    card, stacks = own_card_for("sections", folder, Given(reading=reading, images=images, labels_at=labels))
    incoming = find_incoming(card, obtain_several(card, stacks, folder, warn))
    report = incoming.report()
    if len(incoming.found) > 1 and not report.problems:
        report = replace(report, notes=report.notes + notes_on_cells(incoming.unnamed("sections", str(folder))))
    return incoming, report


def card_for(name: str, origin: Path | None, given: Given) -> tuple[Card, list[Stack]]:
    """The card that says how to read what is added, and the stacks of it that are meant.

    Raises:
        InputError: nothing has that name and no folder is given, or it does not say which of several to download.
    """
    if found := find_stacks(name, given.card):
        card, stacks = found
        if origin is None and len(stacks) > 1:
            names = ", ".join(str(stack.name) for stack in stacks)
            raise InputError(
                f"{name} has several samples, {names}; choose one with --sample, or say --from FOLDER to bring in all "
                "that are there as one source"
            )
        return _as_given(card, stacks, given)
    if origin is None:
        raise InputError(f"{name} is not a dataset with a card ({', '.join(known_cards())}); say --from FOLDER")
    return own_card_for(name, origin, given)


def own_card_for(name: str, origin: Path, given: Given) -> tuple[Card, list[Stack]]:
    """The card of a lab's own sections, and their stacks: as card.yaml beside them says, or a folder for each."""
    card = Card(name=name, title=OWN_SECTIONS)
    if (origin / CARD_FILE).is_file():
        card = read_card(origin / CARD_FILE).model_copy(update={"name": name})
    stacks = card.stacks
    if len(stacks) == 1 and not stacks[0].locations:
        folders = stack_folders(origin, given.images, given.labels_at)
        names = [stack_name(folder.name) for folder in folders]
        if twice := [
            folder.name for folder in folders if [n.lower() for n in names].count(stack_name(folder.name).lower()) > 1
        ]:
            raise InputError(f"{origin}: {' and '.join(twice)} would be stacks of one name; rename one of the folders")
        stacks = [Stack(name=each) for each in names] or stacks
    return _as_given(card, stacks, given)


def _as_given(card: Card, stacks: list[Stack], given: Given) -> tuple[Card, list[Stack]]:
    if given.places and len(stacks) > 1 and any(stack.locations for stack in stacks):
        raise InputError(
            f"--images and --labels are of one stack, and the card of {card.name} says where those of each are"
        )
    return card.model_copy(update=given.labels), [stack.model_copy(update=given.places) for stack in stacks]


def _reading(card: Card, found: Labelled) -> LabelReading:
    """How labels are read, with the size of a pixel where files or card say it."""
    voxel = found.voxel_size or card.voxel_size_nm
    return card.labels.model_copy(update={"pixel_nm": float(voxel[-1])}) if voxel else card.labels


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
        raise InputError(_other_digest(source, card))
    for images, size in ((source.images, stack.size), (source.test_images, stack.test_size)):
        if size and len(images) and list(images.shape) != size:
            shown, right = (" x ".join(map(str, shape)) for shape in (images.shape, size))
            raise InputError(f"the sections of {source.name} are {shown}, but its card says {right}; correct either")


def _other_digest(source: Source, card: Card) -> str:
    return (
        f"the sections have digest {source.digest}, not one that the card of {card.name} names; "
        f"correct the card, or take data_digests out of it"
    )


def _card_of(source: Source, card: Card, stack: Stack, obtained: Obtained, warn: Warn) -> Card:
    """The card to lay beside sections of one stack that were added."""
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
    card = card.model_copy(update={"origins": obtained.origins or card.origins})
    return describe(card, source, stack.name)


def describe(card: Card, source: Source, stack: str | None = None) -> Card:
    """A card that speaks of the sections as `write_source` writes them, and of no others; `stack` is their only one."""
    tested = list(source.test_images.shape) if len(source.test_images) else None
    shape = source.images.shape
    digests = [source.digest]
    left = {"labels", "stacks", "fetched", "data_digests"}
    if card.name in known_cards():
        # They hold where the pixels are recognised, and come from the card that is recognised then.
        left |= {"published", "reference"}
    entries = {key: getattr(card, key) for key in Card.model_fields if key not in left}
    if not source.stacks:
        return Card(**entries, stacks=[Stack(name=stack, size=list(shape), test_size=tested, data_digests=digests)])
    stacks = [Stack(name=name, size=[length, *shape[1:]]) for name, length in source.stacks.items()]
    stacks[0] = stacks[0].model_copy(update={"test_size": tested})
    return Card(**entries, stacks=stacks, data_digests=digests)


def noted(card: Card, notes: list[str]) -> Card:
    """A card with these sentences among its notes."""
    if not notes:
        return card
    sentences = [note if note.endswith(".") else f"{note}." for note in notes]
    return card.model_copy(update={"note": " ".join([*([card.note] if card.note else []), *sentences])})


def _once(warn: Warn) -> Warn:
    """Says a sentence that holds for several stacks once."""
    said: set[str] = set()

    def say(sentence: str) -> None:
        if sentence not in said:
            said.add(sentence)
            warn(sentence)

    return say
