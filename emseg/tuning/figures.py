"""Figures of a study."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from emseg.settings import TuningSettings
from emseg.tuning.result import at_equal_budget
from emseg.tuning.study import best_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from optuna import Study
    from optuna.trial import FrozenTrial


_ENOUGH = 8
"""Complete trials; the importance of parameters among fewer says nothing."""


def draw_study(study: Study, folder: Path, tuning: TuningSettings) -> list[Path]:
    """Draw history, importance, slices, parallel coordinates, weight maps, and learning curves or the Pareto front.

    Args:
        study: to draw.
        folder: gets a PNG each.
        tuning: what the study searches.

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
    metric, cost = tuning.metric, tuning.cost
    quality: dict[str, Any] = {"target_name": metric}
    if cost is not None:
        quality["target"] = lambda trial: trial.values[0]
    figures: list[tuple[str, Callable[[], Any]]] = [
        ("history", lambda: draw.plot_optimization_history(study, **quality)),
        ("slice", lambda: draw.plot_slice(study, **quality)),
        ("parallel-coordinates", lambda: draw.plot_parallel_coordinate(study, **quality)),
    ]
    if cost is None:
        figures.append(("learning-curves", lambda: _draw_learning_curves(study, tuning)))
    else:
        figures.append(("pareto-front", lambda: draw.plot_pareto_front(study, target_names=[metric, cost])))
    if shares := importance(study):
        figures.append(("importance", lambda: _draw_importance(shares, metric)))
    when, compared = at_equal_budget(study, tuning.resource)
    if any({"w0", "sigma"} <= trial.params.keys() for trial, _ in compared):
        figures.append(("weight-map", lambda: _draw_weight_maps(compared, f"{metric} {when}", best)))
    best = max if study.directions[0].name == "MAXIMIZE" else min
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
            if name == "parallel-coordinates":  # a column per parameter, whose labels would run into each other
                first.figure.set_size_inches(11, 4.8)
            first.figure.savefig(files[-1], dpi=110, bbox_inches="tight")
    plt.close("all")
    return files


def _draw_learning_curves(study: Study, tuning: TuningSettings) -> Axes:
    """The metric of every trial while it trained: pruned ones grey, complete ones blue, the best one red."""
    import matplotlib.pyplot as plt

    _, axes = plt.subplots(figsize=(7, 4.5))
    best = best_of(study)
    looks = {"pruned": ("0.6", 1.0), "complete": ("tab:blue", 1.5), "best": ("tab:red", 2.5)}
    shown = set()
    for trial in sorted(study.get_trials(deepcopy=False), key=lambda trial: trial.state.name, reverse=True):
        kind = "best" if best and trial.number == best.number else trial.state.name.lower()
        if kind not in looks or not trial.intermediate_values:
            continue
        colour, width = looks[kind]
        label = None if kind in shown else f"trial {trial.number}, the best" if kind == "best" else kind
        shown.add(kind)
        steps = list(trial.intermediate_values)
        axes.plot(
            steps, list(trial.intermediate_values.values()), color=colour, linewidth=width, marker=".", label=label
        )
    axes.set(xlabel=tuning.resource, ylabel=f"{tuning.metric} on validation sections", title=study.study_name)
    axes.legend()
    return axes


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


def _draw_weight_maps(
    compared: list[tuple[FrozenTrial, float]], value_name: str, best: Callable[[list[float]], float]
) -> Axes:
    import matplotlib.pyplot as plt

    weighted = [(trial.params, value) for trial, value in compared if {"w0", "sigma"} <= trial.params.keys()]
    plain = [value for trial, value in compared if not {"w0", "sigma"} <= trial.params.keys()]
    _, axes = plt.subplots(figsize=(6, 4.5))
    points = axes.scatter(
        [params["sigma"] for params, _ in weighted],
        [params["w0"] for params, _ in weighted],
        c=[value for _, value in weighted],
        s=80,
        edgecolors="black",
    )
    axes.set(xlabel="sigma, pixels", ylabel="w0", yscale="log", title="trials with a weight map")
    bar = axes.figure.colorbar(points, label=value_name)
    if plain:
        values = [value for _, value in weighted] + [best(plain)]
        points.set_clim(min(values), max(values))
        bar.ax.axhline(best(plain), color="red", linewidth=2)
        axes.set_title("trials with a weight map; red: the best without one")
    return axes
