"""Stage train: one model, fold and seed, live in MLflow; goes on where a killed run stopped."""

import sys

from emseg.tracking.publish import live_mirror
from emseg.training.run import train_model
from emseg.training.trainer import TrainingDiverged
from pipelines.stage import (
    augmented_set,
    current_settings,
    prepared_source,
    run_arguments,
    run_folder,
    run_stage,
)


def main() -> None:
    """Write runs/benchmark/NAME/training."""
    arguments = run_arguments()
    settings = current_settings()
    source = prepared_source(settings)
    augmented = augmented_set(settings, source, arguments.fold)
    folder = run_folder(arguments.model, arguments.fold, arguments.seed) / "training"
    try:
        with live_mirror() as mirror:
            train_model(
                arguments.model,
                settings,
                source,
                augmented,
                arguments.fold,
                arguments.seed,
                folder,
                keep_finished=False,
                after_epoch=mirror,
            )
    except TrainingDiverged as error:
        print(f"train: {error}", file=sys.stderr)
        raise SystemExit(1) from None


if __name__ == "__main__":
    run_stage(main)
