"""Where things lie in a project, from its folder on."""

from __future__ import annotations

from pathlib import Path

from emseg.data.sources import PREPARED_FOLDER, Source, read_source
from emseg.records.record import RunRecord
from emseg.records.run import run_name
from emseg.settings import Settings

RECIPES = Path("data/recipes")
RUNS = Path("runs/benchmark")
RESULTS = Path("results")


def prepared_source(settings: Settings) -> Source:
    """What stage prepare wrote."""
    return read_source(PREPARED_FOLDER, settings.data.source)


def run_folder(model: str, fold: int, seed: int) -> Path:
    """The folder of a run: its record is `training`, its scores are `evaluation`."""
    return RUNS / run_name(model, fold, seed)


def benchmark_records(settings: Settings) -> list[RunRecord]:
    """The records of every run the settings ask for."""
    return [
        RunRecord.open(run_folder(model, fold, seed))
        for model in settings.benchmark
        for fold in settings.protocol.folds
        for seed in settings.seeds
    ]
