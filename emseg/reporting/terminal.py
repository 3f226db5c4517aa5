"""Leaderboards on the terminal."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from emseg.reporting.leaderboard import NOTE, Board, as_table


def print_boards(boards: list[Board]) -> None:
    """Print each board as a table, as wide as it needs in a log."""
    console = Console()
    if not console.is_terminal:
        console = Console(width=260)
    for board in boards:
        table = Table(title=board.title, title_justify="left")
        cells = as_table(board)
        for column in cells.columns:
            named = column in ("model", "protocol")
            table.add_column(column.replace("_", " "), justify="left" if named else "right", no_wrap=named)
        for row in cells.itertuples(index=False):
            table.add_row(*(str(cell).replace(" [", "\n\\[") for cell in row))
        console.print(table)
        console.print(f"Data digest {board.data_digest}.", highlight=False)
    console.print(NOTE, highlight=False)
