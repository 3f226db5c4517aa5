"""Stage train: one model, fold and seed, live in MLflow; goes on where a killed run stopped."""

from emseg.tracking.publish import live_mirror
from emseg.training.run import train_model
from pipelines.stage import run_arguments, run_folder, run_plan, run_stage


def main() -> None:
    """Write runs/benchmark/NAME/training."""
    arguments = run_arguments()
    folder = run_folder(arguments.model, arguments.fold, arguments.seed) / "training"
    with live_mirror() as mirror:
        train_model(run_plan(arguments), folder, replace_finished=True, after_epoch=mirror)


if __name__ == "__main__":
    run_stage(main)
