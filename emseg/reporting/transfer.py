"""How far what was trained carries over: a matrix of models on datasets, each score beside the one at home."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from emseg.errors import InputError
from emseg.metrics.scoring import Interval, Scores
from emseg.records.evaluation import read_fitting
from emseg.records.record import RunRecord
from emseg.records.run import Run
from emseg.records.transfer import Home, Transferred, read_transferred, transfers_of
from emseg.reporting.leaderboard import average_per_section, find_evaluations, markdown_table
from emseg.reporting.recipes import distinct_names
from emseg.settings import LEAKING_PROTOCOLS, TRANSFER
from emseg.text import plain

WIDE_METRICS = ("v_rand", "v_info", "pixel_error")
_NOT_SCORED = "-"
_AT_HOME = "home"
_MOST_COMMANDS = 8


@dataclass(frozen=True)
class Candidate:
    """One trained network with its scores at home and elsewhere.

    Attributes:
        model: what to call it; candidates of one name and home are one row.
        reference: what `emseg evaluate` is told.
        home: what it was trained on.
        table: its scores at home, a row per section, with the seed.
        transfers: its scores on other datasets.
    """

    model: str
    reference: str
    home: Home
    table: pd.DataFrame
    transfers: list[Transferred]


@dataclass(frozen=True)
class Row:
    """A model of the matrix.

    Attributes:
        model: its name.
        home: what it was trained on.
        at_home: metrics under its honest protocol, by their names.
        elsewhere: the same by dataset and data digest.
    """

    model: str
    home: Home
    at_home: dict[str, Interval]
    elsewhere: dict[tuple[str, str], dict[str, Interval]]


@dataclass(frozen=True)
class Matrix:
    """Models on datasets.

    Attributes:
        rows: a model each.
        columns: name and data digest of each dataset; the digest is None where nothing was scored on it yet.
        commands: that score what was not scored yet.
    """

    rows: list[Row]
    columns: list[tuple[str, str | None]]
    commands: list[str]

    def heading(self, column: tuple[str, str | None]) -> str:
        """What a dataset is called: with its digest, where there are two of one name."""
        name, digest = column
        is_alone = [other for other, _ in self.columns].count(name) == 1
        return name if is_alone or digest is None else f"{name} ({digest[:8]})"


def candidates_below(folder: Path) -> tuple[list[Candidate], list[str]]:
    """Every evaluated run below a folder, and a sentence for each evaluation or transfer that cannot be believed."""
    known, damaged = {}, []
    for evaluation in find_evaluations(folder):
        try:
            known[evaluation] = read_fitting(evaluation)
        except InputError as error:
            damaged.append(str(error))
    found = []
    homes = {place: _home(run) for place, (run, _) in known.items()}
    for home in dict.fromkeys(map(_key, homes.values())):
        own = {place: known[place] for place in known if _key(homes[place]) == home}
        names = distinct_names({place: run for place, (run, _) in own.items()})
        for place, (_, evaluated) in own.items():
            transfers, wrong = sound_transfers(RunRecord.open(place.parent))
            damaged += wrong
            table = evaluated.scores.per_section
            found.append(Candidate(names[place], str(place.parent), homes[place], table, transfers))
    return found, damaged


def _home(run: Run) -> Home:
    return Home(dataset=run.dataset, protocol=run.protocol, data_digest=run.data_digest)


def _key(home: Home) -> tuple[str, str, str]:
    return home.dataset, home.protocol, home.data_digest


def transfers_by_record(folder: Path) -> tuple[dict[str, list[Transferred]], list[str]]:
    """Scores on other datasets of every run below a folder, by the id of the record, and what cannot be believed.

    A registered model that was fetched is a run without an evaluation of its own.
    """
    found: dict[str, dict[tuple[str, str], Transferred]] = {}
    damaged = []
    for place in sorted({file.parents[2] for file in folder.glob("**/transfer/*/metrics.json")}):
        try:
            transfers, wrong = sound_transfers(RunRecord.open(place))
        except InputError as error:
            transfers, wrong = [], [str(error)]
        damaged += wrong
        for each in transfers:
            found.setdefault(each.run.id, {})[each.transfer.dataset, each.transfer.data_digest] = each
    return {record: list(own.values()) for record, own in found.items()}, damaged


def sound_transfers(record: RunRecord) -> tuple[list[Transferred], list[str]]:
    """The scores of a run on other datasets, and a sentence for each that cannot be believed."""
    sound, damaged = [], []
    for folder in transfers_of(record):
        try:
            sound.append(read_transferred(record, folder))
        except InputError as error:
            damaged.append(str(error))
    return sound, damaged


def make_matrix(candidates: list[Candidate], datasets: list[str]) -> Matrix:
    """A row per model and home; a value is the mean over sections, each first averaged over the runs of the row.

    Args:
        candidates: what was trained.
        datasets: that there are, whether something was scored on them or not.

    Raises:
        InputError: there are no candidates.
    """
    if not candidates:
        raise InputError("no evaluated runs here; run `emseg train`, `calibrate` and `evaluate`")
    groups: dict[tuple[str, ...], list[Candidate]] = {}
    for each in candidates:
        groups.setdefault((*_key(each.home), each.model), []).append(each)
    rows = [_row(own) for _, own in sorted(groups.items(), key=lambda group: group[0])]
    scored = {column for row in rows for column in row.elsewhere}
    homes = {(row.home.dataset, row.home.data_digest) for row in rows}
    names = {*datasets, *(name for name, _ in scored)}
    known = scored | {home for home in homes if home[0] in names}
    columns: list[tuple[str, str | None]] = [*known, *((name, None) for name in names - {name for name, _ in known})]
    commands = [
        f"emseg evaluate {each.reference} --data {name}"
        for own in groups.values()
        for each in own
        for name in sorted(datasets)
        if name != each.home.dataset and name not in {other.transfer.dataset for other in each.transfers}
    ]
    return Matrix(rows, sorted(columns, key=lambda column: (column[0], column[1] or "")), commands)


def as_table(matrix: Matrix, metrics: tuple[str, ...]) -> pd.DataFrame:
    """The matrix as text: model, what it was trained on, its score there, and its score on each dataset."""
    rows = []
    for row in matrix.rows:
        cells = {"model": row.model, "trained on": f"{row.home.dataset}, {row.home.protocol}"}
        for metric in metrics:
            of_metric = f" {metric}" if len(metrics) > 1 else ""
            cells[_AT_HOME + of_metric] = _cell(row.at_home, metric)
            for column in matrix.columns:
                cells[matrix.heading(column) + of_metric] = _text(row, column, metric)
        rows.append(cells)
    return pd.DataFrame(rows)


def as_numbers(matrix: Matrix) -> pd.DataFrame:
    """The matrix as numbers: a row per model and dataset, columns METRIC, METRIC_low, METRIC_high."""
    rows = []
    for row in matrix.rows:
        home = (row.home.dataset, row.home.data_digest)
        for (name, digest), protocol, metrics in [
            (home, row.home.protocol, row.at_home),
            *((place, TRANSFER, found) for place, found in sorted(row.elsewhere.items())),
        ]:
            facts = {"model": row.model, "trained_on": row.home.dataset, "home_protocol": row.home.protocol}
            facts |= {"dataset": name, "protocol": protocol, "data_digest": digest}
            values = {
                f"{metric}{end}": getattr(interval, key)
                for metric, interval in metrics.items()
                for end, key in (("", "mean"), ("_low", "low"), ("_high", "high"))
            }
            rows.append(facts | values)
    return pd.DataFrame(rows)


def as_markdown(matrix: Matrix, metrics: tuple[str, ...]) -> str:
    """The matrix as Markdown."""
    return f"{markdown_table(as_table(matrix, metrics))}\n\n{note(matrix)}\n"


def title(metrics: tuple[str, ...]) -> str:
    """What the numbers are."""
    return f"{', '.join(metric.replace('_', ' ') for metric in metrics)} of models on datasets"


def note(matrix: Matrix) -> str:
    """What a reader of the matrix must know, and what would fill it."""
    text = (
        "Mean over sections, 95 % bootstrap interval in brackets. Home is the model's own test sections under its own "
        "protocol. On other datasets nothing is learned or calibrated; every section counts that the model did not see."
    )
    if leaking := sorted({row.home.protocol for row in matrix.rows} & set(LEAKING_PROTOCOLS)):
        text += f" Protocol {leaking[0]} leaks: its scores at home are upper bounds."
    if matrix.commands:
        more = len(matrix.commands) - _MOST_COMMANDS
        text += "\nNot scored yet (-):\n" + "\n".join(f"  {plain(each)}" for each in matrix.commands[:_MOST_COMMANDS])
        text += f"\n  and {more} more" if more > 0 else ""
    return text


def _row(own: list[Candidate]) -> Row:
    home = own[0].home
    tables: dict[tuple[str, str], list[pd.DataFrame]] = {}
    for each in own:
        for found in each.transfers:
            place = (found.transfer.dataset, found.transfer.data_digest)
            tables.setdefault(place, []).append(found.table.assign(seed=found.transfer.seed))
    elsewhere = {
        place: Scores(TRANSFER, place[1], average_per_section(parts)).summary() for place, parts in tables.items()
    }
    at_home = average_per_section([each.table for each in own])
    return Row(own[0].model, home, Scores(home.protocol, home.data_digest, at_home).summary(), elsewhere)


def _text(row: Row, column: tuple[str, str | None], metric: str) -> str:
    name, digest = column
    if digest is not None and (name, digest) in row.elsewhere:
        return _cell(row.elsewhere[name, digest], metric)
    return _AT_HOME if column == (row.home.dataset, row.home.data_digest) else _NOT_SCORED


def _cell(metrics: dict[str, Interval], metric: str) -> str:
    return str(metrics[metric]) if metric in metrics else _NOT_SCORED
