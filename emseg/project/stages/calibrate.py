"""Stage calibrate: how the cells of one trained network are told apart, by training and validation sections alone."""

from emseg.evaluation.calibrate import calibrate
from emseg.project.folders import prepared_source, run_folder
from emseg.records.record import RunRecord
from emseg.settings import Settings
from emseg.training.plan import parts_of_run


def run(settings: Settings, model: str, fold: int, seed: int) -> None:
    """Write runs/benchmark/NAME/cells.json."""
    record = RunRecord.open(run_folder(model, fold, seed))
    parts = parts_of_run(record, prepared_source(settings))
    calibrate(record, parts.training, parts.validation)
