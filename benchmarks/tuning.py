"""Tuning: what pruning saves against the same trials without it, and what the tuner costs beside its trials.

Two studies train the same points, those that a study starts with and others drawn at random: one pruned by successive
halving, one to the end. Both are told to MLflow. Compute is arithmetic of convolutions; the tuner's share is the time
of a study that is neither training nor scoring: sampling, storage, pruning and MLflow.
"""

import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import patch

import optuna

import emseg.tuning.worker as worker
from benchmarks.common import print_machine, sections
from emseg.data.sources import Source
from emseg.records.record import RunRecord
from emseg.settings import Settings, profile_values, validate_settings
from emseg.tracking.study_mirror import StudyMirror
from emseg.training.plan import RunPlan
from emseg.training.run import train_model
from emseg.tuning.report import trial_tflop
from emseg.tuning.space import suggest
from emseg.tuning.study import EPOCHS, best_of, open_study
from emseg.tuning.worker import Events, run_worker, score_network

TRIALS = 16


def small_study(source: str) -> Settings:
    """Profile tune with trials of about ten seconds."""
    changes = {
        "data": {"source": source},
        "protocol": {"validation": 4},
        "training": {"epochs": 12, "images_per_epoch": 48, "crop": 128, "warmup_epochs": 0.5},
        "tuning": {
            "trials": TRIALS,
            "minimum_resource": 3,
            "largest_gflop": None,
            "space": {"base_channels": {"low": 4, "high": 12, "step": 4}, "depth": {"low": 2, "high": 3, "step": 1}},
        },
        "models": {"unet2": {"network": {"base_channels": 8, "depth": 3}}},
    }
    return validate_settings(profile_values(Path(), "tune", changes), "")


class Accounts:
    """Seconds of training and of scoring, taken where a study calls them."""

    def __init__(self) -> None:
        self.work = 0.0

    def train(self, plan: RunPlan, folder: Path, after_epoch: Callable[[RunRecord], None], **options: Any) -> RunRecord:
        """`train_model`, without the time in which the study is told about epochs."""
        told = 0.0

        def timed(record: RunRecord) -> None:
            nonlocal told
            started = time.perf_counter()
            try:
                after_epoch(record)
            finally:
                told += time.perf_counter() - started

        started = time.perf_counter()
        try:
            return train_model(plan, folder, after_epoch=timed, **options)
        finally:
            self.work += time.perf_counter() - started - told

    def score(self, *arguments: Any) -> float:
        """`score_network`."""
        started = time.perf_counter()
        try:
            return score_network(*arguments)
        finally:
            self.work += time.perf_counter() - started


def run_study(name: str, settings: Settings, source: Source, points: list[dict[str, Any]], pruned: bool) -> None:
    """Run a study over given points and print what it took and found."""
    study = open_study(settings, source, name)
    for point in points:
        study.enqueue_trial(point, skip_if_exists=True)
    if not pruned:
        study.pruner = optuna.pruners.NopPruner()
    mirror = StudyMirror(name, source.name, "heldout", [settings.tuning.metric], {})
    accounts = Accounts()
    started = time.perf_counter()
    with (
        patch.object(worker, "train_model", accounts.train),
        patch.object(worker, "score_network", accounts.score),
    ):
        run_worker(study, settings, source, Events(mirror.began, mirror.epoch, mirror.ended))
    wall = time.perf_counter() - started
    trials = [trial for trial in study.trials if trial.state.is_finished()]
    tflop = sum(trial_tflop(trial, settings, source) for trial in trials)
    best = best_of(study)
    assert best is not None
    print(
        f"{name:12} {len(trials)} trials  {sum(t.user_attrs[EPOCHS] for t in trials):4} epochs  {tflop:5.2f} TFLOP  "
        f"{wall:6.1f} s, {wall / len(trials):4.1f} s per trial  best {settings.tuning.metric} {best.values[0]:.4f} "
        f"(trial {best.number})  tuner {wall - accounts.work:5.2f} s, {(wall - accounts.work) / wall:.1%}",
        flush=True,
    )


def main() -> None:
    """Print a line per study."""
    images, labels, what = sections(30)
    source = Source("benchmark", images, labels, images[:0], labels[:0])
    settings = small_study(source.name)
    print_machine()
    print(f"{what}, protocol heldout, {settings.tuning.model}, seed 0")
    draws = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    points = [suggest(draws.ask(), settings.tuning.space) for _ in range(TRIALS)]
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        os.environ["MLFLOW_TRACKING_URI"] = f"sqlite:///{folder}/mlflow.db"
        run_study("to the end", settings, source, points, pruned=False)
        run_study("pruned", settings, source, points, pruned=True)


if __name__ == "__main__":
    main()
