"""Stage calibrate: how the cells of one trained network are told apart, by training and validation sections alone."""

from emseg.evaluation.calibrate import calibrate
from emseg.training.plan import parts_of_run
from emseg.training.record import RunRecord
from pipelines.stage import current_settings, prepared_source, run_arguments, run_folder, run_stage


def main() -> None:
    """Write runs/benchmark/NAME/cells.json."""
    arguments = run_arguments()
    record = RunRecord.open(run_folder(arguments.model, arguments.fold, arguments.seed))
    parts = parts_of_run(record, prepared_source(current_settings()))
    calibrate(record, parts.training, parts.validation)


if __name__ == "__main__":
    run_stage(main)
