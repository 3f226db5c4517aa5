"""Stage evaluate: score one calibrated run on its test sections."""

from emseg.evaluation.evaluate import evaluate
from emseg.files import write_json
from emseg.reporting.evaluation_figures import draw_evaluation
from emseg.training.plan import parts_of_run
from emseg.training.record import RunRecord
from pipelines.stage import current_settings, prepared_source, run_arguments, run_folder, run_stage


def main() -> None:
    """Write runs/benchmark/NAME/evaluation and metrics.json beside it."""
    arguments = run_arguments()
    folder = run_folder(arguments.model, arguments.fold, arguments.seed)
    record = RunRecord.open(folder)
    test = parts_of_run(record, prepared_source(current_settings())).test
    write_json(folder / "metrics.json", evaluate(record, test, draw_evaluation))


if __name__ == "__main__":
    run_stage(main)
