"""Figures of a study."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from optuna import Study
    from optuna.trial import FrozenTrial


_ENOUGH = 8
"""Complete trials; the importance of parameters among fewer says nothing."""


def draw_study(study: Study, folder: Path, metric: str, cost: str | None) -> list[Path]:
    """Draw history, importance, slices, parallel coordinates, learning curves, and the front of two objectives.

    Args:
        study: to draw.
        folder: gets a PNG each.
        metric: the name of what is searched for.
        cost: of the second objective, if there is one.

    Returns:
        The files; none before two trials are complete.
    """
    import matplotlib as mpl
    from optuna.trial import TrialState
    from optuna.visualization import matplotlib as draw

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    complete = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    if len(complete) < 2:
        return []
    quality = {"target": lambda trial: trial.values[0], "target_name": metric}
    figures: list[tuple[str, Callable[[], Any]]] = [
        ("history", lambda: draw.plot_optimization_history(study, **quality)),
        ("slice", lambda: draw.plot_slice(study, **quality)),
        ("parallel-coordinates", lambda: draw.plot_parallel_coordinate(study, **quality)),
    ]
    if cost is None:
        figures.append(("intermediate-values", lambda: draw.plot_intermediate_values(study)))
    else:
        figures.append(("pareto-front", lambda: draw.plot_pareto_front(study, target_names=[metric, cost])))
    if shares := importance(study):
        figures.append(("importance", lambda: _draw_importance(shares, metric)))
    if any({"w0", "sigma"} <= trial.params.keys() for trial in complete):
        figures.append(("weight-map", lambda: _draw_weight_maps(complete, metric)))
    files = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name, figure in figures:
            try:
                axes = figure()
            # Importance needs values that differ, a slice a parameter that does.
            except (ValueError, RuntimeError):
                continue
            first = axes.flat[0] if hasattr(axes, "flat") else axes
            files.append(folder / f"{name}.png")
            first.figure.savefig(files[-1], dpi=110, bbox_inches="tight")
    plt.close("all")
    return files


def importance(study: Study) -> dict[str, float]:
    """Share of every parameter in what makes a complete trial good (PED-ANOVA); empty where too few are complete."""
    from optuna.importance import get_param_importances
    from optuna.trial import TrialState

    if len(study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))) < _ENOUGH:
        return {}
    # With a target the evaluator looks for what makes it low.
    sign = -1 if study.directions[0].name == "MAXIMIZE" else 1
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return get_param_importances(study, target=lambda trial: sign * trial.values[0])
        except (ValueError, RuntimeError):  # all trials alike
            return {}


def _draw_importance(shares: dict[str, float], metric: str) -> Axes:
    import matplotlib.pyplot as plt

    _, axes = plt.subplots(figsize=(6, 0.5 + 0.4 * len(shares)))
    names = list(shares)[::-1]
    axes.barh(names, [shares[name] for name in names])
    axes.set(xlabel="importance (PED-ANOVA)", title=f"what makes {metric} good among complete trials")
    return axes


def _draw_weight_maps(trials: list[FrozenTrial], metric: str) -> Axes:
    """w0 against sigma of the complete trials, coloured by the metric; the dashed line is the best without a map."""
    import matplotlib.pyplot as plt

    weighted = [trial for trial in trials if {"w0", "sigma"} <= trial.params.keys()]
    _, axes = plt.subplots(figsize=(6, 4.5))
    points = axes.scatter(
        [trial.params["sigma"] for trial in weighted],
        [trial.params["w0"] for trial in weighted],
        c=[trial.values[0] for trial in weighted],
        s=80,
        edgecolors="black",
    )
    axes.set(xlabel="sigma, pixels", ylabel="w0", yscale="log", title="trials with a weight map")
    bar = axes.figure.colorbar(points, label=f"{metric} on validation sections")
    plain = [trial.values[0] for trial in trials if trial not in weighted]
    if plain:
        best = max(plain)
        low, high = bar.mappable.get_clim()
        bar.mappable.set_clim(min(low, best), max(high, best))
        bar.ax.axhline(best, color="red", linestyle="--")
        axes.set_title("trials with a weight map; red: the best without one")
    return axes
