"""Learn how the cells of a trained network are told apart, from its training and validation sections alone."""

from __future__ import annotations

import numpy as np

from emseg.data.labelled_sections import LabelledSections
from emseg.errors import InputError
from emseg.evaluation.baselines import fit_threshold
from emseg.inference import Predictor
from emseg.inference.trained import load_predictor, require_same_networks
from emseg.metrics.challenge import ChallengeSweep
from emseg.metrics.inputs import prepare
from emseg.records.calibration import Calibration, CurvePoint, GreyThreshold, Thresholds, write_calibration
from emseg.records.record import RunRecord
from emseg.records.run import FINISHED
from emseg.segmentation.agglomeration import MERGE_THRESHOLD, Agglomeration, learn_agglomeration
from emseg.settings import LEAKING_PROTOCOLS, CellMethod


def calibrate(
    record: RunRecord, training: LabelledSections, validation: LabelledSections, cells: CellMethod | None = None
) -> Calibration:
    """Choose thresholds on validation sections, learn on training sections which regions are one cell.

    Writes cells.json beside the `training` folder of the run. Another method costs a prediction, not a training.

    Args:
        record: of a finished run.
        training: its training sections.
        validation: its validation sections.
        cells: how cells are told apart; None: as the run's recipe says. Images of protocol `paper` have no
            neighbouring sections: there always by threshold.

    Raises:
        InputError: the run is unfinished, or nothing can be learned for an agglomeration.
    """
    run = record.read()
    if run.status != FINISHED:
        raise InputError(f"{record.folder}: the run is {run.status}, not finished; train it to the end first")
    cells = cells or run.settings.training.cells
    if run.protocol in LEAKING_PROTOCOLS:
        cells = "threshold"
    require_same_networks(record)
    predictor = load_predictor(record, normalized=True)
    predicted = predictor.predict(validation.images, validation.places)
    sweep = sweep_thresholds(predicted, validation)
    plain = thresholds = Thresholds(v_rand=sweep.v_rand().threshold, v_info=sweep.v_info().threshold)
    agglomeration = None
    if cells == "agglomeration":
        agglomeration = _learn(record, predictor, training)
        sweep = sweep_thresholds(agglomeration.close(predicted, validation.places), validation)
        thresholds = Thresholds(v_rand=MERGE_THRESHOLD, v_info=MERGE_THRESHOLD)
    sigma, level = fit_threshold(validation.images, validation.labels, validation.ignore)
    calibration = Calibration(
        made_from=run.made_from,
        cells=cells,
        thresholds=thresholds,
        plain=plain,
        agglomeration=None if agglomeration is None else agglomeration.as_rules(),
        grey_threshold=GreyThreshold(sigma=sigma, level=level),
        curve=_curve(sweep),
    )
    write_calibration(record.folder.parent, calibration)
    return calibration


def sweep_thresholds(probability: np.ndarray, sections: LabelledSections) -> ChallengeSweep:
    """V_rand and V_info of a probability (Z, Y, X) at the official thresholds."""
    sweep = ChallengeSweep()
    for section, truth in zip(*prepare(probability, **sections.for_metrics), strict=True):
        sweep.add_truth(section, truth)
    return sweep


def _learn(record: RunRecord, predictor: Predictor, training: LabelledSections) -> Agglomeration:
    try:
        return learn_agglomeration((predictor.stream(block.images), block.true_cells) for block in training.blocks)
    except ValueError as error:
        raise InputError(f"{record.folder}: no agglomeration can be learned, {error}; use cells: threshold") from error


def _curve(sweep: ChallengeSweep) -> list[CurvePoint]:
    columns = zip(sweep.thresholds, sweep.v_rand().curve[:, 1], sweep.v_info().curve[:, 1], strict=True)
    return [CurvePoint(threshold=float(t), v_rand=float(r), v_info=float(i)) for t, r, i in columns]
