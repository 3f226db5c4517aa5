"""A folder of evaluated runs as one report: scores with intervals, ablations, learning curves, cost.

report.md       what a reader wants to know
models.csv      every board as numbers
sections.csv    a row per run and test section
ablations.csv   what each change of a recipe was worth
*.png           figures
records/        the runs without weights and pictures, from which the report can be made again
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd

from emseg.errors import InputError
from emseg.files import atomic_folder, write_text
from emseg.metrics.scoring import LOWER_IS_BETTER, THRESHOLDED_METRICS, Scores
from emseg.models import catalog_entry
from emseg.reporting.comparison import paired_difference
from emseg.reporting.evaluation import EVALUATION_TABLES, read_evaluation
from emseg.reporting.figures import comparison_figure, learning_curves_figure, save_figure
from emseg.reporting.leaderboard import (
    STUDY_PROTOCOL,
    Board,
    as_markdown,
    as_numbers,
    find_evaluations,
    make_boards,
    markdown_table,
)
from emseg.training.record import RunRecord

_FIGURE_METRICS = ["v_rand", "v_info", "pixel_error"]
_ABLATION_METRICS = ("v_rand", "v_info", "pixel_error")
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


@dataclass(frozen=True)
class EvaluatedRun:
    """One run with its scores; `place` is where it lies below the folder that was searched."""

    place: Path
    folder: Path
    record: RunRecord
    facts: dict[str, Any]
    metrics: dict[str, Any]
    table: pd.DataFrame

    @property
    def model(self) -> str:
        """The model and, where the run came from a list of jobs, its profile."""
        profile = self.facts.get("profile")
        return f"{self.facts['model']} ({profile})" if profile else self.facts["model"]

    @property
    def variation(self) -> str:
        """What a list of jobs calls this variation of the profile: FAMILY, FAMILY/CHANGE, or nothing."""
        return self.facts.get("variation") or ""

    @property
    def scores(self) -> Scores:
        """Scores per section, with the seed."""
        table = self.table.assign(seed=self.metrics["seed"])
        return Scores(self.metrics["protocol"], self.metrics["data_digest"], table)


def read_runs(*folders: Path) -> list[EvaluatedRun]:
    """Every evaluated run below `folders`; where two have one at the same place, that of the later folder.

    Raises:
        InputError: a run's files are damaged or missing.
    """
    evaluations = {
        evaluation.parent.relative_to(folder): evaluation
        for folder in folders
        for evaluation in find_evaluations(folder)
    }
    runs = []
    for place, evaluation in sorted(evaluations.items()):
        record = RunRecord.open(evaluation.parent)
        try:
            metrics, table, _ = read_evaluation(evaluation)
            runs.append(EvaluatedRun(place, evaluation, record, record.read(), metrics, table))
        except (OSError, ValueError) as error:
            reason = " ".join(str(error).split())
            raise InputError(f"{evaluation.parent} is damaged ({reason}); evaluate it again or remove it") from error
    return runs


def ablations(runs: list[EvaluatedRun]) -> pd.DataFrame:
    """What each change was worth: runs named FAMILY/CHANGE minus the run named FAMILY, paired by section.

    A change may be another way to score the same trained networks. Runs with agglomeration are compared with
    thresholding of the same probability.

    Columns model, protocol, change, metric, mean, low, high, p_value, runs; `mean` is the change's effect.
    """
    rows: list[dict[str, Any]] = []

    def compare(
        model: str, protocol: str, change: str, changed: list[Scores], base: list[Scores], same_networks: bool = False
    ) -> None:
        for metric in _ABLATION_METRICS:
            difference = vars(paired_difference(_pooled(changed), _pooled(base), metric, same_networks=same_networks))
            row = {"model": model, "protocol": protocol, "change": change, "runs": len(base)}
            rows.append(row | {key: difference[key] for key in ("metric", "mean", "low", "high", "p_value")})

    for model, protocol, variation in sorted({(r.model, r.metrics["protocol"], r.variation) for r in runs}):
        family, _, change = variation.partition("/")
        changed, base = (
            {
                (r.metrics["fold"], r.metrics["seed"]): r
                for r in runs
                if (r.model, r.metrics["protocol"], r.variation) == (model, protocol, name)
            }
            for name in (variation, family)
        )
        common = sorted(changed.keys() & base.keys())
        if change and common:
            same_networks = all(changed[key].facts["id"] == base[key].facts["id"] for key in common)
            pairs = [changed[key].scores for key in common], [base[key].scores for key in common]
            compare(model, protocol, change, *pairs, same_networks=same_networks)
        scores = [run.scores for run in base.values()]
        agglomerated = [each for each in scores if set(THRESHOLDED_METRICS) <= set(each.per_section)]
        if agglomerated and not change:
            label = f"{family}: cells by threshold" if family else "cells by threshold"
            thresholded = [_thresholded(each) for each in agglomerated]
            compare(model, protocol, label, thresholded, agglomerated, same_networks=True)
    return pd.DataFrame(rows)


def _thresholded(scores: Scores) -> Scores:
    own = {name.removesuffix("_thresholded"): scores.per_section[name] for name in THRESHOLDED_METRICS}
    return replace(scores, per_section=scores.per_section.assign(**own))


def write_report(runs_folders: list[Path], folder: Path, title: str, command: str) -> Path:
    """Write the report of every evaluated run below `runs_folders`; returns report.md.

    Args:
        runs_folders: where to look for runs, such as the records of a report and the runs that join it.
        folder: where the report goes.
        title: its heading.
        command: how the runs were made.

    Raises:
        InputError: there are no evaluated runs, one is damaged, or `folder` cannot be made.
    """
    runs = read_runs(*runs_folders)
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
        name = f"{board.dataset}-{board.protocol}"
        parts.append(_figures(folder, name, board, [run for run in runs if _belongs(run, board)], first=index == 0))
    architectures = {run.model: run.facts["settings"].get("architecture") or run.facts["model"] for run in main_runs}
    parts += [study_text(board, architectures) for board in boards if board.protocol == STUDY_PROTOCOL]
    parts.append("## Published entries\n\nOn the challenge's own test stack, whose labels are not public, so they do ")
    parts[-1] += "not rank with the tables above: a held-out block of six or a fold's sections is easier or harder.\n\n"
    parts[-1] += markdown_table(_PUBLISHED)
    table = ablations(runs)
    if len(table):
        parts.append(_ablation_text(table))
        write_text(folder / "ablations.csv", table.to_csv(index=False, float_format="%.6f"))
    parts.append(_cost_text(runs))
    write_text(folder / "models.csv", as_numbers(boards).to_csv(index=False, float_format="%.6f"))
    write_text(folder / "sections.csv", _sections(runs).to_csv(index=False, float_format="%.6f"))
    _keep_records(runs, folder / "records")
    write_text(folder / "report.md", "\n\n".join(part.strip() for part in parts if part) + "\n")
    return folder / "report.md"


def _keep_records(runs: list[EvaluatedRun], folder: Path) -> None:
    with atomic_folder(folder) as kept:
        for run in runs:
            files = [run.record.folder / "record.json", run.record.history_file]
            files += [run.folder / name for name in EVALUATION_TABLES]
            for file in files:
                target = kept / run.place / file.relative_to(run.folder.parent)
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(file, target)


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
    return f"{heading}![scores, {board.title}]({name}-comparison.png)\n\n![curves, {board.title}]({name}-curves.png)"


def _trainings(runs: list[EvaluatedRun]) -> list[EvaluatedRun]:
    """Each training once, however often it was scored."""
    plain_last = sorted(runs, key=lambda run: run.variation, reverse=True)
    return sorted({run.facts["id"]: run for run in plain_last}.values(), key=lambda run: run.place)


def _run_title(run: EvaluatedRun) -> str:
    return f"{run.model}, {run.variation.lstrip('/')}" if run.variation else run.model


def _belongs(run: EvaluatedRun, board: Board) -> bool:
    key = (run.metrics["dataset"], run.metrics["protocol"], run.metrics["data_digest"])
    return key == (board.dataset, board.protocol, board.data_digest)


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


def _ablation_text(table: pd.DataFrame) -> str:
    shown = pd.DataFrame({key: table[key] for key in ("model", "protocol", "change", "runs", "metric")})
    shown["difference"] = [f"{r.mean:+.4f} [{r.low:+.4f}, {r.high:+.4f}]" for r in table.itertuples()]
    wide = shown.pivot(index=["model", "protocol", "change", "runs"], columns="metric", values="difference")
    wide = wide.reset_index()[["model", "protocol", "change", "runs", *_ABLATION_METRICS]]
    verdicts: dict[str, list[str]] = {}
    for change, rows in table.groupby("change", sort=False):
        effects = [_effect(row) for row in rows.itertuples()]
        verdict = (
            "Makes something better and something else worse"
            if {-1, 1} <= set(effects)
            else "Makes something worse"
            if -1 in effects
            else "Makes something better and nothing worse"
            if 1 in effects
            else "No effect that these sections can show"
        )
        verdicts.setdefault(verdict, []).append(str(change))
    sentences = [f"{verdict}: {'; '.join(changes)}." for verdict, changes in verdicts.items()]
    return (
        "## What each ingredient is worth\n\nEffect of one change of a recipe: changed minus unchanged, same "
        "sections and seeds, 95 % interval over sections and seeds.\n\n"
        f"{markdown_table(wide)}\n\n{' '.join(sentences)}"
    )


def _effect(row: Any) -> int:
    """1 where a change helps beyond its interval, -1 where it harms, 0 where neither can be said."""
    if row.low <= 0 <= row.high:
        return 0
    return 1 if (row.mean < 0) == (row.metric in LOWER_IS_BETTER) else -1


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


def _pooled(scores: list[Scores]) -> Scores:
    return replace(scores[0], per_section=pd.concat([part.per_section for part in scores]))
