"""What metrics.json must hold, and that it belongs to the run that it lies beside."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
from pydantic import BaseModel, ConfigDict, Field, model_validator

from emseg.errors import InputError
from emseg.metrics.scoring import ALL_METRICS
from emseg.records.calibration import CELLS_FILE, read_calibration
from emseg.records.checked import file_digest, read_checked, write_checked
from emseg.records.run import Run, made_from
from emseg.settings import LEAKING_PROTOCOLS, ProtocolName

METRICS_FILE, SCORES_FILE, BASELINES_FILE = "metrics.json", "scores.csv", "baselines.csv"
AGGLOMERATION_FILE = "agglomeration.json"
_COVERED = (SCORES_FILE, BASELINES_FILE, AGGLOMERATION_FILE)
"""Files that metrics.json knows the SHA-256 of."""
_ROUNDING = 2e-6
"""Of means, whose sections are written with six digits."""
_SHARED = ("model", "dataset", "protocol", "fold", "seed", "data_digest")
_REMEDY = "evaluate the run again (emseg evaluate)"


class Interval(BaseModel):
    """A mean over test sections with its 95 % bootstrap interval."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)

    mean: float
    low: float
    high: float


class Evaluation(BaseModel):
    """metrics.json, but for the metrics themselves, which `read_evaluation` checks against scores.csv."""

    model_config = ConfigDict(extra="allow", strict=True, allow_inf_nan=False)

    model: str
    dataset: str
    protocol: ProtocolName
    leaks: bool
    data_digest: str
    fold: int = Field(ge=0)
    seed: int = Field(ge=0)
    sections: int = Field(ge=1)
    pixel_threshold: float = Field(ge=0, le=1)
    cells: Literal["threshold", "agglomeration"] = "threshold"
    threshold: float = Field(ge=0, le=1)
    v_info_threshold: float = Field(ge=0, le=1)
    oracle_threshold: float = Field(ge=0, le=1)
    collapsed: bool
    parameters: int
    epochs: int
    seconds_per_epoch: float
    v_rand: Interval
    v_info: Interval
    made_from: dict[str, Any] | None = None
    """Of the record that was evaluated; None in evaluations of before it was noted."""
    calibration: str | None = None
    """Checksum of the cells.json that the scores were made with."""
    files: dict[str, str] = {}
    """SHA-256 of the tables and rules beside it."""

    @model_validator(mode="after")
    def _metrics_are_intervals(self) -> Evaluation:
        for name in ALL_METRICS:
            if name in (extra := self.model_extra or {}):
                Interval.model_validate(extra[name])
        if not set(self.files) <= set(_COVERED):
            raise ValueError("files names others than those of an evaluation")
        return self


def write_metrics(folder: Path, metrics: dict[str, Any], facts: dict[str, Any], calibration: str) -> None:
    """Write metrics.json, which names what it was made from and the files beside it.

    Args:
        folder: that holds the evaluation's other files.
        metrics: scores, thresholds, protocol.
        facts: the record of the run.
        calibration: checksum of the cells.json that they were made with.
    """
    files = {name: file_digest(folder / name) for name in _COVERED if (folder / name).is_file()}
    write_checked(
        folder / METRICS_FILE, metrics | {"made_from": made_from(facts), "calibration": calibration, "files": files}
    )


def read_evaluation(folder: Path) -> tuple[dict[str, Any], pd.DataFrame, pd.DataFrame]:
    """metrics.json, scores.csv and baselines.csv of an `evaluation` folder, checked against each other.

    Raises:
        InputError: the run was not evaluated, or a file is damaged or does not belong to the others.
    """
    if not (folder / METRICS_FILE).is_file():
        raise InputError(f"{folder} holds no scores; run `emseg evaluate` on the run first")
    metrics, _ = read_checked(folder / METRICS_FILE, Evaluation, _REMEDY)
    for name in metrics.get("files", {}):
        if not (folder / name).is_file() or file_digest(folder / name) != metrics["files"][name]:
            raise InputError(f"{folder / name} is not what was evaluated; {_REMEDY}")
    scores, baselines = _table(folder / SCORES_FILE), _table(folder / BASELINES_FILE)
    if wrong := _contradiction(metrics, scores):
        raise InputError(f"{folder / METRICS_FILE} and {SCORES_FILE} do not belong together: {wrong}; {_REMEDY}")
    return metrics, scores, baselines


def require_fit(record: dict[str, Any], metrics: dict[str, Any], folder: Path, is_proof_needed: bool = False) -> None:
    """Refuse scores that were made from another run, from other weights, or from other data.

    Args:
        record: record.json.
        metrics: metrics.json.
        folder: that holds it, for the sentence.
        is_proof_needed: refuse scores of before evaluations noted what they were made from, too.

    Raises:
        InputError: they do not fit.
    """
    noted = metrics.get("made_from")
    if noted is None and is_proof_needed:
        raise InputError(f"{folder} does not say which weights it was made from; {_REMEDY}")
    differing = [key for key in _SHARED if record[key] != metrics[key]]
    if noted is not None:
        expected = made_from(record)
        differing += [key for key in expected if noted.get(key) != expected[key] and key not in differing]
    if differing:
        raise InputError(
            f"{folder} holds scores of another run than the one beside it ({', '.join(differing)} differ); {_REMEDY}"
        )


def read_fitting(folder: Path) -> tuple[dict[str, Any], dict[str, Any], pd.DataFrame, pd.DataFrame]:
    """The record beside an `evaluation` folder, and what `read_evaluation` gives, which fits it.

    Raises:
        InputError: one of them is missing or damaged, or they do not belong together.
    """
    record, _ = read_checked(
        folder.parent / "training" / "record.json", Run, f"bring it back, or remove {folder.parent} and train again"
    )
    metrics, scores, baselines = read_evaluation(folder)
    require_fit(record, metrics, folder)
    require_calibration(folder.parent, record, metrics)
    return record, metrics, scores, baselines


def require_calibration(run: Path, record: dict[str, Any], metrics: dict[str, Any]) -> None:
    """Refuse scores that were made with another calibration than the one in the run's folder, if there is one.

    Raises:
        InputError: they were, or cells.json is damaged.
    """
    noted = metrics.get("calibration")
    if noted is not None and (run / CELLS_FILE).is_file() and read_calibration(run, record)[1] != noted:
        raise InputError(f"{run / 'evaluation'} holds scores of another calibration than {run / CELLS_FILE}; {_REMEDY}")


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


def _contradiction(metrics: dict[str, Any], scores: pd.DataFrame) -> str | None:
    if metrics["sections"] != len(scores) or scores["section"].duplicated().any():
        return f"one has {metrics['sections']} sections, the other {scores['section'].nunique()}"
    if metrics["leaks"] != (metrics["protocol"] in LEAKING_PROTOCOLS):
        return f"it says leaks: {metrics['leaks']} of protocol {metrics['protocol']}"
    for name in ALL_METRICS:
        if (name in metrics) != (name in scores):
            return f"one lacks {name}"
        if name in metrics and abs(metrics[name]["mean"] - scores[name].mean()) > _ROUNDING:
            return f"{name} is {metrics[name]['mean']:.4f} in one and {scores[name].mean():.4f} in the other"
    return None
