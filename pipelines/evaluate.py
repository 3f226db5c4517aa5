"""Stage evaluate: score one run on its test sections."""

from emseg.files import write_json
from emseg.reporting.evaluation import evaluate_record
from emseg.training.record import RunRecord
from pipelines.stage import (
    augmented_set,
    current_settings,
    prepared_source,
    run_arguments,
    run_folder,
    run_stage,
)


def main() -> None:
    """Write runs/benchmark/NAME/evaluation and metrics.json beside it."""
    arguments = run_arguments()
    settings = current_settings()
    source = prepared_source(settings)
    folder = run_folder(arguments.model, arguments.fold, arguments.seed)
    metrics = evaluate_record(RunRecord.open(folder), source, augmented_set(settings, source, arguments.fold))
    write_json(folder / "metrics.json", metrics)


if __name__ == "__main__":
    run_stage(main)
