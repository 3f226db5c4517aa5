"""Tables on the terminal."""

from __future__ import annotations

import pandas as pd
from rich.console import Console
from rich.table import Table

from emseg.reporting.leaderboard import NOTE, Board, as_table

_NAMES = ("model", "protocol", "alias")


def print_boards(boards: list[Board]) -> None:
    """Print each board as a table."""
    for board in boards:
        print_table(board.title, as_table(board))
        _console().print(f"Data digest {board.data_digest}.", highlight=False)
    _console().print(NOTE, highlight=False)


def print_table(title: str, cells: pd.DataFrame) -> None:
    """Print a table of text; intervals go below their means."""
    table = Table(title=title, title_justify="left")
    for column in cells.columns:
        named = column in _NAMES
        table.add_column(column.replace("_", " "), justify="left" if named else "right", no_wrap=named)
    for row in cells.itertuples(index=False):
        table.add_row(*(str(cell).replace(" [", "\n\\[") for cell in row))
    _console().print(table)


def _console() -> Console:
    console = Console()
    # In a log a table is as wide as it needs.
    return console if console.is_terminal else Console(width=260)
