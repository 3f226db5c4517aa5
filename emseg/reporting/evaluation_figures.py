"""The figures of one evaluated run.

panels/         image, label, probability, error (and weight map) of each test section
overlays/       false splits and false merges over the worst and the best test section
curves.png      training curves
thresholds.png  thresholds.csv as a figure
"""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pandas as pd

from emseg.data.io.stack import read_stack
from emseg.data.labelled_sections import LabelledSections
from emseg.data.separation import weight_map
from emseg.data.sources import Source
from emseg.evaluation.evaluate import CURVES_FILE, MERGED_PICTURE, OWN_FILES, PIXEL_THRESHOLD, PROBABILITY_PICTURE
from emseg.files import atomic_folder
from emseg.records.evaluation import SCORES_FILE, ScoredRun, read_fitting
from emseg.records.record import RunRecord
from emseg.training.plan import parts_of_run

_PANELS = 6


def add_figures(record: RunRecord, dataset: Source) -> None:
    """Add the figures to an evaluation that was made without them.

    Raises:
        InputError: the run was not evaluated, or `dataset` is not what it was trained on.
    """
    test = parts_of_run(record, dataset).test
    before = record.evaluation_folder
    _, evaluated = read_fitting(before)
    with atomic_folder(before, OWN_FILES) as folder:
        shutil.copytree(before, folder, dirs_exist_ok=True)
        draw_evaluation(folder, record, test, evaluated.evaluation)


def draw_evaluation(folder: Path, record: RunRecord, test: LabelledSections, evaluation: ScoredRun) -> None:
    """Draw every figure of an evaluation from its files in `folder`."""
    # Drawing is the one step that needs matplotlib, which a machine that only trains may lack.
    from emseg.reporting.figures import curves_figure, overlay_figure, panel_figure, save_figure, thresholds_figure

    run, per_section, truths = record.read(), pd.read_csv(folder / SCORES_FILE), test.truths
    probability = read_stack(folder / PROBABILITY_PICTURE).astype(np.float32) / 255
    is_merged = (folder / MERGED_PICTURE).is_file()
    cells = read_stack(folder / MERGED_PICTURE).astype(np.float32) / 255 if is_merged else probability
    threshold = evaluation.threshold
    curves = pd.read_csv(folder / CURVES_FILE)
    chosen = {"v_rand": threshold, "v_info": evaluation.v_info_threshold}
    save_figure(thresholds_figure(run.name, curves, chosen), folder / "thresholds.png")
    save_figure(curves_figure(run.name, record.history()), folder / "curves.png")
    order = per_section["v_rand"].to_numpy().argsort()
    for index, rank in ((order[0], "worst"), (order[-1], "best")):
        value = per_section["v_rand"][index]
        figure = overlay_figure(
            f"{run.name}, section {test.numbers[index]}, V_rand {value:.4f} ({rank})",
            test.images[index],
            truths[index],
            cells[index] > threshold,
        )
        save_figure(figure, folder / "overlays" / f"{rank}.png")
    settings = run.settings.weight_map
    for index in np.unique(np.linspace(0, len(per_section) - 1, _PANELS).round().astype(int)):
        section = int(per_section["section"][index])
        title = f"{run.name}, {evaluation.dataset}, section {section}" + (" (leaks)" if evaluation.leaks else "")
        figure = panel_figure(
            title,
            test.images[index],
            truths[index],
            probability[index],
            PIXEL_THRESHOLD,
            weight_map(test.labels[index], settings.w0, settings.sigma) if settings else None,
        )
        save_figure(figure, folder / "panels" / f"section-{section:03d}.png")
