"""What changed between two versions of labelled sections, in words and numbers."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from emseg.data.difference import Difference, Pair, Place
from emseg.text import plain

_WIDTH = 80
_MOST_ROWS = 40
_COLUMNS = ("pixels", "split", "merged", "new", "gone", "redrawn", "ignored")
_MEANING = (
    "pixels: membrane in one version and cell in the other, and ignored in neither. split: cells that are several "
    "now. merged: cells that were several. new, gone: cells that were not there, or are not. redrawn: other cells "
    "whose outline is another. ignored: pixels that now are (+), and that no longer are (-). Sections are numbered as "
    "they are after."
)


def difference_text(found: Difference, before: str, after: str) -> str:
    """A difference in lines of up to 80 characters.

    Args:
        found: the difference.
        before, after: what the versions are called.
    """
    if found.is_nothing:
        sections, digest = found.after
        both = f"{plain(before)} and {plain(after)} are the same"
        return _filled(f"No difference: {both} {_count(sections)} with the same labels (digest {digest}).")
    lines = []
    for what, name, (sections, digest) in (("before", before, found.before), ("after", after, found.after)):
        lines.append(_filled(f"{what:7} {plain(name)}", " " * 8))
        lines.append(f"{'':7} {_count(sections)}, digest {digest}")
    lines.append("")
    said = list(_said(found))
    lines += [_filled(sentence, "    ") for sentence in said]
    if found.changed:
        lines += ["", *_table(found.changed), "", _filled(_MEANING)]
    elif not said:
        lines.append(_filled("Images and labels are the same; only the numbers that tell cells apart differ."))
    return "\n".join(lines)


def difference_values(found: Difference, before: str, after: str) -> dict[str, Any]:
    """A difference as JSON has it; sections are named by their stack and their number in it."""
    versions = {
        what: {"name": name, "sections": sections, "digest": digest}
        for what, name, (sections, digest) in (("before", before, found.before), ("after", after, found.after))
    }

    def pairs(chosen: list[Pair]) -> list[dict[str, Any]]:
        return [{"before": pair.before.place._asdict(), "after": pair.after.place._asdict()} for pair in chosen]

    return {
        **versions,
        "came": [place._asdict() for place in found.came],
        "went": [place._asdict() for place in found.went],
        "moved": pairs(found.moved),
        "turned": pairs(found.turned),
        "newly_labelled": pairs(found.newly_labelled),
        "no_longer_labelled": pairs(found.no_longer_labelled),
        "changed": [
            places | asdict(pair.change) for places, pair in zip(pairs(found.changed), found.changed, strict=True)
        ],
    }


def _said(found: Difference) -> Iterator[str]:
    """A sentence for everything but the labels that changed, whose sentence comes last."""
    alone = {"came": found.came, "went": found.went}
    alone["turned or mirrored"] = [pair.after.place for pair in found.turned]
    alone["labelled now"] = [pair.after.place for pair in found.newly_labelled]
    alone["no longer labelled"] = [pair.after.place for pair in found.no_longer_labelled]
    for what, places in alone.items():
        if places:
            yield f"{what}: {_ranges(places)} ({_count(len(places))})"
        if what == "went" and found.moved:
            yield f"moved: {_moves(found.moved)} ({_count(len(found.moved))})"
    if found.changed:
        yield f"label changed: {_count(len(found.changed))}"


def section_name(place: Place) -> str:
    """`3` in the training stack, `test 3` in the test stack."""
    return f"{place.stack} {place.number}" if place.stack != "training" else str(place.number)


def _table(pairs: list[Pair]) -> list[str]:
    rows: list[tuple[str, ...]] = [("section", *_COLUMNS)]
    for pair in pairs[:_MOST_ROWS]:
        change = pair.change
        ignored = [f"+{change.ignored}"] * bool(change.ignored) + [f"-{change.counted}"] * bool(change.counted)
        numbers = [getattr(change, column) for column in _COLUMNS[:-1]]
        rows.append((section_name(pair.after.place), *(str(number) for number in numbers), " ".join(ignored) or "0"))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]
    if len(pairs) > _MOST_ROWS:
        lines.append(f"and {len(pairs) - _MOST_ROWS} more; --json lists all")
    return lines


def _ranges(places: list[Place]) -> str:
    """Neighbours together: `0 to 3, 7, test 0`."""
    return ", ".join(_span(first[0], last[0]) for first, last in _runs([(place, place) for place in places]))


def _moves(pairs: list[Pair]) -> str:
    """Neighbours that moved together: `5 to 29 are now 4 to 28`."""
    runs = _runs([(pair.before.place, pair.after.place) for pair in pairs])
    return ", ".join(
        f"{_span(first[0], last[0])} {'is' if first == last else 'are'} now {_span(first[1], last[1])}"
        for first, last in runs
    )


def _runs(moves: list[tuple[Place, Place]]) -> list[tuple[tuple[Place, Place], tuple[Place, Place]]]:
    """The first and the last of moves that follow each other in both versions."""
    runs: list[tuple[tuple[Place, Place], tuple[Place, Place]]] = []
    for move in moves:
        next_to_last = tuple(Place(stack, number + 1) for stack, number in runs[-1][1]) if runs else None
        if move == next_to_last:
            runs[-1] = (runs[-1][0], move)
        else:
            runs.append((move, move))
    return runs


def _span(first: Place, last: Place) -> str:
    return section_name(first) + ("" if first == last else f" to {last.number}")


def _count(sections: int) -> str:
    return f"{sections} section{'' if sections == 1 else 's'}"


def _filled(text: str, indent: str = "") -> str:
    return textwrap.fill(text, _WIDTH, subsequent_indent=indent, break_on_hyphens=False, break_long_words=False)
