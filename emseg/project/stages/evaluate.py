"""Stage evaluate: score one calibrated run on its test sections."""

from emseg.evaluation.evaluate import evaluate
from emseg.files import write_json
from emseg.project.folders import prepared_source, run_folder
from emseg.records.record import RunRecord
from emseg.reporting.evaluation_figures import draw_evaluation
from emseg.settings import Settings
from emseg.training.plan import parts_of_run


def run(settings: Settings, model: str, fold: int, seed: int) -> None:
    """Write runs/benchmark/NAME/evaluation and metrics.json beside it."""
    folder = run_folder(model, fold, seed)
    record = RunRecord.open(folder)
    test = parts_of_run(record, prepared_source(settings)).test
    write_json(folder / "metrics.json", evaluate(record, test, draw_evaluation).shown())
