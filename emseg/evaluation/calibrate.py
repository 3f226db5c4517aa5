"""Learn how the cells of a trained network are told apart, from its training and validation sections alone."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from emseg.data.labelled_sections import LabelledSections
from emseg.errors import InputError
from emseg.evaluation.baselines import fit_threshold
from emseg.inference import Predictor
from emseg.inference.agglomeration import MERGE_THRESHOLD, Agglomeration, learn_agglomeration
from emseg.metrics.challenge import ChallengeSweep
from emseg.records.calibration import Calibration, CurvePoint, GreyThreshold, Thresholds, write_calibration
from emseg.records.run import FINISHED, made_from
from emseg.settings import LEAKING_PROTOCOLS, CellMethod
from emseg.training.record import RunRecord


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
    facts = record.read()
    if facts["status"] != FINISHED:
        raise InputError(f"{record.folder}: the run is {facts['status']}, not finished; train it to the end first")
    cells = cells or facts["settings"]["training"]["cells"]
    if facts["protocol"] in LEAKING_PROTOCOLS:
        cells = "threshold"
    predictor = record.load_predictor(normalized=True)
    predicted = predictor.predict(validation.images, validation.numbers)
    sweep = sweep_thresholds(predicted, validation.labels)
    plain = thresholds = Thresholds(v_rand=sweep.v_rand().threshold, v_info=sweep.v_info().threshold)
    agglomeration = None
    if cells == "agglomeration":
        agglomeration = _learn(record, predictor, training)
        merged = [agglomeration.close_stack(predicted[block]) for block in validation.consecutive]
        sweep = sweep_thresholds(np.concatenate(merged), validation.labels)
        thresholds = Thresholds(v_rand=MERGE_THRESHOLD, v_info=MERGE_THRESHOLD)
    sigma, level = fit_threshold(validation.images, validation.labels)
    calibration = Calibration(
        made_from=made_from(facts),
        cells=cells,
        thresholds=thresholds,
        plain=plain,
        agglomeration=None if agglomeration is None else agglomeration.as_dict(),
        grey_threshold=GreyThreshold(sigma=sigma, level=level),
        curve=_curve(sweep),
    )
    write_calibration(record.folder.parent, calibration)
    return calibration


def sweep_thresholds(probabilities: Iterable[np.ndarray], labels: np.ndarray) -> ChallengeSweep:
    """V_rand and V_info of probabilities (Y, X), section by section, at the official thresholds."""
    sweep = ChallengeSweep()
    for probability, label in zip(probabilities, labels, strict=True):
        sweep.add(probability, label)
    return sweep


def _learn(record: RunRecord, predictor: Predictor, training: LabelledSections) -> Agglomeration:
    try:
        return learn_agglomeration((predictor.stream(block.images), block.labels) for block in training.blocks)
    except ValueError as error:
        raise InputError(f"{record.folder}: no agglomeration can be learned, {error}; use cells: threshold") from error


def _curve(sweep: ChallengeSweep) -> list[CurvePoint]:
    columns = zip(sweep.thresholds, sweep.v_rand().curve[:, 1], sweep.v_info().curve[:, 1], strict=True)
    return [CurvePoint(threshold=float(t), v_rand=float(r), v_info=float(i)) for t, r, i in columns]
