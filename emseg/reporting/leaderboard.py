"""The leaderboard: a table per data digest and protocol, since scores under different ones do not compare."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from emseg.data.datasets.card import Card, Reference
from emseg.data.datasets.known import card_of_data
from emseg.errors import InputError
from emseg.evaluation.bootstrap import PairedDifference, group_models, paired_difference, rank
from emseg.metrics.scoring import ALL_METRICS, Interval, Scores
from emseg.records.evaluation import DrawnMembranes, Evaluated, Evaluation, read_fitting
from emseg.records.run import Run
from emseg.records.transfer import is_transfer
from emseg.reporting.recipes import distinct_names
from emseg.settings import LEAKING_PROTOCOLS, CellMethod
from emseg.text import markdown, plain, spreadsheet

PRIMARY_METRIC = "v_rand"
SHOWN_METRICS = ("v_rand", "v_info", "iou", "iou_thresholded", "dice", "pixel_error", "rand_error", "warping_error")


@dataclass(frozen=True)
class Trained:
    """Of the runs behind a row of a board.

    Attributes:
        runs: how many there are.
        cells: how they tell cells apart.
        parameters: of the network.
        seconds_per_epoch: their mean.
        collapsed: whether one of them predicts the same everywhere.
    """

    runs: int
    cells: CellMethod
    parameters: int
    seconds_per_epoch: float
    collapsed: bool


@dataclass(frozen=True)
class Row:
    """A model of a board, or a baseline.

    Attributes:
        model: its name.
        metrics: over test sections, by their names.
        group: models of one group cannot be told apart.
        difference: of the primary metric to the best model; None of that one.
        trained: None of a baseline.
    """

    model: str
    metrics: dict[str, Interval]
    group: int
    difference: PairedDifference | None
    trained: Trained | None


@dataclass(frozen=True)
class Board:
    """One table: models scored on the same data under the same protocol, best V_rand first, then baselines."""

    dataset: str
    protocol: str
    data_digest: str
    sections: int
    leaks: bool
    rows: list[Row]
    card: Card | None = None
    """Of the known dataset that the pixels are of, whatever the dataset is called."""
    drawn_membranes: DrawnMembranes | None = None
    """In the labels of the sections."""

    @property
    def reference(self) -> Reference | None:
        """The paper whose table was made on the same sections."""
        return self.card.reference if self.card else None

    @property
    def facts(self) -> str:
        """What is to be known of the sections, in sentences."""
        drawn = f" {self.drawn_membranes}" if self.drawn_membranes else ""
        return f"Data digest {self.data_digest}.{drawn}"

    @property
    def trained(self) -> list[Row]:
        """The rows of models, without baselines."""
        return [row for row in self.rows if row.trained]

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
    """Every `evaluation` folder below `folder`; scores on other datasets than the run's own are none of them."""
    found = sorted(file.parent for file in folder.glob("**/evaluation/metrics.json"))
    return [evaluation for evaluation in found if not is_transfer(evaluation)]


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

    Runs of one name are one model; `names` gives the names, such as one per profile. Without it they are those of the
    models, and recipes that share one are told apart by what differs.

    A model's value is the mean over test sections, each first averaged over seeds; the interval is a bootstrap
    over sections.

    Raises:
        InputError: there are no evaluations, or one is damaged.
    """
    if not evaluations:
        raise InputError("no evaluated runs here; run `make benchmark`, or `emseg train`, `calibrate` and `evaluate`")
    groups: dict[tuple[str, str, str], dict[Path, tuple[Run, Evaluated]]] = {}
    for folder in evaluations:
        run, evaluated = read_fitting(folder)
        key = evaluated.evaluation
        groups.setdefault((key.dataset, key.protocol, key.data_digest), {})[folder] = run, evaluated
    boards = []
    for tested_on, runs in sorted(groups.items(), key=lambda group: group[0]):
        own = names or distinct_names({folder: run for folder, (run, _) in runs.items()})
        boards.append(_board(*tested_on, [(own[folder], *pair) for folder, pair in runs.items()]))
    return boards


def reference_means(board: Board) -> dict[str, dict[str, float]]:
    """The reference's table, to set beside a board of the sections it was made on.

    Returns:
        Means by metric, by the name of the model.
    """
    if board.reference is None:
        return {}
    return {f"reference: {name}": dict(means) for name, means in board.reference.table.items()}


def as_table(board: Board) -> pd.DataFrame:
    """The board and the reference's rows as text: a row per model."""
    rows = []
    for row in board.rows:
        trained, gap = row.trained, row.difference
        rows.append(
            {
                "model": row.model + (" (collapsed)" if trained and trained.collapsed else ""),
                "protocol": _protocol(board),
                "cells by": trained.cells if trained else "",
                "group": str(row.group),
                **{name: str(row.metrics[name]) if name in row.metrics else "" for name in SHOWN_METRICS},
                "V_rand to best": f"{gap.mean:.4f} [{gap.low:.4f}, {gap.high:.4f}]" if gap else "",
                "parameters": f"{trained.parameters:,}" if trained else "",
                "s/epoch": f"{trained.seconds_per_epoch:.1f}" if trained else "",
            }
        )
    if board.reference is not None:
        for model, means in reference_means(board).items():
            shown = {name: f"{means[name]:.4f}" for name in SHOWN_METRICS if name in means}
            rows.append(dict.fromkeys(rows[0], "") | {"model": model, "protocol": _protocol(board.reference)} | shown)
    return pd.DataFrame(rows)


def as_numbers(boards: list[Board]) -> pd.DataFrame:
    """Boards as numbers, for CSV: a row per model, columns METRIC, METRIC_low, METRIC_high."""
    rows = []
    for board in boards:
        tested = {"dataset": board.dataset, "protocol": board.protocol, "leaks": board.leaks}
        for row in board.rows:
            gap, trained = row.difference, row.trained
            flat = tested | {"data_digest": board.data_digest, "model": row.model, "group": row.group}
            rows.append(
                flat
                | {f"difference_{key}": getattr(gap, key, None) for key in _OF_A_DIFFERENCE}
                | {key: value for name in ALL_METRICS for key, value in _numbers(name, row.metrics.get(name)).items()}
                | {key: getattr(trained, key, None) for key in _OF_TRAINED}
            )
        if (reference := board.reference) is not None:
            theirs = tested | {"protocol": reference.protocol, "leaks": reference.leaks, "data_digest": ""}
            for model, means in reference_means(board).items():
                rows.append(dict.fromkeys(rows[0]) | theirs | {"model": model} | means)
    return pd.DataFrame(rows).drop_duplicates(ignore_index=True)


_OF_A_DIFFERENCE = ("mean", "low", "high", "p_value", "wilcoxon_p")
_OF_TRAINED = ("cells", "parameters", "seconds_per_epoch", "runs", "collapsed")


def _numbers(name: str, interval: Interval | None) -> dict[str, float | None]:
    mean, low, high = (interval.mean, interval.low, interval.high) if interval else (None, None, None)
    return {name: mean, f"{name}_low": low, f"{name}_high": high}


def as_csv(table: pd.DataFrame) -> str:
    """A table of numbers and text as CSV; text stays text where a spreadsheet opens it."""
    shown = table.map(lambda value: spreadsheet(value) if isinstance(value, str) else value)
    return shown.to_csv(index=False, float_format="%.6f")


def as_markdown(boards: list[Board]) -> str:
    """Boards as Markdown."""
    parts = []
    for board in boards:
        parts.append(f"### {as_cell(board.title)}\n\n{markdown_table(as_table(board))}\n\n{as_cell(board.facts)}\n")
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
    references = {reference.protocol: reference for board in boards if (reference := board.reference)}
    return _NOTE + "".join(map(_reference_note, references.values()))


_NOTE = (
    "Mean over test sections, 95 % bootstrap interval over sections in brackets. Models of one group cannot be told "
    "apart by V_rand (paired bootstrap over sections and seeds, Holm-corrected, 5 %). By threshold, V_rand and V_info "
    "each use the one at which it is best on validation sections, warping error that of V_rand; cells by "
    "agglomeration are merged down to 0.5, and warping error is that of their mask; pixel metrics use 0.5."
)


def _protocol(made_under: Board | Reference) -> str:
    return made_under.protocol + (" (leaks)" if made_under.leaks else "")


def _reference_note(reference: Reference) -> str:
    paper = f" ({reference.citation})" if reference.citation else ""
    leaks = " tests on warped copies of training sections: an upper bound," if reference.leaks else " is"
    return (
        f" Rows marked reference are those of the reference paper{paper}, whose protocol{leaks} comparable only with "
        f"protocol {reference.protocol}."
    )


def _board(dataset: str, protocol: str, digest: str, runs: list[tuple[str, Run, Evaluated]]) -> Board:
    tables: dict[str, list[pd.DataFrame]] = {}
    models: dict[str, list[Evaluation]] = {}
    baselines: dict[str, list[pd.DataFrame]] = {}
    card = None
    for model, run, evaluated in runs:
        card = card or card_of_data(digest, run.dataset_card)
        seed = evaluated.evaluation.seed
        tables.setdefault(model, []).append(evaluated.table.assign(seed=seed))
        models.setdefault(model, []).append(evaluated.evaluation)
        methods = sorted({each.cells for each in models[model]})
        if len(methods) > 1:
            raise InputError(f"runs of {model} were scored with cells by {' and by '.join(methods)}; score them alike")
        for name, part in evaluated.baselines.assign(seed=seed).groupby("model", sort=False):
            baselines.setdefault(str(name), []).append(part.drop(columns="model"))
    every = tables | baselines
    scores = {name: Scores(protocol, digest, pd.concat(parts)) for name, parts in every.items()}
    best = rank({name: scores[name] for name in tables}, PRIMARY_METRIC)[0]
    groups = group_models(scores, PRIMARY_METRIC)

    def row(name: str, trained: Trained | None) -> Row:
        metrics = Scores(protocol, digest, average_per_section(every[name])).summary()
        gap = paired_difference(scores[name], scores[best], PRIMARY_METRIC) if name != best else None
        return Row(name, metrics, groups[name], gap, trained)

    rows = [row(model, _trained(evaluations)) for model, evaluations in models.items()]
    rows.sort(key=lambda row: -row.metrics[PRIMARY_METRIC].mean)
    rows += [row(name, None) for name in baselines]
    sections = max(len(average_per_section(parts)) for parts in tables.values())
    drawn = next((own[0].drawn_membranes for own in models.values() if own[0].drawn_membranes), None)
    return Board(dataset, protocol, digest, sections, protocol in LEAKING_PROTOCOLS, rows, card, drawn)


def _trained(evaluations: list[Evaluation]) -> Trained:
    first = evaluations[0]
    seconds = float(np.mean([each.seconds_per_epoch for each in evaluations]))
    collapsed = any(each.collapsed for each in evaluations)
    return Trained(len(evaluations), first.cells, first.parameters, seconds, collapsed)


def average_per_section(tables: list[pd.DataFrame]) -> pd.DataFrame:
    """Scores per section, each averaged over the runs; tables have the column `seed`."""
    return pd.concat(tables).drop(columns="seed").groupby("section", as_index=False).mean()
