"""Score a trained run on its test sections and write what a reader wants to see of it.

scores.csv      a row per test section
baselines.csv   the same for a grey-level threshold and the majority class
metrics.json    means with 95 % bootstrap intervals, protocol, digest, cost
thresholds.csv  V_rand and V_info over thresholds, on validation and on test sections
probability.tif probability times 255 of each test section, for looking at; scores are of the full precision
cells.tif       the same closed by agglomeration, where the recipe has it, and agglomeration.json what was learned
panels/         image, label, probability, error (and weight map) of each test section
overlays/       false splits and false merges over the worst and the best test section
curves.png      training curves
thresholds.png  thresholds.csv as a figure
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from emseg.data.augmented import AugmentedSet, FoldData, fold_data
from emseg.data.protocol import Split, consecutive, split_sections
from emseg.data.separation import weight_map
from emseg.data.sources import Source
from emseg.data.stack import read_stack, write_stack
from emseg.errors import InputError
from emseg.files import atomic_folder, hold, write_json
from emseg.inference import Predictor
from emseg.inference.agglomeration import MERGE_THRESHOLD, Agglomeration, learn_agglomeration
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
from emseg.records.evaluation import (
    AGGLOMERATION_FILE,
    BASELINES_FILE,
    METRICS_FILE,
    SCORES_FILE,
    read_evaluation,
    read_fitting,
    write_metrics,
)
from emseg.records.run import FINISHED
from emseg.reporting.baselines import score_baselines
from emseg.settings import CellMethod, ProtocolSettings
from emseg.training.record import RunRecord

PIXEL_THRESHOLD = 0.5
"""Of pixel metrics, as in the study. V_info uses the threshold at which it is best on the validation sections, all
other metrics of cells the one at which V_rand is; cells by agglomeration use `MERGE_THRESHOLD`."""
_INFO_METRICS = ("v_info", "v_info_split", "v_info_merge")
CELLS_FILE = "cells.tif"
EVALUATION_TABLES = (METRICS_FILE, SCORES_FILE, BASELINES_FILE)
"""What `read_evaluation` reads."""
OWN_FILES = (
    *EVALUATION_TABLES,
    AGGLOMERATION_FILE,
    CELLS_FILE,
    "thresholds.csv",
    "probability.tif",
    "curves.png",
    "thresholds.png",
    "panels/section-*.png",
    "overlays/worst.png",
    "overlays/best.png",
)
"""Everything that is written to an `evaluation` folder."""
_PANELS = 6


@dataclass(frozen=True)
class _Cells:
    """How cells are told apart: what is thresholded for them on test sections, where, and by what rule it was made.

    `closed` is the probability itself where there is no agglomeration.
    """

    validation: ChallengeSweep
    probability: np.ndarray
    closed: np.ndarray
    agglomeration: Agglomeration | None = None

    @property
    def threshold(self) -> float:
        return MERGE_THRESHOLD if self.agglomeration else self.validation.v_rand().threshold

    @property
    def info_threshold(self) -> float:
        # The challenge sweeps each of its two metrics on its own.
        return MERGE_THRESHOLD if self.agglomeration else self.validation.v_info().threshold

    def score(self, labels: np.ndarray) -> pd.DataFrame:
        """Metrics of cells, a row per section."""
        table = score_segments(self.closed, labels, self.threshold)
        if self.info_threshold != self.threshold:
            table.update(score_segments(self.closed, labels, self.info_threshold)[list(_INFO_METRICS)])
        if self.agglomeration:
            # It compares pixels too, so it is of the mask, whose membranes are as wide as the network sees them.
            masks = (self.closed > self.threshold) & (self.probability > CONTOUR)
            table["warping_error"] = [
                warping_error(mask, label).value for mask, label in zip(masks, labels, strict=True)
            ]
        return table


def evaluate_record(
    record: RunRecord,
    source: Source,
    augmented: AugmentedSet,
    with_figures: bool = True,
    cells: CellMethod | None = None,
) -> dict[str, Any]:
    """Predict and score the test sections of a finished run; write `evaluation` beside its `training` folder.

    Args:
        record: of the run.
        source: the data it was trained on.
        augmented: the augmented set it was trained on.
        with_figures: False leaves them to `draw_evaluation`, on a machine that has matplotlib.
        cells: how cells are told apart; None: as the run's recipe says.

    Returns:
        What metrics.json holds.

    Raises:
        InputError: the run is unfinished, `source` is not the data it was trained on, or nothing can be learned for
            an agglomeration.
    """
    facts = record.read()
    if facts["status"] != FINISHED:
        raise InputError(f"{record.folder}: the run is {facts['status']}, not finished; train it to the end first")
    split = _split(record, source)
    data = fold_data(source, split, augmented, facts["seed"])
    recipe = facts["settings"]["training"]
    predictor = record.load_predictor(normalized=True)
    probability = predictor.predict(data.test_images, data.test_sections)
    validated = predictor.predict(data.validation_images, data.validation_sections)
    found = _Cells(sweep_thresholds(validated, data.validation_labels), probability, probability)
    per_section = score_pixels(probability, data.test_labels, PIXEL_THRESHOLD)
    # Warped copies have no neighbouring sections.
    if (cells or recipe.get("cells", "threshold")) == "agglomeration" and not split.divides_augmented:
        thresholded = found.score(data.test_labels)
        for name in THRESHOLDED_METRICS:
            per_section[name] = thresholded[name.removesuffix("_thresholded")]
        agglomeration = _learn(record, source, split, predictor, data)
        blocks = [agglomeration.close_stack(validated[block]) for block in consecutive(split.validation)]
        validation = sweep_thresholds(np.concatenate(blocks), data.validation_labels)
        found = _Cells(validation, probability, agglomeration.close_stack(probability), agglomeration)
    per_section = per_section.merge(found.score(data.test_labels))
    oracle = sweep_thresholds(found.closed, data.test_labels)
    per_section["v_rand_oracle"] = oracle.v_rand().per_section
    per_section["v_info_oracle"] = oracle.v_info().per_section
    per_section["section"] = data.test_sections
    scores = Scores(facts["protocol"], facts["data_digest"], per_section)
    metrics = {
        "model": facts["model"],
        "dataset": facts["dataset"],
        "protocol": scores.protocol,
        "leaks": scores.leaks,
        "data_digest": scores.data_digest,
        "fold": facts["fold"],
        "seed": facts["seed"],
        "sections": len(per_section),
        "pixel_threshold": PIXEL_THRESHOLD,
        "cells": "agglomeration" if found.agglomeration else "threshold",
        "threshold": found.threshold,
        "v_info_threshold": found.info_threshold,
        "oracle_threshold": oracle.v_rand().threshold,
        "collapsed": is_collapsed(probability),
        "parameters": facts["parameters"],
        "epochs": facts["epochs"],
        "seconds_per_epoch": facts["seconds_per_epoch"],
        **scores.summary(),
    }
    place = evaluation_folder(record)
    # Who evaluates the same run at the same time writes the same.
    with (
        hold(place, f"another process is writing {place}; wait for it", patience=300),
        atomic_folder(place, OWN_FILES) as folder,
    ):
        per_section.to_csv(folder / SCORES_FILE, index=False, float_format="%.6f", lineterminator="\n")
        baselines = score_baselines(data)
        baselines.to_csv(folder / BASELINES_FILE, index=False, float_format="%.6f", lineterminator="\n")
        curves = threshold_curves(found.validation, oracle)
        curves.to_csv(folder / "thresholds.csv", index=False, float_format="%.6f", lineterminator="\n")
        write_stack(folder / "probability.tif", np.rint(probability * 255).astype(np.uint8))
        if found.agglomeration:
            write_stack(folder / CELLS_FILE, np.rint(found.closed * 255).astype(np.uint8))
            write_json(folder / AGGLOMERATION_FILE, found.agglomeration.as_dict())
        write_metrics(folder, metrics, facts)
        if with_figures:
            _draw(folder, record, data)
    return metrics


def draw_evaluation(record: RunRecord, source: Source, augmented: AugmentedSet) -> None:
    """Add the figures to an evaluation that was made without them.

    Raises:
        InputError: the run was not evaluated, or `source` is not the data it was trained on.
    """
    data = fold_data(source, _split(record, source), augmented, record.read()["seed"])
    before = evaluation_folder(record)
    read_fitting(before)
    with atomic_folder(before, OWN_FILES) as folder:
        shutil.copytree(before, folder, dirs_exist_ok=True)
        _draw(folder, record, data)


def _learn(record: RunRecord, source: Source, split: Split, predictor: Predictor, data: FoldData) -> Agglomeration:
    """What the training sections teach."""
    training = np.array(split.training)
    blocks = [training[block] for block in consecutive(split.training)]
    grey = data.normalization.grey
    try:
        return learn_agglomeration(
            (predictor.stream(grey(source.images[block])), source.labels[block]) for block in blocks
        )
    except ValueError as error:
        raise InputError(f"{record.folder}: no agglomeration can be learned, {error}; use cells: threshold") from error


def _split(record: RunRecord, source: Source) -> Split:
    facts = record.read()
    if facts["data_digest"] != source.digest:
        raise InputError(
            f"{record.folder} was trained on {facts['dataset']} with digest {facts['data_digest']}, "
            f"but {source.name} now has digest {source.digest}"
        )
    protocol = ProtocolSettings(**facts["settings"]["protocol"])
    return split_sections(protocol, len(source.images), facts["fold"], len(source.test_labels))


def _draw(folder: Path, record: RunRecord, data: FoldData) -> None:
    """Draw every figure of an evaluation from its files in `folder`."""
    # Drawing is the one step that needs matplotlib, which a machine that only trains may lack.
    from emseg.reporting.figures import curves_figure, overlay_figure, panel_figure, save_figure, thresholds_figure

    metrics, per_section, _ = read_evaluation(folder)
    probability = read_stack(folder / "probability.tif").astype(np.float32) / 255
    is_closed = (folder / CELLS_FILE).is_file()
    cells = read_stack(folder / CELLS_FILE).astype(np.float32) / 255 if is_closed else probability
    threshold = metrics["threshold"]
    curves = pd.read_csv(folder / "thresholds.csv")
    chosen = {"v_rand": threshold, "v_info": metrics["v_info_threshold"]}
    save_figure(thresholds_figure(record.name, curves, chosen), folder / "thresholds.png")
    save_figure(curves_figure(record.name, record.history()), folder / "curves.png")
    order = per_section["v_rand"].to_numpy().argsort()
    for index, rank in ((order[0], "worst"), (order[-1], "best")):
        value = per_section["v_rand"][index]
        figure = overlay_figure(
            f"{record.name}, section {data.test_sections[index]}, V_rand {value:.4f} ({rank})",
            data.test_images[index],
            data.test_labels[index],
            cells[index] > threshold,
        )
        save_figure(figure, folder / "overlays" / f"{rank}.png")
    settings = record.read()["settings"]["weight_map"]
    for index in np.unique(np.linspace(0, len(per_section) - 1, _PANELS).round().astype(int)):
        section = int(per_section["section"][index])
        title = f"{record.name}, {metrics['dataset']}, section {section}" + (" (leaks)" if metrics["leaks"] else "")
        figure = panel_figure(
            title,
            data.test_images[index],
            data.test_labels[index],
            probability[index],
            PIXEL_THRESHOLD,
            weight_map(data.test_labels[index], settings["w0"], settings["sigma"]) if settings else None,
        )
        save_figure(figure, folder / "panels" / f"section-{section:03d}.png")


def sweep_thresholds(probabilities: Iterable[np.ndarray], labels: np.ndarray) -> ChallengeSweep:
    """V_rand and V_info of probabilities (Y, X), section by section, at the official thresholds."""
    sweep = ChallengeSweep()
    for probability, label in zip(probabilities, labels, strict=True):
        sweep.add(probability, label)
    return sweep


def threshold_curves(validation: ChallengeSweep, test: ChallengeSweep) -> pd.DataFrame:
    """Columns threshold, and v_rand and v_info on the validation and the test sections."""
    columns = {"threshold": np.array(validation.thresholds)}
    for name, sweep in (("validation", validation), ("test", test)):
        columns |= {f"{name}_v_rand": sweep.v_rand().curve[:, 1], f"{name}_v_info": sweep.v_info().curve[:, 1]}
    return pd.DataFrame(columns)


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
