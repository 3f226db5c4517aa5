"""Figures of a study."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from optuna import Study


def draw_study(study: Study, folder: Path) -> list[Path]:
    """Draw history, importance, slices, parallel coordinates and learning curves into a folder.

    Returns:
        The files; none before two trials are complete.
    """
    import matplotlib as mpl
    from optuna.trial import TrialState
    from optuna.visualization import matplotlib as draw

    mpl.use("Agg")
    if len(study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))) < 2:
        return []
    files = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name, figure in (
            ("history", draw.plot_optimization_history),
            ("importance", draw.plot_param_importances),
            ("slice", draw.plot_slice),
            ("parallel-coordinates", draw.plot_parallel_coordinate),
            ("intermediate-values", draw.plot_intermediate_values),
        ):
            try:
                axes = figure(study)
            # Importance needs values that differ, a slice a parameter that does.
            except (ValueError, RuntimeError):
                continue
            first = axes.flat[0] if hasattr(axes, "flat") else axes
            files.append(folder / f"{name}.png")
            first.figure.savefig(files[-1], dpi=110, bbox_inches="tight")
    import matplotlib.pyplot as plt

    plt.close("all")
    return files
