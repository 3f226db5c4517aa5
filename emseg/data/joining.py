"""Several stacks as one source: what they must have in common, and what the joined labels and card say."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from emseg.data.check import Report, check_stacks, ranges_apart, shared_sections
from emseg.data.datasets.card import OWN_SECTIONS, Card, Provenance
from emseg.data.labelled import Labelled
from emseg.data.labelled_sections import cells_of, ignored_of
from emseg.data.sources import Source


def check_together(reports: dict[str, Report], parts: dict[str, Labelled]) -> Report:
    """The reports of several stacks as one, with what is wrong between them; of one stack alone, its report.

    Args:
        reports: of stacks on their own, by what to call them, such as `stack A`.
        parts: the images of each, and of those that were checked before.
    """
    if len(parts) == 1:
        return next(iter(reports.values()))
    facts = {"stacks": ", ".join(f"{name} ({len(part.images)} sections)" for name, part in parts.items())}
    problems, notes = [], []
    for name, report in reports.items():
        facts |= {f"{name}, {fact}": value for fact, value in report.facts.items()}
        problems += [f"{name}: {problem}" for problem in report.problems]
        notes += [f"{name}: {note}" for note in report.notes]
    tested = {name: tested for name, part in parts.items() if (tested := part.test_images) is not None and len(tested)}
    if len(tested) > 1:
        problems.append(f"{' and '.join(tested)} each bring a test stack; a source has one")
    differing = _differing({name: part.images for name, part in parts.items()})
    images = {name: part.images for name, part in parts.items()}
    if not problems and not differing:
        notes += ranges_apart({f"sections in {name}": stack for name, stack in images.items()})
    shared = shared_sections(images | {f"the test stack of {name}": stack for name, stack in tested.items()})
    return Report(facts, problems + differing + shared, notes)


def _differing(stacks: dict[str, np.ndarray]) -> list[str]:
    (first, own), *others = stacks.items()
    problems = []
    for name, images in others:
        if images.shape[1:] != own.shape[1:]:
            here, there = (" x ".join(map(str, stack.shape[1:])) for stack in (images, own))
            problems.append(
                f"sections in {name} are {here} pixels but those in {first} {there}; stacks of one source have one "
                "height and width: cut them, or bring each in as a source of its own"
            )
        if images.dtype != own.dtype:
            problems.append(
                f"sections in {name} are {images.dtype} but those in {first} are {own.dtype}; they must be of one type"
            )
    return problems


def check_source(source: Source) -> Report:
    """What `emseg data check` would find in the stacks of a source."""
    parts = parts_of(source)
    reports = {
        name: check_stacks(
            part.images,
            part.labels,
            part.test_images,
            part.test_labels,
            ignore=part.ignore,
            test_ignore=part.test_ignore,
        )
        for name, part in parts.items()
    }
    return check_together(reports, {name: as_files(part) for name, part in parts.items()})


def as_files(source: Source) -> Labelled:
    """A source as `read_labelled` would find it."""
    return Labelled(source.images, source.labels, source.test_images, source.test_labels)


def parts_of(source: Source) -> dict[str, Source]:
    """Each stack of a source as a source of its own, by what to call it; the test stack goes with the first."""
    if not source.stacks:
        return {f"stack {first_stack_name(source)}": source}
    parts, start = {}, 0
    for name, length in source.stacks.items():
        where = slice(start, start + length)
        fields: dict[str, Any] = {
            key: None if (whole := getattr(source, key)) is None else whole[where]
            for key in ("images", "labels", "cells", "ignore")
        }
        if start:
            fields |= {"test_images": source.images[:0], "test_labels": source.labels[:0]}
            fields |= {"test_cells": None, "test_ignore": None}
        parts[f"stack {name}"] = replace(source, own_card=None, stacks={}, **fields)
        start += length
    return parts


def first_stack_name(source: Source) -> str:
    """What the first stack of a source is called."""
    if source.stacks:
        return next(iter(source.stacks))
    return (source.own_card and source.own_card.stacks[0].name) or source.name


def join(name: str, parts: Sequence[Source], stacks: dict[str, int]) -> Source:
    """Sections of several sources one after the other, as one source without a card.

    Where one of them has cells by number, all have: a mask's cells are the 4-connected components of its interior in
    each section, as they are scored without numbers. Where one has pixels to ignore, the others ignore none. Numbers
    stay as they are: the same number in two stacks means nothing.

    Args:
        name: of the source.
        parts: of one height, width and type; one of them at most has a test stack.
        stacks: names and lengths of the stacks that they become; they are kept where there are several.
    """
    tested = next((part for part in parts if len(part.test_images)), parts[0])
    has_cells = any(part.cells is not None for part in parts)
    has_ignore = any(part.ignore is not None for part in parts)
    return replace(
        tested,
        name=name,
        images=np.concatenate([part.images for part in parts]),
        labels=np.concatenate([part.labels for part in parts]),
        cells=np.concatenate([cells_of(part.labels, part.cells) for part in parts]) if has_cells else None,
        ignore=np.concatenate([ignored_of(part.labels, part.ignore) for part in parts]) if has_ignore else None,
        own_card=None,
        stacks=stacks if len(stacks) > 1 else {},
    )


def notes_on_cells(parts: dict[str, Source]) -> list[str]:
    """What `join` does to the labels of stacks, in sentences; stacks by what to call them."""
    masks = [name for name, part in parts.items() if part.cells is None]
    if len(masks) == len(parts):
        return []
    return [
        f"{name}: its labels are a mask while others number cells; its cells are the connected parts of the interior, "
        "section by section"
        for name in masks
    ]


def join_cards(card: Card, parts: dict[str, Card]) -> Card:
    """A card of all stacks: what it says itself, what all parts say, and notes of where a part says otherwise.

    Args:
        card: of the whole; entries that it lacks are taken from the parts if all say the same.
        parts: the card of each stack, by what to call it.
    """
    entries: dict[str, Any] = {}
    notes = [card.note] if card.note else []
    for key in Provenance.model_fields:
        if key in ("name", "citations", "drawn_membrane_pixels"):
            continue
        said = {name: _said(part, key) for name, part in parts.items()}
        value, values = _said(card, key), list(said.values())
        if value is None and values[0] is not None and values.count(values[0]) == len(values):
            value = entries[key] = values[0]
        differing = {name: other for name, other in said.items() if other is not None and other != value}
        notes += [f"{name}: {key} is {_shown(other)}." for name, other in differing.items()]
    notes += [part.note for part in parts.values() if part.note]
    every = [card, *parts.values()]
    return card.model_copy(
        update={
            **entries,
            # Pixel metrics depend on it where it holds for a part alone.
            "drawn_membrane_pixels": next(
                (each.drawn_membrane_pixels for each in every if each.drawn_membrane_pixels), None
            ),
            "citations": _once(citation for each in every for citation in each.citations),
            "origins": _once(origin for each in every for origin in each.origins),
            "note": " ".join(_once(notes)) or None,
        }
    )


def _said(card: Card, key: str) -> Any:
    value = getattr(card, key)
    return None if value == OWN_SECTIONS else value


def _shown(value: Any) -> str:
    return " x ".join(f"{part:g}" for part in value) if isinstance(value, list) else str(value)


def _once(values: Iterable[Any]) -> list[Any]:
    found: list[Any] = []
    for value in values:
        if value not in found:
            found.append(value)
    return found
