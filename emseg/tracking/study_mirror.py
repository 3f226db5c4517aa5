"""A study in MLflow: a parent run with the figures, and a nested run per trial with its true status."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from emseg.errors import InputError
from emseg.tracking.delivery import flat_parameters
from emseg.tracking.publish import experiment_of
from emseg.tracking.store import StoreUnreachableError, connect

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from optuna import Study, Trial
    from optuna.trial import FrozenTrial

STUDY_TAG = "emseg.study"
TRIAL_TAG = "emseg.trial"
_PARENT_TAG = "mlflow.parentRunId"
_STATUS = {"COMPLETE": "FINISHED", "PRUNED": "KILLED", "FAIL": "FAILED"}


class StudyMirror:
    """Tell MLflow about a study while it runs; if the store goes away, say so once and let the study go on.

    Args:
        study: its name.
        dataset: name of the data.
        protocol: name of the protocol.
        objectives: names of what is optimised, the metric first.
        settings: of the study, for the parent's parameters.
    """

    def __init__(
        self, study: str, dataset: str, protocol: str, objectives: Sequence[str], settings: dict[str, Any]
    ) -> None:
        self.study, self.objectives = study, objectives
        self.children: dict[int, str] = {}
        self.client: MlflowClient | None = None
        self._broken = False
        self._attempt(lambda: self._open(dataset, protocol, settings))

    def began(self, trial: Trial, point: dict[str, Any]) -> None:
        """A trial starts to train."""

        def create() -> None:
            assert self.client is not None
            self._settle(trial.study)
            tags = {_PARENT_TAG: self.parent, TRIAL_TAG: f"{self.study}/{trial.number}", "phase": "tuning"}
            run = self.client.create_run(self.experiment, run_name=f"trial-{trial.number:03d}", tags=tags)
            self.children[trial.number] = run.info.run_id
            self.client.log_batch(run.info.run_id, params=flat_parameters(point))

        self._attempt(create)

    def epoch(self, trial: Trial, row: dict[str, float]) -> None:
        """An epoch of a trial was validated."""

        def log() -> None:
            from mlflow.entities import Metric

            assert self.client is not None
            run_id = self.children[trial.number]
            now, step = int(time.time() * 1000), int(row["epoch"])
            metrics = [
                Metric(key.replace("_", "/", 1), value, now, step)
                for key, value in row.items()
                if key == "train_loss" or key.startswith("validation_")
            ]
            self.client.log_batch(run_id, metrics)

        self._attempt(log)

    def ended(self, study: Study, trial: FrozenTrial) -> None:
        """A trial is complete, pruned or failed."""

        def close() -> None:
            if (run_id := self.children.get(trial.number)) is not None:
                self._close(run_id, trial)

        self._attempt(close)

    def finish(self, study: Study, best: FrozenTrial | None, figures: list[Path]) -> None:
        """Log the best trial's values, its point and the study's figures on the parent."""

        def close() -> None:
            assert self.client is not None
            self._settle(study)
            if best is not None:
                self._log_objectives(self.parent, best)
                self.client.log_dict(self.parent, best.user_attrs["point"], "best.json")
            for file in figures:
                self.client.log_artifact(self.parent, str(file), "figures")
            self.client.set_terminated(self.parent, "FINISHED")

        self._attempt(close)

    def _settle(self, study: Study) -> None:
        """Close the runs of trials that ended without a word: their worker was killed, or the store was away."""
        assert self.client is not None
        running = f"tags.`{_PARENT_TAG}` = '{self.parent}' and attributes.status = 'RUNNING'"
        numbered = {f"{self.study}/{trial.number}": trial for trial in study.get_trials(deepcopy=False)}
        for run in self.client.search_runs([self.experiment], running):
            trial = numbered.get(run.data.tags.get(TRIAL_TAG, ""))
            if trial is not None and trial.state.is_finished():
                self._close(run.info.run_id, trial)

    def _close(self, run_id: str, trial: FrozenTrial) -> None:
        assert self.client is not None
        # A pruned trial carries its last intermediate value, which is not what is optimised.
        if trial.state.name == "COMPLETE":
            self._log_objectives(run_id, trial)
        if status := trial.user_attrs.get("status"):
            self.client.set_tag(run_id, "emseg.message", status)
        self.client.set_terminated(run_id, _STATUS[trial.state.name])

    def _log_objectives(self, run_id: str, trial: FrozenTrial) -> None:
        assert self.client is not None
        for name, value in zip(self.objectives, trial.values, strict=True):
            self.client.log_metric(run_id, name, value)

    def _open(self, dataset: str, protocol: str, settings: dict[str, Any]) -> None:
        self.client = connect()
        self.experiment = experiment_of(self.client, dataset, f"{protocol}-tuning")
        found = self.client.search_runs([self.experiment], f"tags.`{STUDY_TAG}` = '{self.study}'", max_results=1)
        if found:
            self.parent = found[0].info.run_id
            self.client.update_run(self.parent, status="RUNNING")
            return
        run = self.client.create_run(self.experiment, run_name=self.study, tags={STUDY_TAG: self.study})
        self.parent = run.info.run_id
        self.client.log_batch(self.parent, params=flat_parameters(settings))

    def _attempt(self, tell: Callable[[], None]) -> None:
        if self._broken:
            return
        # Whatever the store does, the study must not stop for it.
        try:
            tell()
        except Exception as error:
            self._broken = True
            known = isinstance(error, StoreUnreachableError | InputError)
            reason = str(error) if known else f"MLflow failed: {' '.join(str(error).split())}"
            print(f"{reason}; the study goes on without it", file=sys.stderr)
