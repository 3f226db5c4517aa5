"""Score a calibrated run on its test sections; nothing is learned here.

scores.csv      a row per test section
baselines.csv   the same for a grey-level threshold and the majority class
metrics.json    means with 95 % bootstrap intervals, protocol, digest, cost
thresholds.csv  V_rand and V_info over thresholds, on validation and on test sections
probability.tif probability times 255 of each test section, for looking at; scores are of the full precision
cells.tif       the same with cells merged by agglomeration, where they are told apart by it
and the figures of `emseg.reporting.evaluation_figures`
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from emseg.data.io.stack import write_stack
from emseg.data.labelled_sections import LabelledSections
from emseg.data.sources import Source
from emseg.errors import InputError
from emseg.evaluation.baselines import score_baselines
from emseg.evaluation.calibrate import calibrate, sweep_thresholds
from emseg.files import atomic_folder, hold
from emseg.inference.trained import load_predictor, require_same_networks
from emseg.metrics.challenge import ChallengeSweep
from emseg.metrics.scoring import (
    THRESHOLDED_METRICS,
    Scores,
    is_collapsed,
    score_pixels,
    score_segments,
)
from emseg.metrics.warping import warping_error
from emseg.records.calibration import Calibration, Thresholds, read_calibration
from emseg.records.earlier import AGGLOMERATION_FILE
from emseg.records.evaluation import (
    BASELINES_FILE,
    METRICS_FILE,
    SCORES_FILE,
    DrawnMembranes,
    Evaluation,
    Kind,
    ScoredRun,
    write_evaluation,
)
from emseg.records.record import RunRecord
from emseg.records.run import Run
from emseg.segmentation.agglomeration import Agglomeration
from emseg.segmentation.segmenter import CONTOUR
from emseg.settings import CellMethod
from emseg.training.plan import parts_of_run

PIXEL_THRESHOLD = 0.5
"""Of pixel metrics, as in the reference paper. Metrics of cells use the thresholds of the calibration."""
_INFO_METRICS = ("v_info", "v_info_split", "v_info_merge")
PROBABILITY_PICTURE, MERGED_PICTURE, CURVES_FILE = "probability.tif", "cells.tif", "thresholds.csv"
OWN_FILES = (
    METRICS_FILE,
    SCORES_FILE,
    BASELINES_FILE,
    CURVES_FILE,
    PROBABILITY_PICTURE,
    MERGED_PICTURE,
    AGGLOMERATION_FILE,
    "curves.png",
    "thresholds.png",
    "panels/section-*.png",
    "overlays/worst.png",
    "overlays/best.png",
)
"""Everything that is written to an `evaluation` folder."""


Draw = Callable[[Path, RunRecord, LabelledSections, ScoredRun], None]
"""Adds figures of the sections that a run was scored on to the folder that holds the scores."""


def evaluate(record: RunRecord, test: LabelledSections, draw: Draw = lambda *_: None) -> Evaluation:
    """Predict and score the test sections of a calibrated run; write `evaluation` beside its `training` folder.

    Args:
        record: of the run.
        test: its test sections.
        draw: told when the tables are there.

    Returns:
        What metrics.json holds.

    Raises:
        InputError: the run was not calibrated, or its weights are damaged.
    """
    run = record.read()
    scored = score_sections(record, run, test)
    scores = Scores(run.protocol, run.data_digest, scored.table)
    evaluation = Evaluation(
        dataset=run.dataset,
        protocol=run.protocol,
        leaks=scores.leaks,
        data_digest=run.data_digest,
        metrics=scores.summary(),
        drawn_membranes=DrawnMembranes.of(run.dataset_card),
        **scored.facts(run),
    )
    return scored.write(record.evaluation_folder, record, evaluation, draw)


@dataclass(frozen=True)
class ScoredSections:
    """What a calibrated run says of sections, and what that is worth.

    Attributes:
        sections: that were scored.
        probability: of cell interior, float32 (Z, Y, X).
        merged: the same with cells merged by agglomeration; None where they are told apart by a threshold.
        table: a row per section.
        oracle: V_rand and V_info over thresholds on these very sections.
        calibration: that was used.
        checksum: of it.
    """

    sections: LabelledSections
    probability: np.ndarray
    merged: np.ndarray | None
    table: pd.DataFrame
    oracle: ChallengeSweep
    calibration: Calibration
    checksum: str

    def facts(self, run: Run) -> dict[str, Any]:
        """Entries of metrics.json that any sections have."""
        thresholds = self.calibration.thresholds
        return {
            **{key: getattr(run, key) for key in ("model", "fold", "seed", "parameters", "made_from")},
            "sections": len(self.table),
            "pixel_threshold": PIXEL_THRESHOLD,
            "cells": self.calibration.cells,
            "threshold": thresholds.v_rand,
            "v_info_threshold": thresholds.v_info,
            "oracle_threshold": self.oracle.v_rand().threshold,
            "collapsed": is_collapsed(self.probability),
            "epochs": run.outcome.epochs,
            "seconds_per_epoch": run.outcome.seconds_per_epoch,
            "calibration": self.checksum,
            "files": {},
        }

    def write(self, place: Path, record: RunRecord, evaluation: Kind, draw: Draw) -> Kind:
        """Write everything of an evaluation to a folder, whole or not at all; returns what metrics.json holds."""
        assert self.calibration.grey_threshold is not None
        # Who evaluates the same run at the same time writes the same.
        with (
            hold(place, f"another process is writing {place}; wait for it", patience=300),
            atomic_folder(place, OWN_FILES) as folder,
        ):
            _write_table(folder / SCORES_FILE, self.table)
            _write_table(folder / BASELINES_FILE, score_baselines(self.calibration.grey_threshold, self.sections))
            _write_table(folder / CURVES_FILE, _threshold_curves(self.calibration, self.oracle))
            write_stack(folder / PROBABILITY_PICTURE, np.rint(self.probability * 255).astype(np.uint8))
            if self.merged is not None:
                write_stack(folder / MERGED_PICTURE, np.rint(self.merged * 255).astype(np.uint8))
            evaluation = write_evaluation(folder, evaluation)
            draw(folder, record, self.sections, evaluation)
        return evaluation


def score_sections(record: RunRecord, run: Run, test: LabelledSections) -> ScoredSections:
    """Predict and score sections with a calibrated run.

    Args:
        record: of the run.
        run: what it holds.
        test: sections that the run did not see, normalised as those that it was trained on.

    Raises:
        InputError: the run was not calibrated, or its weights are damaged.
    """
    calibration, checksum = read_calibration(record.folder.parent, run)
    if calibration.grey_threshold is None:
        raise InputError(
            f"{record.folder.parent} was calibrated by an earlier emseg; run `emseg calibrate` on it again"
        )
    require_same_networks(record)
    predictor = load_predictor(record, normalized=True)
    probability = predictor.predict(test.images, test.places)
    per_section = score_pixels(probability, threshold=PIXEL_THRESHOLD, **test.for_metrics)
    merged = probability
    if calibration.agglomeration is not None:
        thresholded = _score_cells(probability, test, calibration.plain)
        for name in THRESHOLDED_METRICS:
            per_section[name] = thresholded[name.removesuffix("_thresholded")]
        merged = Agglomeration.from_rules(calibration.agglomeration).close(probability, test.places)
    cells = _score_cells(merged, test, calibration.thresholds)
    if calibration.agglomeration is not None:
        # It compares pixels too, so it is of the mask, whose membranes are as wide as the network sees them.
        masks = (merged > calibration.thresholds.v_rand) & (probability > CONTOUR)
        cells["warping_error"] = warping_error(masks, **test.for_metrics).per_section
    per_section = per_section.merge(cells)
    oracle = sweep_thresholds(merged, test)
    per_section["v_rand_oracle"] = oracle.v_rand().per_section
    per_section["v_info_oracle"] = oracle.v_info().per_section
    per_section["section"] = test.numbers
    agglomerated = None if calibration.agglomeration is None else merged
    return ScoredSections(test, probability, agglomerated, per_section, oracle, calibration, checksum)


def calibrate_and_evaluate(
    record: RunRecord, dataset: Source, cells: CellMethod | None = None, draw: Draw = lambda *_: None
) -> Evaluation:
    """Both steps on the sections of a run's own dataset; see `calibrate` and `evaluate`."""
    parts = parts_of_run(record, dataset)
    calibrate(record, parts.training, parts.validation, cells)
    return evaluate(record, parts.test, draw)


def _score_cells(proposal: np.ndarray, test: LabelledSections, thresholds: Thresholds) -> pd.DataFrame:
    """Metrics of cells, a row per section; the challenge sweeps each of its two metrics on its own."""
    table = score_segments(proposal, threshold=thresholds.v_rand, **test.for_metrics)
    if thresholds.v_info != thresholds.v_rand:
        of_info = score_segments(proposal, threshold=thresholds.v_info, **test.for_metrics)
        table.update(of_info[list(_INFO_METRICS)])
    return table


def _write_table(path: Path, table: pd.DataFrame) -> None:
    table.to_csv(path, index=False, float_format="%.6f", lineterminator="\n")


def _threshold_curves(calibration: Calibration, test: ChallengeSweep) -> pd.DataFrame:
    """Columns threshold, and v_rand and v_info on the validation and the test sections."""
    return pd.DataFrame(
        {
            "threshold": [point.threshold for point in calibration.curve],
            "validation_v_rand": [point.v_rand for point in calibration.curve],
            "validation_v_info": [point.v_info for point in calibration.curve],
            "test_v_rand": test.v_rand().curve[:, 1],
            "test_v_info": test.v_info().curve[:, 1],
        }
    )
