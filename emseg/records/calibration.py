"""cells.json: how the cells of a trained network are told apart, learned without looking at a test section."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from emseg.errors import InputError
from emseg.records.checked import read_checked, write_checked
from emseg.records.run import made_from
from emseg.settings import CellMethod

CELLS_FILE = "cells.json"
_REMEDY = "calibrate the run again (emseg calibrate)"


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False, frozen=True)


class Thresholds(_Part):
    """Of the probability: one at which V_rand is best on the validation sections, one at which V_info is."""

    v_rand: float = Field(ge=0, le=1)
    v_info: float = Field(ge=0, le=1)


class GreyThreshold(_Part):
    """The baseline without a network: grey levels above `level`, smoothed by a Gaussian of `sigma` pixels."""

    sigma: float = Field(ge=0)
    level: int = Field(ge=0, le=255)


class CurvePoint(_Part):
    """V_rand and V_info of the validation sections at a threshold."""

    threshold: float
    v_rand: float
    v_info: float


class Calibration(_Part):
    """What `calibrate` found on training and validation sections.

    `thresholds` are of what is thresholded for cells: the probability, or what agglomeration made of it; `plain` are
    those of the probability itself, to compare agglomeration with.
    """

    format: Literal[1] = 1
    made_from: dict[str, Any]
    cells: CellMethod
    thresholds: Thresholds
    plain: Thresholds
    agglomeration: dict[str, Any] | None
    grey_threshold: GreyThreshold | None
    """None in what was read from an evaluation of before there were calibrations."""
    curve: list[CurvePoint]


def write_calibration(run: Path, calibration: Calibration) -> None:
    """Write cells.json into the folder of a run."""
    write_checked(run / CELLS_FILE, calibration.model_dump(mode="json"))


def read_calibration(run: Path, facts: dict[str, Any]) -> tuple[Calibration, str]:
    """The calibration of a run, and its checksum, which scores made with it name.

    Args:
        run: folder that holds cells.json.
        facts: record.json of the run.

    Raises:
        InputError: the run was not calibrated, or cells.json is damaged or of other weights.
    """
    file = run / CELLS_FILE
    if not file.is_file():
        if (older := _of_older_evaluation(run / "evaluation", facts)) is not None:
            return older, ""
        raise InputError(f"{run} is not calibrated; run `emseg calibrate {run}` first")
    values, checksum = read_checked(file, Calibration, _REMEDY)
    calibration = Calibration.model_validate(values)
    if calibration.made_from != made_from(facts):
        raise InputError(f"{file} was made from other weights than those beside it; {_REMEDY}")
    return calibration, checksum


def _of_older_evaluation(folder: Path, facts: dict[str, Any]) -> Calibration | None:
    """What an evaluation of before there were calibrations had found; enough to segment with, not to score again."""
    metrics_file, rules = folder / "metrics.json", folder / "agglomeration.json"
    if not metrics_file.is_file():
        return None
    try:
        metrics = json.loads(metrics_file.read_text(encoding="utf-8"))
        if metrics.get("calibration") is not None:
            return None
        thresholds = Thresholds(v_rand=metrics["threshold"], v_info=metrics["v_info_threshold"])
        return Calibration(
            made_from=made_from(facts),
            cells=metrics.get("cells", "threshold"),
            thresholds=thresholds,
            plain=thresholds,
            agglomeration=json.loads(rules.read_text(encoding="utf-8")) if rules.is_file() else None,
            grey_threshold=None,
            curve=[],
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{folder} is damaged ({' '.join(str(error).split())[:100]}); {_REMEDY}") from error
