"""What a run leaves behind, checked as it is read: a damaged or foreign file is one sentence, never a guess."""

from emseg.records.calibration import Calibration
from emseg.records.evaluation import Evaluation
from emseg.records.record import RunRecord, open_run
from emseg.records.run import Lineage, Run

__all__ = ["Calibration", "Evaluation", "Lineage", "Run", "RunRecord", "open_run"]
