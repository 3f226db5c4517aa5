"""Evaluated runs as they lie on disk."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from emseg.metrics.scoring import Scores
from emseg.records.evaluation import read_fitting
from emseg.reporting.leaderboard import find_evaluations
from emseg.training.record import RunRecord


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
        facts, metrics, table, _ = read_fitting(evaluation)
        runs.append(EvaluatedRun(place, evaluation, RunRecord.open(evaluation.parent), facts, metrics, table))
    return runs
