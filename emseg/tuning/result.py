"""The way back: the best trial as the model `tuned` in params.yaml, comments and order kept."""

from __future__ import annotations

import difflib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from emseg.errors import InputError
from emseg.files import write_text
from emseg.settings import Settings, validate_settings
from emseg.settings.commented import edit_commented
from emseg.settings.file import parse_yaml, read_file
from emseg.tuning.space import point_values
from emseg.tuning.study import EPOCHS, POINT, STATUS, best_of, require_best

if TYPE_CHECKING:
    import optuna
    from optuna.trial import FrozenTrial

TUNED = "tuned"


def apply_best(study: optuna.Study, settings: Settings, path: Path, number: int | None = None) -> str:
    """Write a trial's values to params.yaml as `models.tuned`, and `tuned` into `benchmark`.

    Args:
        study: of `open_study`.
        settings: that the study was opened with.
        path: of the params.yaml to change.
        number: of the trial; None: the one with the best metric.

    Returns:
        What changed, as a diff.

    Raises:
        InputError: the trial is not complete, or none is.
    """
    from optuna.trial import TrialState

    best = require_best(study)
    if number is not None:
        complete = {trial.number: trial for trial in study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))}
        if number not in complete:
            known = ", ".join(map(str, complete))
            raise InputError(f"trial {number} of study {study.study_name} is not complete; complete are {known}")
        best = complete[number]
    entry = point_values(settings, best.user_attrs[POINT], TUNED)["models"][TUNED]
    before = read_file(path).decode("utf-8-sig")

    def enter(values: Any) -> None:
        values["models"][TUNED] = {key: value for key, value in entry.items() if value not in (None, {})}
        if TUNED not in values["benchmark"]:
            values["benchmark"].append(TUNED)

    wanted = parse_yaml(before, str(path))
    enter(wanted)
    validate_settings(wanted, f"{path} with the best trial: ")
    after = edit_commented(before, enter, wanted, str(path))
    write_text(path, after)
    return "".join(
        difflib.unified_diff(
            before.splitlines(keepends=True), after.splitlines(keepends=True), str(path), f"{path} with the best trial"
        )
    )


def trials_table(study: optuna.Study) -> pd.DataFrame:
    """A row per trial: number, state, value, cost and place on the front of best trials if the study has two
    objectives, epochs, what became of it, and its point."""
    two = len(study.directions) == 2
    front = {trial.number for trial in study.best_trials} if two else set()
    rows: list[dict[str, Any]] = []
    for trial in study.trials:
        values = trial.values if trial.state.name == "COMPLETE" else [None, None]
        rows.append(
            {
                "trial": trial.number,
                "state": trial.state.name.lower(),
                "value": values[0],
                **({"cost": values[1], "front": trial.number in front} if two else {}),
                "epochs": trial.user_attrs.get(EPOCHS, 0),
                "status": trial.user_attrs.get(STATUS, ""),
                **trial.user_attrs.get(POINT, {}),
            }
        )
    # Whole numbers stay whole beside trials that lack them.
    return pd.DataFrame(rows).convert_dtypes()


def study_as_json(study: optuna.Study, metric: str) -> dict[str, Any]:
    """{study, metric, best: {trial, value, point} or None, trials: rows of `trials_table`}, for a script to read."""
    best = best_of(study)
    found = {"trial": best.number, "value": best.values[0], "point": best.user_attrs[POINT]} if best else None
    trials = json.loads(trials_table(study).to_json(orient="records"))
    return {"study": study.study_name, "metric": metric, "best": found, "trials": trials}


def at_equal_budget(study: optuna.Study, resource: str) -> tuple[str, list[tuple[FrozenTrial, float]]]:
    """When all trials compare, and each with its metric then.

    Pruned trials compare with the others at the last value that all of them reported, which is at the first rung;
    where that is not the same moment for all, or nothing was reported, only complete trials compare, at the end.
    """
    from optuna.trial import TrialState

    trained = [
        trial
        for trial in study.get_trials(deepcopy=False, states=(TrialState.COMPLETE, TrialState.PRUNED))
        if trial.intermediate_values
    ]
    rung = min((max(trial.intermediate_values) for trial in trained), default=None)
    if rung is not None and all(rung in trial.intermediate_values for trial in trained):
        return f"after {rung} {resource}", [(trial, trial.intermediate_values[rung]) for trial in trained]
    complete = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    return "at the end", [(trial, trial.values[0]) for trial in complete]


def as_text(table: pd.DataFrame) -> pd.DataFrame:
    """The same table to print: four digits, nothing where there is nothing."""
    return table.map(lambda value: "" if pd.isna(value) else f"{value:.4g}" if isinstance(value, float) else str(value))
