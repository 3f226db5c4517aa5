"""Tables on the terminal: as many columns as there is room for, every cell of which can be read."""

from __future__ import annotations

from collections.abc import Collection
from typing import Literal

import pandas as pd
from rich import box
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from emseg.data.protocol import consecutive
from emseg.metrics.scoring import ALL_METRICS, LOWER_IS_BETTER, MEANINGS
from emseg.records.evaluation import ScoredRun
from emseg.records.transfer import Transfer
from emseg.reporting.leaderboard import SHOWN_METRICS, Board, as_table, note
from emseg.text import plain

_NAMES = ("model", "trained on", "protocol", "alias", "cells by", "state", "status")
_FIRST = ("version", "trial", "model", "state", "value", "v_rand", "v_info", "pixel_error")
"""Columns that are shown however little room there is."""
_SMALLEST_NAME = 14
"""Characters of a name's line; longer names go over several."""
_GAP = 2


def print_boards(boards: list[Board], wide: bool = False) -> None:
    """Print each board as a table; `wide`: with every column, whatever the room."""
    console = _console()
    for board in boards:
        print_table(board.title, as_table(board), wide)
        console.print(Text(f"{plain(board.facts)}\n"), soft_wrap=True)
    print_note(f"{note(boards)} {_directions()}")


def print_note(text: str) -> None:
    """Print sentences below a table, broken between words where it is a terminal."""
    console = _console()
    console.print(Text(text), soft_wrap=not console.is_terminal)


def evaluation_text(name: str, found: ScoredRun) -> str:
    """The scores of a run in lines of up to 80 characters, where names are short.

    Args:
        name: of the run.
        found: its scores.
    """
    tested_on = "warped copies of training sections" if found.leaks else "test sections"
    first = [f"{plain(name)}, protocol {found.protocol}{' (leaks)' if found.leaks else ''}"]
    if isinstance(found, Transfer):
        tested_on = "sections"
        first = _transfer_heading(name, found)
    rand, info, pixels = (found.threshold, found.v_info_threshold, found.pixel_threshold)
    lines = [
        *first,
        f"Cells by {found.cells}, at {rand:g} for V_rand and {info:g} for V_info; pixels at {pixels:g}.",
        f"Mean of {found.sections} {tested_on} [95 % bootstrap interval].",
    ]
    if found.drawn_membranes:
        lines.append(str(found.drawn_membranes))
    if found.collapsed:
        lines.append("COLLAPSED: the network says the same everywhere.")
    for heading, are_lower in (("Higher is better, 1 is perfect", False), ("Lower is better, 0 is perfect", True)):
        lines += ["", heading]
        for metric in (m for m in ALL_METRICS if m in found.metrics and (m in LOWER_IS_BETTER) == are_lower):
            lines.append(f"  {metric:18} {found.metrics[metric]} {MEANINGS[metric]}")
    return "\n".join(lines)


def _transfer_heading(name: str, found: Transfer) -> list[str]:
    home, dataset = plain(found.home.dataset), plain(found.dataset)
    lines = [
        f"{plain(name)}, trained on {home} ({found.home.protocol}), scored on {dataset}",
        f"Nothing was learned from {dataset}: thresholds and rules for cells are those that",
        f"were calibrated on {home}.",
    ]
    if found.left_out:
        lines.append(f"Left out, for the run was trained or calibrated on them: sections {_ranges(found.left_out)}.")
    if found.unlike_training:
        lines.append(f"The sections are unlike the training data: {found.unlike_training}.")
    return lines


def _ranges(numbers: list[int]) -> str:
    parts = [(numbers[part[0]], numbers[part[-1]]) for part in consecutive(numbers)]
    return ", ".join(str(first) if first == last else f"{first} to {last}" for first, last in parts)


def print_table(
    title: str, cells: pd.DataFrame, wide: bool | None = None, named: Collection[str] = frozenset()
) -> None:
    """Print a table of text.

    On a terminal intervals go below their means, and columns for which there is no room are left out and named below.
    With `wide`, and in a pipe, every column is there and a row is a line.

    Args:
        title: above it.
        cells: may come from anywhere; they are shown as they are, but for control characters.
        wide: every column, whatever the room; None where the command has no such option.
        named: columns that are called by the name of something, which is shown as it is.
    """
    headings = {name: plain(name) if name in named else _heading(name) for name in cells.columns}
    console = _console()
    whole = bool(wide) or not console.is_terminal
    lines = {name: [_lines(cell, whole) for cell in cells[name]] for name in cells.columns}
    widths = {name: _width(headings[name], lines[name], whole) for name in cells.columns}
    if whole:
        console.width = max(_total(widths), console.width)
    else:
        widths = _fitting(widths, console.width)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, _GAP - 1, 0, 0), show_edge=False)
    for name, width in widths.items():
        side: Literal["left", "right"] = "left" if name in _NAMES else "right"
        table.add_column(Text(headings[name]), justify=side, width=width, overflow="fold")
    for index in range(len(cells)):
        table.add_row(*(Text("\n".join(lines[name][index])) for name in widths))
    console.print(Text(plain(title), style="italic"), soft_wrap=True)
    console.print(table)
    if left_out := [headings[name] for name in cells.columns if name not in widths]:
        way = "a pipe, such as | less -S, shows" if wide is None else "--wide shows"
        console.print(Text(f"Left out for lack of room: {', '.join(left_out)}; {way} them."))


def _directions() -> str:
    lower = [_heading(name) for name in SHOWN_METRICS if name in LOWER_IS_BETTER]
    return f"Of {', '.join(lower)} lower is better, of all others higher."


def _heading(name: str) -> str:
    return name.replace("_", " ")


def _lines(cell: object, whole: bool) -> list[str]:
    text = plain(cell)
    mean, bracket, interval = text.rpartition(" [")
    return [text] if whole or not bracket else [mean, f"[{interval}"]


def _width(heading: str, column: list[list[str]], whole: bool) -> int:
    words = [heading] if whole else heading.split()
    return max(cell_len(text) for lines in (words, *column) for text in lines)


def _total(widths: dict[str, int]) -> int:
    return sum(widths.values()) + _GAP * len(widths)


def _fitting(widths: dict[str, int], room: int) -> dict[str, int]:
    """Widths of the columns there is room for: first those of `_FIRST`, then the others in their order."""
    first = [name for name in _FIRST if name in widths] or list(widths)[:1]
    chosen = {name: widths[name] for name in first}
    if "model" in chosen:
        # Long names break between words.
        narrow = chosen["model"] - max(_total(chosen) - room, 0)
        chosen["model"] = max(narrow, min(chosen["model"], _SMALLEST_NAME))
    while _total(chosen) > room and len(chosen) > 1:
        chosen.popitem()
    for name in widths:
        if name not in first and _total(chosen | {name: widths[name]}) <= room:
            chosen[name] = widths[name]
    return {name: chosen[name] for name in widths if name in chosen}


def _console() -> Console:
    return Console(highlight=False)
