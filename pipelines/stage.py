"""What every stage shares: its folders, and bad input as one sentence."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

from emseg.data.sources import Source, read_source
from emseg.errors import STOPPED, STOPPED_SENTENCE, ending
from emseg.settings import Settings, load_settings
from emseg.training.plan import RunPlan
from emseg.training.record import RunRecord, run_name

PREPARED = Path("data/prepared")
RUNS = Path("runs/benchmark")
RESULTS = Path("results")


def run_stage(stage: Callable[[], None]) -> None:
    """Run a stage; bad input becomes one sentence and exit code 2, work that failed one and exit code 1.

    Ctrl-C becomes one line and exit code 130.
    """
    name = Path(sys.argv[0]).stem
    try:
        stage()
    except KeyboardInterrupt:
        print(f"{name}: {STOPPED_SENTENCE}", file=sys.stderr)
        raise SystemExit(STOPPED) from None
    except Exception as error:
        if (known := ending(error)) is None:
            raise
        print(f"{name}: {known[0]}", file=sys.stderr)
        raise SystemExit(known[1]) from None


def prepared_source(settings: Settings) -> Source:
    """What stage prepare wrote."""
    return read_source(PREPARED, settings.data.source)


def run_plan(arguments: argparse.Namespace) -> RunPlan:
    """The plan of a train or evaluate stage."""
    settings = current_settings()
    return RunPlan(arguments.model, arguments.fold, arguments.seed, settings, prepared_source(settings))


def run_arguments() -> argparse.Namespace:
    """--model, --fold and --seed of a train or evaluate stage."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", required=True)
    parser.add_argument("--fold", type=int, required=True)
    parser.add_argument("--seed", type=int, required=True)
    return parser.parse_args()


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


def current_settings() -> Settings:
    """params.yaml of the current folder."""
    return load_settings()
