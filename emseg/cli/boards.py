"""What evaluated runs are worth."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from emseg.cli.app import AsJson, Wide, app, warn

if TYPE_CHECKING:
    pass


@app.command()
def leaderboard(
    folder: Annotated[Path, typer.Argument(help="Where to look for evaluated runs.")] = Path("runs"),
    csv: Annotated[Path | None, typer.Option(help="Also write CSV.")] = None,
    markdown: Annotated[Path | None, typer.Option(help="Also write Markdown.")] = None,
    wide: Wide = False,
    as_json: AsJson = False,
) -> None:
    """Rank evaluated runs: one table per data and protocol, beside the rows of a reference where its data are the same.

    Runs that are damaged, or whose scores belong to other weights, are named and passed by; exit code 1 then.

    Examples:

        emseg leaderboard

        emseg leaderboard projects/isbi2012-quick --markdown isbi2012.md
    """
    from emseg.files import write_text
    from emseg.reporting.leaderboard import as_csv, as_markdown, as_numbers, make_boards, sound_evaluations

    evaluations, damaged = sound_evaluations(folder)
    for sentence in damaged:
        warn(f"passed by: {sentence}")
    boards = make_boards(evaluations)
    if csv:
        write_text(csv, as_csv(as_numbers(boards)))
    if markdown:
        write_text(markdown, as_markdown(boards))
    if as_json:
        print(as_numbers(boards).to_json(orient="records", indent=2))
    else:
        from emseg.reporting.terminal import print_boards

        print_boards(boards, wide)
    if damaged:
        raise typer.Exit(1)
