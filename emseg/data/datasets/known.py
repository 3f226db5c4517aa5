"""The datasets that emseg has a card of, by name and by their pixels."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path

import numpy as np

from emseg.data.datasets.card import Card, Noted, Stack, read_card
from emseg.errors import InputError

SYNTHETIC = "synthetic"
"""The dataset that is drawn, and so needs no adding."""


@cache
def known_cards() -> dict[str, Card]:
    """The cards that come with emseg, by name."""
    cards = [read_card(file) for file in sorted(Path(__file__).parent.glob("*.yaml"))]
    return {card.name: card for card in cards}


def find_stacks(name: str, card: Card | None = None) -> tuple[Card, list[Stack]] | None:
    """The card, and the stacks of it, of a source's name: one of cremi_a, all of cremi.

    Args:
        name: of the source.
        card: to look in; None: all that come with emseg.

    Returns:
        None where no card has that name.
    """
    cards = known_cards().values() if card is None else [card]
    for each in cards:
        if each.name == name:
            return each, each.stacks
        if found := [stack for stack in each.stacks if each.source_name(stack) == name]:
            return each, found
    return None


def how_to_add(name: str) -> str:
    """The command that brings sections in under this name."""
    found = find_stacks(name)
    return f"emseg data add {name}" + ("" if found and len(found[1]) == 1 else " --from FOLDER")


def name_of_sample(name: str, sample: str | None, card: Card | None = None) -> str:
    """The name of the source that a sample of a dataset becomes.

    Raises:
        InputError: the dataset has no such sample.
    """
    if sample is None:
        return name
    found = card or known_cards().get(name)
    names = _samples(found) if found else []
    if sample.lower() not in [known.lower() for known in names]:
        there = f"it has {', '.join(names)}" if names else "it has no samples to choose from"
        raise InputError(f"{name} has no sample {sample}; {there}")
    return f"{name}_{sample.lower()}"


def _samples(card: Card) -> list[str]:
    return [stack.name for stack in card.stacks if stack.name]


def _stacks(cards: Iterable[Card]) -> Iterator[tuple[Card, Stack]]:
    return ((card, stack) for card in cards for stack in card.stacks)


def differing_pixels(stack: Stack, images: np.ndarray, labels: np.ndarray, test_images: np.ndarray) -> str | None:
    """Which part of sections is not that of a stack, whose pixels are known; None: they are the same.

    Args:
        stack: of a card.
        images: uint8 or uint16 (Z, Y, X).
        labels: bool (Z, Y, X), True for cell interior.
        test_images: (Z, Y, X); without sections where there are none, which is no difference.
    """
    if stack.pixels is None:
        raise ValueError("the pixels of this stack are not known")
    if _sha256(images) != stack.pixels.images:
        return stack.images or "images"
    if _sha256(labels.astype(np.uint8) * 255) != stack.pixels.interior:
        return stack.labels or "labels"
    if len(test_images) and _sha256(test_images) != stack.pixels.test_images:
        return stack.test_images or "test sections"
    return None


def recognise(images: np.ndarray, labels: np.ndarray, test_images: np.ndarray, digest: str) -> Card | None:
    """The card of a dataset by its pixels, whatever the sections are called; None: no dataset that has a card.

    Args:
        images: uint8 or uint16 (Z, Y, X).
        labels: bool (Z, Y, X), True for cell interior.
        test_images: (Z, Y, X); without sections where there are none.
        digest: of all of it, as `Source.digest` has it.
    """
    for card, stack in _stacks(known_cards().values()):
        if digest in card.digests:
            return card
        is_alike = stack.pixels is not None and stack.size == list(images.shape)
        if is_alike and differing_pixels(stack, images, labels, test_images) is None:
            return card
    return None


def card_of_data(digest: str, noted: Noted | None) -> Card | None:
    """The card of the dataset that a run was trained on, if it is one of those that come with emseg.

    Args:
        digest: of the data, as the record has it.
        noted: what the record notes of them; None in records of before anything was noted.
    """
    if noted and noted.recognised:
        return known_cards().get(noted.recognised)
    return next((card for card in known_cards().values() if digest in card.digests), None)


def can_be_downloaded(name: str, digest: str, noted: Noted | None) -> bool:
    """Whether `emseg data add NAME` brings back the sections that a run was trained on.

    Args:
        name: that they had.
        digest: of the data, as the record has it.
        noted: what the record notes of them.
    """
    card = card_of_data(digest, noted)
    return card is not None and any(card.source_name(stack) == name and stack.files for stack in card.stacks)


def _sha256(pixels: np.ndarray) -> str:
    return hashlib.sha256(np.ascontiguousarray(pixels).data).hexdigest()
