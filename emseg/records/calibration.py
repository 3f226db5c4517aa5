"""cells.json: how the cells of a trained network are told apart, learned without looking at a test section."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from emseg.errors import InputError
from emseg.records.checked import read_checked, what_is_wrong, write_checked
from emseg.records.earlier import calibration_of_evaluation
from emseg.records.run import MadeFrom, Run
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


class BorderRule(_Part):
    """Numbers of a logistic rule that judges a border by its features, one of each list per feature."""

    mean: list[float]
    scale: list[float]
    weights: list[float]
    bias: float


class RoundRules(_Part):
    """Rules of one round, which merges regions down to a probability."""

    down_to: float
    alone: BorderRule
    among_neighbours: BorderRule | None


class MergeRules(_Part):
    """What an agglomeration learned; see `emseg.segmentation.agglomeration`."""

    features: list[str]
    rounds: list[RoundRules]


class Calibration(_Part):
    """What `calibrate` found on training and validation sections.

    `thresholds` are of what is thresholded for cells: the probability, or what agglomeration made of it; `plain` are
    those of the probability itself, to compare agglomeration with.
    """

    format: Literal[1] = 1
    made_from: MadeFrom
    cells: CellMethod
    thresholds: Thresholds
    plain: Thresholds
    agglomeration: MergeRules | None
    grey_threshold: GreyThreshold | None
    """None in what was read from an evaluation of before there were calibrations."""
    curve: list[CurvePoint]


def write_calibration(folder: Path, calibration: Calibration) -> None:
    """Write cells.json into the folder of a run."""
    write_checked(folder / CELLS_FILE, calibration)


def read_calibration(folder: Path, run: Run) -> tuple[Calibration, str]:
    """The calibration of a run, and its checksum, which scores made with it name.

    Args:
        folder: that holds cells.json.
        run: whose it must be.

    Raises:
        InputError: the run was not calibrated, or cells.json is damaged or of other weights.
    """
    file = folder / CELLS_FILE
    if not file.is_file():
        if (older := _of_older_evaluation(folder / "evaluation", run)) is not None:
            return older, ""
        raise InputError(f"{folder} is not calibrated; run `emseg calibrate {folder}` first")
    calibration, checksum = read_checked(file, Calibration, _REMEDY)
    if calibration.made_from.differing(run.made_from):
        raise InputError(f"{file} was made from other weights than those beside it; {_REMEDY}")
    return calibration, checksum


def _of_older_evaluation(folder: Path, run: Run) -> Calibration | None:
    try:
        found = calibration_of_evaluation(folder)
        return None if found is None else Calibration.model_validate({"made_from": run.made_from, **found})
    except ValidationError as error:
        raise InputError(f"{folder} is damaged ({what_is_wrong(error)}); {_REMEDY}") from error
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise InputError(f"{folder} is damaged ({' '.join(str(error).split())[:100]}); {_REMEDY}") from error
