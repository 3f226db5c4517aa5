"""What there is to bring in, and what is here."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from emseg.data.datasets.card import CARD_FILE, OWN_SECTIONS, Card, Provenance, read_card
from emseg.data.datasets.known import SYNTHETIC, known_cards
from emseg.data.sources import SOURCES_FOLDER, list_sources
from emseg.errors import InputError


def listed_datasets(folder: Path = SOURCES_FOLDER) -> list[dict[str, Any]]:
    """Every dataset that has a card, then a lab's own sections.

    Args:
        folder: where sources live.

    Returns:
        Of each: the entries of `Provenance` that are known; `sizes`, (Z, Y, X) of each stack; `sources`, the name that
        each stack has here to whether it is here; `remarks`, sentences that a user should see.
    """
    there = {name: _card_there(folder / name) for name in list_sources(folder)}
    rows = []
    for card in known_cards().values():
        # Other sections may have taken the name, without a card or with one of their own.
        sources = {name: card.name == SYNTHETIC or _is_of(there.get(name), card) for name in card.source_names}
        rows.append(_row(card, sources, _remarks(card)))
    listed = {name for row in rows for name, is_here in row["sources"].items() if is_here}
    for name, own in there.items():
        if name not in listed:
            remarks = [own] if isinstance(own, str) else []
            card = own if isinstance(own, Card) else Card(name=name, title=OWN_SECTIONS)
            rows.append(_row(card.model_copy(update={"name": name}), {name: True}, remarks))
    return rows


def _card_there(folder: Path) -> Card | str | None:
    """The card beside sections, or what is wrong with it."""
    if not (folder / CARD_FILE).is_file():
        return None
    try:
        return read_card(folder / CARD_FILE)
    except InputError as error:
        return str(error)


def _is_of(own: Card | str | None, card: Card) -> bool:
    return isinstance(own, Card) and own.name == card.name


def _row(card: Card, sources: dict[str, bool], remarks: list[str]) -> dict[str, Any]:
    known = card.model_dump(mode="json", include=set(Provenance.model_fields), exclude_defaults=True)
    sizes = [stack.size for stack in card.stacks if stack.size]
    about = {"description": card.description} if card.description else {}
    note = [card.note] if card.note else []
    return known | about | {"sizes": sizes, "sources": sources, "remarks": [*note, *remarks]}


def _remarks(card: Card) -> list[str]:
    remarks = []
    if card.fetched is False:
        remarks.append("never fetched from its real host with this card")
    return remarks
