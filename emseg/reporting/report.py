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

from emseg.errors import InputError
from emseg.files import write_text
from emseg.metrics.scoring import LOWER_IS_BETTER
from emseg.models import catalog_entry
from emseg.reporting.ablation import ablation_text, ablations
from emseg.reporting.figures import comparison_figure, learning_curves_figure, save_figure
from emseg.reporting.leaderboard import (
    STUDY_DATASET,
    STUDY_PROTOCOL,
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
_PUBLISHED = pd.DataFrame(
    [
        ("best published (SFCNN, mutex watershed; about)", "0.987-0.988", "0.991-0.992", "0.058"),
        ("DMCN (Chen et al. 2016)", "0.9768", "0.9887", ""),
        ("U-Net 2015 (mean of 7 rotations)", "0.9728", "0.9866", "0.0611"),
        ("ordinary U-Net re-implementations", "0.932-0.966", "0.970-0.983", ""),
        ("second human observer", "", "", "0.067"),
    ],
    columns=["entry", "V_rand", "V_info", "pixel error"],
)
"""On the challenge's own test stack (Arganda-Carreras et al. 2015 and the challenge's server)."""


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
        f"Runs made by `{command}`, the report by `python -m pipelines.report`.",
        as_markdown(boards),
    ]
    for index, board in enumerate(boards):
        name = re.sub(r"[^\w-]+", "-", f"{board.dataset}-{board.protocol}")
        parts.append(_figures(folder, name, board, [run for run in runs if _belongs(run, board)], first=index == 0))
    architectures = {run.model: run.facts["settings"].get("architecture") or run.facts["model"] for run in main_runs}
    parts += [study_text(board, architectures) for board in boards if _is_the_studys(board)]
    parts.append("## Published entries\n\nOn the challenge's own test stack, whose labels are not public, so they do ")
    parts[-1] += "not rank with the tables above: a held-out block of six or a fold's sections is easier or harder.\n\n"
    parts[-1] += markdown_table(_PUBLISHED)
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
    models = [row for row in board.rows if "runs" in row]
    save_figure(comparison_figure(board.title, models, _FIGURE_METRICS), folder / f"{name}-comparison.png")
    runs = _trainings(runs)
    if len(runs) > _MOST_CURVES:
        runs = list({(run.model, run.variation): run for run in reversed(runs)}.values())[::-1]
    if len(runs) > _MOST_CURVES:
        runs = [run for run in runs if not run.variation]
    histories = {
        f"{_run_title(run)} fold {run.metrics['fold']} seed {run.metrics['seed']}": run.record.history() for run in runs
    }
    save_figure(learning_curves_figure(board.title, histories), folder / f"{name}-curves.png")
    heading = "## Figures\n\n" if first else ""
    title = as_cell(board.title)
    return f"{heading}![scores, {title}]({name}-comparison.png)\n\n![curves, {title}]({name}-curves.png)"


def _trainings(runs: list[EvaluatedRun]) -> list[EvaluatedRun]:
    """Each training once, however often it was scored."""
    plain_last = sorted(runs, key=lambda run: run.variation, reverse=True)
    return sorted({run.facts["id"]: run for run in plain_last}.values(), key=lambda run: run.place)


def _run_title(run: EvaluatedRun) -> str:
    return f"{run.model}, {run.variation.lstrip('/')}" if run.variation else run.model


def _belongs(run: EvaluatedRun, board: Board) -> bool:
    key = (run.metrics["dataset"], run.metrics["protocol"], run.metrics["data_digest"])
    return key == (board.dataset, board.protocol, board.data_digest)


def _is_the_studys(board: Board) -> bool:
    return (board.dataset, board.protocol) == (STUDY_DATASET, STUDY_PROTOCOL)


def study_text(board: Board, architectures: dict[str, str]) -> str:
    """Every model of the study's protocol beside its row of the study's table, in Markdown.

    Args:
        board: of protocol `paper`.
        architectures: the catalog's name of each model of the board.
    """
    rows = []
    for row in board.rows:
        study = catalog_entry(architectures[row["model"]]).study if row["model"] in architectures else None
        if study is None:
            continue
        cells, missed = {"model": row["model"], "runs": row["runs"]}, []
        for metric, theirs in study.items():
            ours = row[metric]["mean"]
            cells |= {metric: f"{ours:.4f}", f"study's {metric}": f"{theirs:.4f}"}
            if not (ours <= theirs if metric in LOWER_IS_BETTER else ours >= theirs):
                missed.append(metric)
        rows.append(cells | {"short of it in": ", ".join(missed) or "nothing"})
    if not rows:
        return ""
    return (
        "## Against the study's table\n\nMeans; both test on warped copies of training sections. Intervals stand above."
        f"\n\n{markdown_table(pd.DataFrame(rows))}"
    )


def _cost_text(runs: list[EvaluatedRun]) -> str:
    runs = _trainings(runs)
    rows = []
    for run in runs:
        facts = run.facts
        flop, seconds = facts["flop_per_crop"] * facts["images_seen"], facts["training_seconds"]
        lineage = facts["lineage"]
        rows.append(
            {
                "run": f"{_run_title(run)} {run.metrics['protocol']}",
                "fold": run.metrics["fold"],
                "seed": run.metrics["seed"],
                "epochs": facts["epochs"],
                "threshold": run.metrics["threshold"],
                "minutes": f"{seconds / 60:.1f}",
                "TFLOP": f"{flop / 1e12:.1f}",
                "GFLOP/s": f"{flop / seconds / 1e9:.0f}",
                "device": lineage["device"],
                "threads": lineage["threads"],
                "torch": lineage["packages"]["torch"],
                "commit": str(lineage["git_commit"])[:10] + ("+" if lineage["git_dirty"] else ""),
            }
        )
    total = sum(run.facts["training_seconds"] for run in runs) / 60
    return (
        "## Cost\n\nTraining with validation; arithmetic of convolutions, forward and backward. A plus after the "
        f"commit means uncommitted changes.\n\n{markdown_table(pd.DataFrame(rows))}\n\n{total:.0f} minutes in all."
    )


def _sections(runs: list[EvaluatedRun]) -> pd.DataFrame:
    keys = ("dataset", "protocol", "fold", "seed", "threshold")
    tables = [
        run.table.assign(model=run.model, variation=run.variation, **{key: run.metrics[key] for key in keys})
        for run in runs
    ]
    table = pd.concat(tables)
    first = ["model", "variation", *keys, "section"]
    return table[[*first, *(column for column in table if column not in first)]]
