"""A folder of evaluated runs as one report: scores with intervals, ablations, learning curves, cost.

report.md       what a reader wants to know
models.csv      every board as numbers
sections.csv    a row per run and test section
ablations.csv   what each change of a recipe was worth
*.png           figures
records.zip     the runs without weights and pictures, from which the report can be made again
"""

from __future__ import annotations

import re
from pathlib import Path

import pandas as pd

from emseg.data.datasets.card import Published
from emseg.errors import InputError
from emseg.files import write_text
from emseg.metrics.scoring import LOWER_IS_BETTER
from emseg.reporting.ablation import ablation_text, ablations
from emseg.reporting.figures import comparison_figure, learning_curves_figure, save_figure
from emseg.reporting.leaderboard import (
    Board,
    as_cell,
    as_csv,
    as_markdown,
    as_numbers,
    make_boards,
    markdown_table,
)
from emseg.reporting.runs import EvaluatedRun, keep_runs, read_runs

_FIGURE_METRICS = ["v_rand", "v_info", "pixel_error"]
_MOST_CURVES = 8
"""Learning curves that a reader can tell apart; of more, those of the first fold and seed of each recipe are shown."""


def write_report(sources: list[Path], folder: Path, title: str, command: str) -> Path:
    """Write the report of every evaluated run of `sources`; returns report.md.

    Args:
        sources: folders below which runs are, or records.zip of reports. Of two runs at one place the later counts.
        folder: where the report goes.
        title: its heading.
        command: how the runs were made.

    Raises:
        InputError: there are no evaluated runs, one is damaged, or `folder` cannot be made.
    """
    runs = read_runs(*sources)
    main_runs = [run for run in runs if not run.variation]
    boards = make_boards([run.folder for run in main_runs], {run.folder: run.model for run in main_runs})
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{folder} cannot be made: {error.strerror}; choose another folder for the report") from error
    parts = [
        f"# {title}",
        f"Runs made by `{command}`, the report by `emseg report`.",
        as_markdown(boards),
    ]
    for index, board in enumerate(boards):
        name = re.sub(r"[^\w-]+", "-", f"{board.dataset}-{board.protocol}")
        parts.append(_figures(folder, name, board, [run for run in runs if _belongs(run, board)], first=index == 0))
    architectures = {run.model: run.run.settings.architecture for run in main_runs}
    parts += [reference_text(board, architectures) for board in boards]
    cards = {board.card.name: board.card for board in boards if board.card}
    parts += [published_text(card.published) for card in cards.values() if card.published]
    table = ablations(runs)
    if len(table):
        parts.append(ablation_text(table))
        write_text(folder / "ablations.csv", as_csv(table))
    parts.append(_cost_text(runs))
    write_text(folder / "models.csv", as_csv(as_numbers(boards)))
    write_text(folder / "sections.csv", as_csv(_sections(runs)))
    keep_runs(runs, folder / "records.zip")
    write_text(folder / "report.md", "\n\n".join(part.strip() for part in parts if part) + "\n")
    return folder / "report.md"


def _figures(folder: Path, name: str, board: Board, runs: list[EvaluatedRun], first: bool) -> str:
    models = {row.model: row.metrics for row in board.trained}
    save_figure(comparison_figure(board.title, models, _FIGURE_METRICS), folder / f"{name}-comparison.png")
    runs = _trainings(runs)
    if len(runs) > _MOST_CURVES:
        runs = list({(run.model, run.variation): run for run in reversed(runs)}.values())[::-1]
    if len(runs) > _MOST_CURVES:
        runs = [run for run in runs if not run.variation]
    histories = {
        f"{_run_title(run)} fold {run.evaluation.fold} seed {run.evaluation.seed}": run.record.history() for run in runs
    }
    save_figure(learning_curves_figure(board.title, histories), folder / f"{name}-curves.png")
    heading = "## Figures\n\n" if first else ""
    title = as_cell(board.title)
    return f"{heading}![scores, {title}]({name}-comparison.png)\n\n![curves, {title}]({name}-curves.png)"


def _trainings(runs: list[EvaluatedRun]) -> list[EvaluatedRun]:
    """Each training once, however often it was scored."""
    plain_last = sorted(runs, key=lambda run: run.variation, reverse=True)
    return sorted({run.run.id: run for run in plain_last}.values(), key=lambda run: run.place)


def _run_title(run: EvaluatedRun) -> str:
    return f"{run.model}, {run.variation.lstrip('/')}" if run.variation else run.model


def _belongs(run: EvaluatedRun, board: Board) -> bool:
    key = (run.evaluation.dataset, run.evaluation.protocol, run.evaluation.data_digest)
    return key == (board.dataset, board.protocol, board.data_digest)


def reference_text(board: Board, architectures: dict[str, str]) -> str:
    """Every model of the reference's protocol beside its row of the reference's table, in Markdown.

    Args:
        board: of any sections and protocol; there is no text where there is nothing to compare.
        architectures: the catalog's name of each model of the board.
    """
    reference = board.reference
    if reference is None or board.protocol != reference.protocol:
        return ""
    rows = []
    for row in board.rows:
        theirs = reference.table.get(architectures.get(row.model, ""))
        if theirs is None or row.trained is None:
            continue
        cells, missed = {"model": row.model, "runs": row.trained.runs}, []
        for metric, value in theirs.items():
            ours = row.metrics[metric].mean
            cells |= {metric: f"{ours:.4f}", f"reference {metric}": f"{value:.4f}"}
            if not (ours <= value if metric in LOWER_IS_BETTER else ours >= value):
                missed.append(metric)
        rows.append(cells | {"short of it in": ", ".join(missed) or "nothing"})
    if not rows:
        return ""
    leak = "Means; both test on warped copies of training sections. " if reference.leaks else "Means. "
    table = markdown_table(pd.DataFrame(rows))
    return f"## Against the reference's table\n\n{leak}Intervals stand above.\n\n{table}"


def published_text(published: Published) -> str:
    """Results that others published, in Markdown."""
    metrics = list(dict.fromkeys(metric for entry in published.entries for metric in entry.metrics))
    rows = [
        {"entry": entry.method} | {_heading(metric): _value(entry.metrics.get(metric)) for metric in metrics}
        for entry in published.entries
    ]
    return f"## Published entries\n\n{as_cell(published.on)}\n\n{markdown_table(pd.DataFrame(rows))}"


def _heading(metric: str) -> str:
    return {"v_rand": "V_rand", "v_info": "V_info"}.get(metric, metric.replace("_", " "))


def _value(value: float | list[float] | None) -> str:
    values = [] if value is None else value if isinstance(value, list) else [value]
    return "-".join(f"{each:.3f}" if round(each, 3) == each else f"{each:g}" for each in values)


def _cost_text(runs: list[EvaluatedRun]) -> str:
    runs = _trainings(runs)
    rows = []
    for run in runs:
        evaluation, outcome, lineage = run.evaluation, run.run.outcome, run.run.lineage
        flop, seconds = run.run.flop_per_crop * outcome.images_seen, outcome.training_seconds
        rows.append(
            {
                "run": f"{_run_title(run)} {evaluation.protocol}",
                "fold": evaluation.fold,
                "seed": evaluation.seed,
                "epochs": outcome.epochs,
                "threshold": evaluation.threshold,
                "minutes": f"{seconds / 60:.1f}",
                "TFLOP": f"{flop / 1e12:.1f}",
                "GFLOP/s": f"{flop / seconds / 1e9:.0f}",
                "device": lineage.device,
                "threads": lineage.threads,
                "torch": lineage.packages["torch"],
                "commit": str(lineage.git_commit)[:10] + ("+" if lineage.git_dirty else ""),
            }
        )
    total = sum(run.run.outcome.training_seconds for run in runs) / 60
    return (
        "## Cost\n\nTraining with validation; arithmetic of convolutions, forward and backward. A plus after the "
        f"commit means uncommitted changes.\n\n{markdown_table(pd.DataFrame(rows))}\n\n{total:.0f} minutes in all."
    )


def _sections(runs: list[EvaluatedRun]) -> pd.DataFrame:
    keys = ("dataset", "protocol", "fold", "seed", "threshold")
    tables = [
        run.table.assign(
            model=run.model, variation=run.variation, **{key: getattr(run.evaluation, key) for key in keys}
        )
        for run in runs
    ]
    table = pd.concat(tables)
    first = ["model", "variation", *keys, "section"]
    return table[[*first, *(column for column in table if column not in first)]]
