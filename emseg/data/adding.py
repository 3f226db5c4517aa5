"""Bring labelled sections in: found, read as their card or the user says, checked, and written whole."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path

from emseg.data.check import require_sound
from emseg.data.datasets.card import OWN_SECTIONS, Card, Stack, stack_name
from emseg.data.datasets.download import Progress
from emseg.data.datasets.known import SYNTHETIC, known_cards
from emseg.data.datasets.obtain import Obtained, obtain, obtain_several
from emseg.data.incoming import Given, card_for, describe, find_incoming, make_source, noted, own_card_for
from emseg.data.joining import as_files, first_stack_name, join, join_cards, notes_on_cells, parts_of
from emseg.data.labelled import Labelled
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
from emseg.files import atomic_folder, hold, put_back, require_own

_DOWNLOADS = ".downloads"


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
        source = replace(source, own_card=describe(known_cards()[name], source))
    else:
        card, stacks = card_for(name, origin, given)
        if origin is None and not overwrite and _is_here(target, card):
            return target
        if origin is None:
            found = [(stacks[0], obtain(card, stacks[0], None, folder / _DOWNLOADS / name, progress, warn))]
        else:
            found = obtain_several(card, stacks, origin, warn)
        source = make_source(name, find_incoming(card, found), str(origin or name), warn)
    with _held(target):
        if target.is_dir() and not overwrite and not is_placeholder(target):
            _require_same(target, source)
        with atomic_folder(target, (*SOURCE_FILES, ".gitkeep")) as temporary:
            write_source(temporary, source)
            if (target / ".gitkeep").exists():
                (temporary / ".gitkeep").touch()
    return target


def append_sections(
    name: str,
    origin: Path,
    folder: Path = SOURCES_FOLDER,
    warn: Callable[[str], None] = lambda sentence: None,
    continues: bool = False,
    given: Given | None = None,
) -> tuple[Source, Source]:
    """Add labelled sections to a source: checked like its first ones, and written with them, whole or not at all.

    Args:
        name: of a source that is there.
        origin: the folder to take the sections from. They become a stack named after it.
        folder: where sources live.
        warn: told in a sentence what the user should know.
        continues: whether the first of them lies next to the last section of the last stack, which they then extend.
        given: what the user says of the sections.

    Returns:
        The source as it was, and as it is now.

    Raises:
        InputError: there is no such source; or the sections are missing, damaged, do not pass `check_stacks`, have
            another size or type than those of the source, or are among them already; or they cannot be written.
        RunError: the disk is full.
    """
    require_source_name(name)
    if name == SYNTHETIC:
        raise InputError(f"{SYNTHETIC} names the sections that emseg generates; add yours to a source of your own")
    target = folder / name
    with _held(target):
        put_back(target)
        if not target.is_dir():
            raise InputError(f"no source named {name} in {folder} to add sections to; leave --append out to begin one")
        before = read_source(target, name)
        after = _appended(before, origin, warn, continues, given or Given())
        with atomic_folder(target, SOURCE_FILES) as temporary:
            write_source(temporary, after)
    return before, after


def _appended(before: Source, origin: Path, warn: Callable[[str], None], continues: bool, given: Given) -> Source:
    base = before.own_card or Card(name=before.name, title=OWN_SECTIONS)
    card, stacks = own_card_for(before.name, origin, given)
    if card.voxel_size_nm is None:
        card = card.model_copy(update={"voxel_size_nm": base.voxel_size_nm})
    if continues and len(stacks) > 1:
        raise InputError(f"{origin} holds {len(stacks)} stacks, of which one alone can continue the last one")
    known = before.stacks or {first_stack_name(before): len(before.images)}
    if len(stacks) == 1 and stacks[0].name is None:
        stacks = [stacks[0].model_copy(update={"name": stack_name(origin.resolve().name)})]
    found: list[tuple[Stack, Obtained]] = []
    for stack, obtained in obtain_several(card, stacks, origin, warn):
        if obtained.found.test_images is not None:
            raise InputError(f"{origin} holds a test stack, which cannot be appended; take it out of the folder")
        own = _other_name(str(stack.name), [*known, *(str(each.name) for each, _ in found)])
        found.append((stack.model_copy(update={"name": own, "size": None, "data_digests": []}), obtained))
    incoming = find_incoming(card, found)
    old = parts_of(before)
    report = incoming.report({call: as_files(part) for call, part in old.items()})
    require_sound(report, str(origin))
    new = incoming.sources(before.name, str(origin), warn)
    lengths = {str(stack.name): len(obtained.found.images) for stack, obtained in found}
    if continues:
        *_, last = known
        lengths = {last: known[last] + sum(lengths.values())}
    after = join(before.name, [before, *new.values()], known | lengths)
    notes = [*report.notes, *notes_on_cells({f"source {before.name}": before, **new})]
    for note in notes:
        warn(note)
    # What others published is of the sections as they were.
    base = base.model_copy(update={"published": None, "reference": None})
    cards = {call: part.own_card for call, part in new.items() if part.own_card}
    joined = join_cards(base, {f"source {before.name}": base, **cards})
    return replace(after, own_card=noted(describe(joined, after, base.stacks[0].name), notes))


def _other_name(name: str, taken: list[str]) -> str:
    """`name`, or with a number behind it where that is taken, however it is written."""
    lower = {each.lower() for each in taken}
    names = [name, *(f"{name}_{number}" for number in range(2, len(taken) + 2))]
    return next(each for each in names if each.lower() not in lower)


def _is_here(folder: Path, card: Card) -> bool:
    try:
        source = read_source(folder, folder.name) if folder.is_dir() else None
    except InputError:
        return False
    return source is not None and source.card is not None and source.card.name == card.name


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
            "choose another name, --append to add them to those, or --overwrite to replace those"
        )


def _held(path: Path) -> AbstractContextManager[None]:
    return hold(path, f"another command is writing {path}; wait for it")
