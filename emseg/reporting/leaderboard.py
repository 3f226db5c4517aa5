"""The leaderboard: a table per data digest and protocol, since scores under different ones do not compare."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from emseg.errors import InputError
from emseg.evaluation.bootstrap import group_models, paired_difference, rank
from emseg.metrics.scoring import ALL_METRICS, Scores
from emseg.models import catalog_entry, list_models
from emseg.records.evaluation import read_fitting
from emseg.settings import LEAKING_PROTOCOLS
from emseg.text import markdown, plain, spreadsheet

STUDY_DATASET, STUDY_PROTOCOL = "isbi2012", "paper"
PRIMARY_METRIC = "v_rand"
SHOWN_METRICS = ("v_rand", "v_info", "iou", "iou_thresholded", "dice", "pixel_error", "rand_error", "warping_error")


@dataclass(frozen=True)
class Board:
    """One table: models scored on the same data under the same protocol, best V_rand first, then baselines.

    `rows` are {model, runs, cells, parameters, seconds_per_epoch, collapsed, group, difference to the best model,
    metric: {mean, low, high}}.
    """

    dataset: str
    protocol: str
    data_digest: str
    sections: int
    leaks: bool
    rows: list[dict[str, Any]]

    @property
    def title(self) -> str:
        """What the scores belong to, in one line."""
        tested = (
            f"LEAKS: tested on {self.sections} warped copies of training sections"
            if self.leaks
            else f"{self.sections} test sections"
        )
        return f"{self.dataset}, protocol {self.protocol}, {tested}"


def find_evaluations(folder: Path) -> list[Path]:
    """Every `evaluation` folder below `folder`."""
    return sorted(file.parent for file in folder.glob("**/evaluation/metrics.json"))


def sound_evaluations(folder: Path) -> tuple[list[Path], list[str]]:
    """Every `evaluation` folder below `folder` that can be believed, and a sentence for each that cannot."""
    sound, damaged = [], []
    for evaluation in find_evaluations(folder):
        try:
            read_fitting(evaluation)
        except InputError as damage:
            damaged.append(str(damage))
        else:
            sound.append(evaluation)
    return sound, damaged


def make_boards(evaluations: list[Path], names: dict[Path, str] | None = None) -> list[Board]:
    """Group evaluated runs by data digest and protocol, and rank the models of each group.

    Runs of one name are one model; `names` gives other names than the model's own, such as one per profile.

    A model's value is the mean over test sections, each first averaged over seeds; the interval is a bootstrap
    over sections.

    Raises:
        InputError: there are no evaluations, or one is damaged.
    """
    if not evaluations:
        raise InputError("no evaluated runs here; run `make benchmark`, or `emseg train`, `calibrate` and `evaluate`")
    groups: dict[tuple[str, str, str], list[Path]] = {}
    for folder in evaluations:
        _, metrics, _, _ = read_fitting(folder)
        groups.setdefault((metrics["dataset"], metrics["protocol"], metrics["data_digest"]), []).append(folder)
    return [_board(*key, folders, names or {}) for key, folders in sorted(groups.items())]


def study_rows(board: Board) -> list[dict[str, Any]]:
    """The reference study's table, to set beside a board of the sections it was made on; its protocol leaks."""
    if board.dataset != STUDY_DATASET:
        return []
    return [
        {"model": f"study: {name}", "study": True} | {metric: {"mean": value} for metric, value in study.items()}
        for name in list_models()
        if (study := catalog_entry(name).study)
    ]


def as_table(board: Board) -> pd.DataFrame:
    """The board and the study's rows as text: a row per model."""
    rows = []
    for row in [*board.rows, *study_rows(board)]:
        is_study = row.get("study", False)
        cells = {
            "model": row["model"] + (" (collapsed)" if row.get("collapsed") else ""),
            "protocol": f"{STUDY_PROTOCOL} (leaks)" if is_study or board.leaks else board.protocol,
        }
        cells["cells by"] = row.get("cells", "")
        cells["group"] = str(row.get("group", ""))
        cells |= {metric: _cell(row.get(metric)) for metric in SHOWN_METRICS}
        cells["V_rand to best"] = _cell(row.get("difference"))
        cells["parameters"] = f"{row['parameters']:,}" if "parameters" in row else ""
        cells["s/epoch"] = f"{row['seconds_per_epoch']:.1f}" if "seconds_per_epoch" in row else ""
        rows.append(cells)
    return pd.DataFrame(rows)


def as_numbers(boards: list[Board]) -> pd.DataFrame:
    """Boards as numbers, for CSV: a row per model, columns METRIC, METRIC_low, METRIC_high."""
    rows = []
    for board in boards:
        for row in [*board.rows, *study_rows(board)]:
            is_study = row.get("study", False)
            flat = {
                "dataset": board.dataset,
                "protocol": STUDY_PROTOCOL if is_study else board.protocol,
                "leaks": is_study or board.leaks,
                "data_digest": "" if is_study else board.data_digest,
                "model": row["model"],
            }
            difference = row.get("difference") or {}
            flat["group"] = row.get("group")
            flat |= {
                f"difference_{key}": difference.get(key) for key in ("mean", "low", "high", "p_value", "wilcoxon_p")
            }
            for metric in ALL_METRICS:
                parts = row.get(metric, {})
                flat[metric] = parts.get("mean")
                flat |= {f"{metric}_{end}": parts.get(end) for end in ("low", "high")}
            flat |= {key: row.get(key) for key in ("cells", "parameters", "seconds_per_epoch", "runs", "collapsed")}
            rows.append(flat)
    return pd.DataFrame(rows).drop_duplicates(ignore_index=True)


def as_csv(table: pd.DataFrame) -> str:
    """A table of numbers and text as CSV; text stays text where a spreadsheet opens it."""
    shown = table.map(lambda value: spreadsheet(value) if isinstance(value, str) else value)
    return shown.to_csv(index=False, float_format="%.6f")


def as_markdown(boards: list[Board]) -> str:
    """Boards as Markdown."""
    parts = []
    for board in boards:
        title, digest = as_cell(board.title), as_cell(board.data_digest)
        parts.append(f"### {title}\n\n{markdown_table(as_table(board))}\n\nData digest {digest}.\n")
    return "\n".join(parts) + f"\n{note(boards)}\n"


def markdown_table(table: pd.DataFrame) -> str:
    """A table in Markdown; what its cells hold is shown, never obeyed."""
    lines = ["| " + " | ".join(table.columns) + " |", "|" + "---|" * len(table.columns)]
    lines += ["| " + " | ".join(map(as_cell, row)) + " |" for row in table.itertuples(index=False)]
    return "\n".join(lines)


def as_cell(value: object) -> str:
    """A value in Markdown. Plain words and numbers stay as they are, so that the text reads well unrendered."""
    text = plain(value)
    is_harmless = _WORDS.fullmatch(text) and not _LINK_OR_EMPHASIS.search(text)
    return text if is_harmless or _INTERVAL.fullmatch(text) else markdown(text)


_WORDS = re.compile(r"[\w .,;:()+%/'-]*")
_LINK_OR_EMPHASIS = re.compile(r"://|www\.|\b_|_\b|^[-+]", re.IGNORECASE)
_INTERVAL = re.compile(r"[-+]?[\d.]+( \[[-+]?[\d.]+, [-+]?[\d.]+\])?")


def note(boards: list[Board]) -> str:
    """What a reader of boards must know."""
    return _NOTE + (_STUDY_NOTE if any(board.dataset == STUDY_DATASET for board in boards) else "")


_NOTE = (
    "Mean over test sections, 95 % bootstrap interval over sections in brackets. Models of one group cannot be told "
    "apart by V_rand (paired bootstrap over sections and seeds, Holm-corrected, 5 %). By threshold, V_rand and V_info "
    "each use the one at which it is best on validation sections, warping error that of V_rand; cells by "
    "agglomeration are merged down to 0.5, and warping error is that of their mask; pixel metrics use 0.5."
)
_STUDY_NOTE = (
    " Rows marked study are the reference study's, whose protocol tests on warped copies of training sections: "
    "an upper bound, comparable only with protocol paper."
)


def _board(dataset: str, protocol: str, digest: str, folders: list[Path], names: dict[Path, str]) -> Board:
    tables: dict[str, list[pd.DataFrame]] = {}
    facts: dict[str, list[dict[str, Any]]] = {}
    baselines: dict[str, list[pd.DataFrame]] = {}
    for folder in folders:
        _, metrics, table, baseline = read_fitting(folder)
        baseline = baseline.assign(seed=metrics["seed"])
        model = names.get(folder, metrics["model"])
        tables.setdefault(model, []).append(table.assign(seed=metrics["seed"]))
        facts.setdefault(model, []).append(metrics)
        methods = sorted({run.get("cells", "threshold") for run in facts[model]})
        if len(methods) > 1:
            raise InputError(f"runs of {model} were scored with cells by {' and by '.join(methods)}; score them alike")
        for name, part in baseline.groupby("model", sort=False):
            baselines.setdefault(str(name), []).append(part.drop(columns="model"))

    def summary(parts: list[pd.DataFrame]) -> dict[str, dict[str, float]]:
        return Scores(protocol, digest, _average_per_section(parts)).summary()

    scores = {name: Scores(protocol, digest, pd.concat(parts)) for name, parts in (tables | baselines).items()}
    best = rank({name: scores[name] for name in tables}, PRIMARY_METRIC)[0]
    groups = group_models(scores, PRIMARY_METRIC)
    differences = {
        name: paired_difference(scores[name], scores[best], PRIMARY_METRIC) for name in scores if name != best
    }

    def standing(name: str) -> dict[str, Any]:
        return {"group": groups[name], "difference": asdict(differences[name]) if name != best else None}

    rows: list[dict[str, Any]] = [
        {
            "model": model,
            "runs": len(runs),
            "cells": runs[0].get("cells", "threshold"),
            "parameters": runs[0]["parameters"],
            "seconds_per_epoch": float(np.mean([run["seconds_per_epoch"] for run in runs])),
            "collapsed": any(run["collapsed"] for run in runs),
            **summary(tables[model]),
            **standing(model),
        }
        for model, runs in facts.items()
    ]
    rows.sort(key=lambda row: -row[PRIMARY_METRIC]["mean"])
    rows += [{"model": name, **summary(parts), **standing(name)} for name, parts in baselines.items()]
    sections = max(len(_average_per_section(parts)) for parts in tables.values())
    return Board(dataset, protocol, digest, sections, protocol in LEAKING_PROTOCOLS, rows)


def _average_per_section(tables: list[pd.DataFrame]) -> pd.DataFrame:
    return pd.concat(tables).drop(columns="seed").groupby("section", as_index=False).mean()


def _cell(parts: dict[str, float] | None) -> str:
    if parts is None:
        return ""
    interval = f" [{parts['low']:.4f}, {parts['high']:.4f}]" if "low" in parts else ""
    return f"{parts['mean']:.4f}{interval}"
