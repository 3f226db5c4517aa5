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
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from emseg.data.labelled_sections import LabelledSections
from emseg.data.sources import Source
from emseg.data.stack import write_stack
from emseg.errors import InputError
from emseg.evaluation.baselines import score_baselines
from emseg.evaluation.calibrate import calibrate, sweep_thresholds
from emseg.files import atomic_folder, hold
from emseg.inference.agglomeration import Agglomeration
from emseg.inference.segmenter import CONTOUR
from emseg.metrics.challenge import ChallengeSweep
from emseg.metrics.scoring import (
    ALL_METRICS,
    THRESHOLDED_METRICS,
    Scores,
    is_collapsed,
    score_pixels,
    score_segments,
)
from emseg.metrics.warping import warping_error
from emseg.records.calibration import Calibration, Thresholds, read_calibration
from emseg.records.evaluation import BASELINES_FILE, METRICS_FILE, SCORES_FILE, write_metrics
from emseg.settings import CellMethod
from emseg.training.plan import parts_of_run
from emseg.training.record import RunRecord

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
    "agglomeration.json",  # of evaluations before rules for cells were kept with the calibration
    "curves.png",
    "thresholds.png",
    "panels/section-*.png",
    "overlays/worst.png",
    "overlays/best.png",
)
"""Everything that is written to an `evaluation` folder."""


Draw = Callable[[Path, RunRecord, LabelledSections], None]
"""Adds figures of a run's test sections to the folder of its evaluation."""


def evaluate(record: RunRecord, test: LabelledSections, draw: Draw = lambda *_: None) -> dict[str, Any]:
    """Predict and score the test sections of a calibrated run; write `evaluation` beside its `training` folder.

    Args:
        record: of the run.
        test: its test sections.
        draw: told when the tables are there.

    Returns:
        The scores, as metrics.json holds them.

    Raises:
        InputError: the run was not calibrated, or its weights are damaged.
    """
    facts = record.read()
    calibration, checksum = read_calibration(record.folder.parent, facts)
    if calibration.grey_threshold is None:
        raise InputError(
            f"{record.folder.parent} was calibrated by an earlier emseg; run `emseg calibrate` on it again"
        )
    predictor = record.load_predictor(normalized=True)
    probability = predictor.predict(test.images, test.numbers)
    per_section = score_pixels(probability, test.labels, PIXEL_THRESHOLD)
    merged = probability
    if calibration.agglomeration is not None:
        thresholded = _score_cells(probability, test.labels, calibration.plain)
        for name in THRESHOLDED_METRICS:
            per_section[name] = thresholded[name.removesuffix("_thresholded")]
        merged = Agglomeration.from_dict(calibration.agglomeration).close_stack(probability)
    cells = _score_cells(merged, test.labels, calibration.thresholds)
    if calibration.agglomeration is not None:
        # It compares pixels too, so it is of the mask, whose membranes are as wide as the network sees them.
        masks = (merged > calibration.thresholds.v_rand) & (probability > CONTOUR)
        cells["warping_error"] = [warping_error(*pair).value for pair in zip(masks, test.labels, strict=True)]
    per_section = per_section.merge(cells)
    oracle = sweep_thresholds(merged, test.labels)
    per_section["v_rand_oracle"] = oracle.v_rand().per_section
    per_section["v_info_oracle"] = oracle.v_info().per_section
    per_section["section"] = test.numbers
    scores = Scores(facts["protocol"], facts["data_digest"], per_section)
    metrics = {
        **{key: facts[key] for key in ("model", "dataset", "protocol", "data_digest", "fold", "seed")},
        "leaks": scores.leaks,
        "sections": len(per_section),
        "pixel_threshold": PIXEL_THRESHOLD,
        "cells": calibration.cells,
        "threshold": calibration.thresholds.v_rand,
        "v_info_threshold": calibration.thresholds.v_info,
        "oracle_threshold": oracle.v_rand().threshold,
        "collapsed": is_collapsed(probability),
        **{key: facts[key] for key in ("parameters", "epochs", "seconds_per_epoch")},
        **scores.summary(),
    }
    place = evaluation_folder(record)
    # Who evaluates the same run at the same time writes the same.
    with (
        hold(place, f"another process is writing {place}; wait for it", patience=300),
        atomic_folder(place, OWN_FILES) as folder,
    ):
        _write_table(folder / SCORES_FILE, per_section)
        _write_table(folder / BASELINES_FILE, score_baselines(calibration.grey_threshold, test))
        _write_table(folder / CURVES_FILE, _threshold_curves(calibration, oracle))
        write_stack(folder / PROBABILITY_PICTURE, np.rint(probability * 255).astype(np.uint8))
        if calibration.agglomeration is not None:
            write_stack(folder / MERGED_PICTURE, np.rint(merged * 255).astype(np.uint8))
        write_metrics(folder, metrics, facts, checksum)
        draw(folder, record, test)
    return metrics


def calibrate_and_evaluate(
    record: RunRecord, dataset: Source, cells: CellMethod | None = None, draw: Draw = lambda *_: None
) -> dict[str, Any]:
    """Both steps on the sections of a run's own dataset; see `calibrate` and `evaluate`."""
    parts = parts_of_run(record, dataset)
    calibrate(record, parts.training, parts.validation, cells)
    return evaluate(record, parts.test, draw)


def _score_cells(proposal: np.ndarray, labels: np.ndarray, thresholds: Thresholds) -> pd.DataFrame:
    """Metrics of cells, a row per section; the challenge sweeps each of its two metrics on its own."""
    table = score_segments(proposal, labels, thresholds.v_rand)
    if thresholds.v_info != thresholds.v_rand:
        table.update(score_segments(proposal, labels, thresholds.v_info)[list(_INFO_METRICS)])
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


def evaluation_folder(record: RunRecord) -> Path:
    """Where the evaluation of a run is written."""
    return record.folder.parent / "evaluation"


def metric_means(metrics: dict[str, Any]) -> dict[str, float]:
    """Flat metrics of metrics.json: each mean by its name, its interval as interval/NAME_low and _high."""
    flat = {}
    for name in ALL_METRICS:
        # A run without agglomeration has nothing to compare with thresholding.
        for part, value in metrics.get(name, {}).items():
            # MLflow draws a section per prefix: intervals must not crowd the means.
            flat[name if part == "mean" else f"interval/{name}_{part}"] = value
    return flat
