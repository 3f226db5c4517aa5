"""What evaluated runs are worth."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from emseg.cli.app import AsJson, Wide, app, warn
from emseg.errors import InputError

if TYPE_CHECKING:
    from emseg.reporting.transfer import Candidate

_RUNS = Path("runs")


@app.command()
def leaderboard(
    folder: Annotated[Path | None, typer.Argument(help="Where to look for evaluated runs; default: runs.")] = None,
    csv: Annotated[Path | None, typer.Option(help="Also write CSV.")] = None,
    markdown: Annotated[Path | None, typer.Option(help="Also write Markdown.")] = None,
    transfer: Annotated[
        bool, typer.Option("--transfer", help="Show models on other datasets than their own instead.")
    ] = False,
    metric: Annotated[str, typer.Option(help="What --transfer shows.")] = "v_rand",
    wide: Wide = False,
    as_json: AsJson = False,
) -> None:
    """Rank evaluated runs: one table per data and protocol, beside the rows of a reference where its data are the same.

    Runs that are damaged, or whose scores belong to other weights, are named and passed by; exit code 1 then.

    --transfer shows every champion of the registry on every dataset of data/sources, or the runs of a folder where one
    is given or there is no champion. With --wide it shows V_info and pixel error, too.

    Examples:

        emseg leaderboard

        emseg leaderboard projects/isbi2012-quick --markdown isbi2012.md

        emseg leaderboard --transfer

        emseg leaderboard --transfer runs/single --metric v_info
    """
    from emseg.files import write_text
    from emseg.reporting.leaderboard import as_csv, as_markdown, as_numbers, make_boards, sound_evaluations

    if transfer:
        _show_transfer(folder, metric, csv, markdown, wide, as_json)
        return
    evaluations, damaged = sound_evaluations(folder or _RUNS)
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


def _show_transfer(
    folder: Path | None, metric: str, csv: Path | None, markdown: Path | None, wide: bool, as_json: bool
) -> None:
    from emseg.data.sources import list_sources
    from emseg.files import write_text
    from emseg.metrics.scoring import ALL_METRICS
    from emseg.reporting.leaderboard import as_csv
    from emseg.reporting.terminal import print_note, print_table
    from emseg.reporting.transfer import (
        WIDE_METRICS,
        as_markdown,
        as_numbers,
        as_table,
        candidates_below,
        make_matrix,
        note,
        title,
    )

    if metric not in ALL_METRICS:
        raise InputError(f"--metric is one of {', '.join(ALL_METRICS)}, not {metric}")
    candidates, damaged = _champions() if folder is None else ([], [])
    if not candidates:
        candidates, damaged = candidates_below(folder or _RUNS)
    for sentence in damaged:
        warn(f"passed by: {sentence}")
    matrix = make_matrix(candidates, list_sources())
    shown = tuple(dict.fromkeys((metric, *(WIDE_METRICS if wide else ()))))
    if csv:
        write_text(csv, as_csv(as_numbers(matrix)))
    if markdown:
        write_text(markdown, as_markdown(matrix, shown))
    if as_json:
        print(as_numbers(matrix).to_json(orient="records", indent=2))
    else:
        table = as_table(matrix, shown)
        print_table(title(shown), table, wide, named=table.columns[2:])
        print_note(note(matrix))
    if damaged:
        raise typer.Exit(1)


def _champions() -> tuple[list[Candidate], list[str]]:
    """Every champion with its scores elsewhere, and what cannot be believed; nothing where there is no store."""
    from emseg.registry.standings import as_candidates, champions_by_data
    from emseg.registry.tasks import tasks
    from emseg.registry.versions import read_registry
    from emseg.reporting.transfer import transfers_by_record
    from emseg.tracking.store import asking, connect

    try:
        client = connect(must_exist=True)
    except InputError:
        return [], []
    with asking("read the registry"):
        champions = [each for task in tasks(client) for each in champions_by_data(read_registry(client, task))]
        if not champions:
            return [], []
        transfers, damaged = transfers_by_record(_RUNS)
        return as_candidates(client, champions, transfers), damaged
