"""metrics.json and the tables beside it: what a run's test sections say, and that it belongs to the run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np
import pandas as pd
from pydantic import BaseModel, ConfigDict, Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from emseg.data.datasets.card import Provenance
from emseg.errors import InputError
from emseg.metrics.scoring import ALL_METRICS, Interval, Scores
from emseg.records.calibration import CELLS_FILE, read_calibration
from emseg.records.checked import file_digest, read_checked, write_checked
from emseg.records.earlier import AGGLOMERATION_FILE, upgraded_evaluation
from emseg.records.record import RunRecord
from emseg.records.run import MadeFrom, Run
from emseg.settings import LEAKING_PROTOCOLS, CellMethod, ProtocolName

METRICS_FILE, SCORES_FILE, BASELINES_FILE = "metrics.json", "scores.csv", "baselines.csv"
_COVERED = (SCORES_FILE, BASELINES_FILE, AGGLOMERATION_FILE)
"""Files that metrics.json knows the SHA-256 of."""
_ROUNDING = 2e-6
"""Of means, whose sections are written with six digits."""
_REMEDY = "evaluate the run again (emseg evaluate)"


class DrawnMembranes(BaseModel):
    """Membranes that no expert drew: where cells by number touch, emseg draws one of this width.

    Attributes:
        pixels: across, half of it of either cell.
        nm: the same in nanometres; None: the size of a pixel is not known.
    """

    model_config = ConfigDict(extra="allow", strict=True, allow_inf_nan=False, frozen=True)

    pixels: int = Field(ge=1)
    nm: float | None

    @classmethod
    def of(cls, card: Provenance | None) -> DrawnMembranes | None:
        """Those that the card of labelled sections tells of; None: none were drawn, or it was not noted."""
        if card is None or card.drawn_membrane_pixels is None:
            return None
        side = card.voxel_size_nm[-1] if card.voxel_size_nm else None
        return cls(pixels=card.drawn_membrane_pixels, nm=side and side * card.drawn_membrane_pixels)

    def __str__(self) -> str:
        nm = "" if self.nm is None else f" ({self.nm:g} nm)"
        return f"Membranes between touching cells drawn {self.pixels} pixels wide{nm}: pixel metrics depend on it."


class ScoredRun(BaseModel):
    """metrics.json, of whichever sections. There each metric is an entry of its own; here `metrics` has them all."""

    model_config = ConfigDict(extra="allow", strict=True, allow_inf_nan=False, frozen=True)

    format: Literal[1] = 1
    model: str
    dataset: str
    """That the scored sections are of."""
    protocol: ProtocolName | Literal["transfer"]
    leaks: bool
    data_digest: str
    """Of that dataset."""
    fold: int = Field(ge=0)
    seed: int = Field(ge=0)
    sections: int = Field(ge=1)
    pixel_threshold: float = Field(ge=0, le=1)
    cells: CellMethod
    threshold: float = Field(ge=0, le=1)
    v_info_threshold: float = Field(ge=0, le=1)
    oracle_threshold: float = Field(ge=0, le=1)
    collapsed: bool
    parameters: int
    epochs: int
    seconds_per_epoch: float
    metrics: dict[str, Interval]
    """V_rand, V_info and those of `ALL_METRICS` that were measured, by their names."""
    made_from: MadeFrom | None
    """Of the record that was evaluated; None in evaluations of before it was noted."""
    calibration: str | None
    """Checksum of the cells.json that the scores were made with; None in evaluations of before there was one."""
    files: dict[str, str]
    """SHA-256 of the tables and rules beside it."""
    drawn_membranes: DrawnMembranes | None = None
    """In the labels that the sections were scored with; None: none, or it was not noted."""

    @model_validator(mode="before")
    @classmethod
    def _as_written_now(cls, values: Any) -> Any:
        values = upgraded_evaluation(values)
        if not isinstance(values, dict) or "metrics" in values:
            return values
        metrics = {name: values[name] for name in ALL_METRICS if name in values}
        return {key: value for key, value in values.items() if key not in metrics} | {"metrics": metrics}

    @model_validator(mode="after")
    def _has_known_metrics_and_files(self) -> ScoredRun:
        for name in ("v_rand", "v_info"):
            if name not in self.metrics:
                raise ValueError(f"{name} is missing")
        if not set(self.metrics) <= set(ALL_METRICS):
            raise ValueError("metrics names others than those that are measured")
        if not set(self.files) <= set(_COVERED):
            raise ValueError("files names others than those of an evaluation")
        return self

    @model_serializer(mode="wrap")
    def _with_metrics_as_entries(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        flat: dict[str, Any] = {}
        for key, value in handler(self).items():
            flat |= value if key == "metrics" else {key: value}
        return flat

    def shown(self) -> dict[str, Any]:
        """Scores, thresholds and cost as JSON has them, without what ties them to files and weights."""
        return self.model_dump(mode="json", exclude={"format", "made_from", "calibration", "files"})


class Evaluation(ScoredRun):
    """What a run is worth on the test sections of its own dataset."""

    protocol: ProtocolName


@dataclass(frozen=True)
class Evaluated:
    """An evaluation with its tables.

    Attributes:
        evaluation: metrics.json.
        table: scores.csv, a row per test section.
        baselines: baselines.csv, the same for each baseline, whose name is in the column `model`.
    """

    evaluation: Evaluation
    table: pd.DataFrame
    baselines: pd.DataFrame

    @property
    def scores(self) -> Scores:
        """Scores per section, with the seed."""
        return scores_of(self.evaluation, self.table)


def scores_of(evaluation: Evaluation, table: pd.DataFrame) -> Scores:
    """Scores per section, with the seed."""
    return Scores(evaluation.protocol, evaluation.data_digest, table.assign(seed=evaluation.seed))


Kind = TypeVar("Kind", bound=ScoredRun)


def write_evaluation(folder: Path, evaluation: Kind) -> Kind:
    """Write metrics.json with the digests of the files that lie beside it, and return what was written.

    Args:
        folder: that holds the evaluation's other files.
        evaluation: whose `files` are not known yet.
    """
    files = {name: file_digest(folder / name) for name in _COVERED if (folder / name).is_file()}
    written = evaluation.model_copy(update={"files": files})
    write_checked(folder / METRICS_FILE, written)
    return written


def read_evaluation(folder: Path) -> Evaluation:
    """metrics.json of an `evaluation` folder; see `read_evaluated`."""
    return read_evaluated(folder).evaluation


def read_evaluated(folder: Path) -> Evaluated:
    """metrics.json, scores.csv and baselines.csv of an `evaluation` folder, checked against each other.

    Raises:
        InputError: the run was not evaluated, or a file is damaged or does not belong to the others.
    """
    return Evaluated(*read_scored(folder, Evaluation))


def read_scored(folder: Path, kind: type[Kind]) -> tuple[Kind, pd.DataFrame, pd.DataFrame]:
    """metrics.json, scores.csv and baselines.csv of a folder, checked against each other; see `read_evaluated`.

    Args:
        folder: that holds them.
        kind: of what metrics.json must be.
    """
    if not (folder / METRICS_FILE).is_file():
        raise InputError(f"{folder} holds no scores; run `emseg evaluate` on the run first")
    evaluation, _ = read_checked(folder / METRICS_FILE, kind, _REMEDY)
    for name, digest in evaluation.files.items():
        if not (folder / name).is_file() or file_digest(folder / name) != digest:
            raise InputError(f"{folder / name} is not what was evaluated; {_REMEDY}")
    table, baselines = _table(folder / SCORES_FILE), _table(folder / BASELINES_FILE)
    if wrong := _contradiction(evaluation, table):
        raise InputError(f"{folder / METRICS_FILE} and {SCORES_FILE} do not belong together: {wrong}; {_REMEDY}")
    return evaluation, table, baselines


def read_fitting(folder: Path) -> tuple[Run, Evaluated]:
    """The record beside an `evaluation` folder, and what `read_evaluated` gives, which fits it.

    Raises:
        InputError: one of them is missing or damaged, or they do not belong together.
    """
    run = RunRecord(folder.parent / "training").read()
    evaluated = read_evaluated(folder)
    require_fit(run, evaluated.evaluation, folder)
    require_calibration(folder.parent, run, evaluated.evaluation)
    return run, evaluated


def require_fit(run: Run, evaluation: Evaluation, folder: Path, is_proof_needed: bool = False) -> None:
    """Refuse scores that were made from another run, from other weights, or from other data.

    Args:
        run: record.json.
        evaluation: metrics.json.
        folder: that holds it, for the sentence.
        is_proof_needed: refuse scores of before evaluations noted what they were made from, too.

    Raises:
        InputError: they do not fit.
    """
    noted = evaluation.made_from
    if noted is None and is_proof_needed:
        raise InputError(f"{folder} does not say which weights it was made from; {_REMEDY}")
    shared = ("model", "dataset", "protocol", "fold", "seed", "data_digest")
    differing = [key for key in shared if getattr(run, key) != getattr(evaluation, key)]
    if noted is not None:
        differing += [key for key in noted.differing(run.made_from) if key not in differing]
    if differing:
        raise InputError(
            f"{folder} holds scores of another run than the one beside it ({', '.join(differing)} differ); {_REMEDY}"
        )


def require_calibration(
    folder: Path, run: Run, evaluation: ScoredRun, scores: Path | None = None, remedy: str = _REMEDY
) -> None:
    """Refuse scores that were made with another calibration than the one in the run's folder, if there is one.

    Args:
        folder: of the run.
        run: record.json.
        evaluation: metrics.json.
        scores: the folder that holds it, for the sentence; None: `evaluation`.
        remedy: what to do about it.

    Raises:
        InputError: they were, or cells.json is damaged.
    """
    noted = evaluation.calibration
    if noted is not None and (folder / CELLS_FILE).is_file() and read_calibration(folder, run)[1] != noted:
        scores = scores or folder / "evaluation"
        raise InputError(f"{scores} holds scores of another calibration than {folder / CELLS_FILE}; {remedy}")


def _table(path: Path) -> pd.DataFrame:
    try:
        table = pd.read_csv(path)
    except (OSError, ValueError) as error:
        raise InputError(f"{path} is damaged ({' '.join(str(error).split())[:100]}); {_REMEDY}") from error
    if table.empty or not {"section", "v_rand", "v_info", "pixel_error"} <= set(table.columns):
        raise InputError(f"{path} is damaged (sections or metrics are missing); {_REMEDY}")
    numbers = table.drop(columns="model", errors="ignore")
    if (
        any(not pd.api.types.is_numeric_dtype(kind) for kind in numbers.dtypes)
        or not np.isfinite(numbers.to_numpy()).all()
    ):
        raise InputError(f"{path} is damaged (it holds something that is not a number); {_REMEDY}")
    return table


def _contradiction(evaluation: ScoredRun, table: pd.DataFrame) -> str | None:
    if evaluation.sections != len(table) or table["section"].duplicated().any():
        return f"one has {evaluation.sections} sections, the other {table['section'].nunique()}"
    if evaluation.leaks != (evaluation.protocol in LEAKING_PROTOCOLS):
        return f"it says leaks: {evaluation.leaks} of protocol {evaluation.protocol}"
    for name in ALL_METRICS:
        noted = evaluation.metrics.get(name)
        if (noted is None) != (name not in table):
            return f"one lacks {name}"
        if noted is not None and abs(noted.mean - table[name].mean()) > _ROUNDING:
            return f"{name} is {noted.mean:.4f} in one and {table[name].mean():.4f} in the other"
    return None


def flat_metrics(metrics: Mapping[str, Interval]) -> dict[str, float]:
    """Metrics by their names in MLflow: each mean by its own, its interval as interval/NAME_low and _high."""
    flat: dict[str, float] = {}
    for name, interval in metrics.items():
        # MLflow draws a section per prefix: intervals must not crowd the means.
        flat |= {name: interval.mean, f"interval/{name}_low": interval.low, f"interval/{name}_high": interval.high}
    return flat
