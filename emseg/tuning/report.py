"""A study as a report: what was searched, what it cost, what was found, and what the weight map was worth.

study.md     what a reader wants to know
trials.csv   a row per trial
*.png        figures
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
from scipy import stats

from emseg.data.sources import Source
from emseg.files import write_text
from emseg.reporting.leaderboard import markdown_table
from emseg.settings import Settings, TuningSettings
from emseg.training.plan import split_of
from emseg.tuning.figures import draw_study, importance
from emseg.tuning.result import as_text, at_equal_budget, trials_table
from emseg.tuning.space import apply_point, gflop
from emseg.tuning.study import EPOCHS, POINT, require_best, workers_of

if TYPE_CHECKING:
    from optuna import Study
    from optuna.trial import FrozenTrial

_SHOWN = 10
_NUMBERS = (
    "w0",
    "sigma",
    "dice_weight",
    "learning_rate",
    "weight_decay",
    "augmentation_strength",
    "base_channels",
    "depth",
)


def write_study_report(study: Study, settings: Settings, source: Source, folder: Path) -> Path:
    """Write the report of a study; returns study.md.

    Args:
        study: of `open_study`.
        settings: that it was opened with.
        source: likewise.
        folder: where the report goes.

    Raises:
        InputError: no trial is complete.
    """
    best = require_best(study)
    tuning = settings.tuning
    folder.mkdir(parents=True, exist_ok=True)
    figures = draw_study(study, folder, tuning)
    table = trials_table(study)
    write_text(folder / "trials.csv", table.to_csv(index=False, float_format="%.6g"))
    parts = [
        f"# Study {study.study_name}",
        _what_was_searched(study, settings, source),
        "## What it cost\n\n" + _cost(study, settings, source),
        "## What was found\n\n" + _best(best, study, tuning.metric) + "\n\n" + _top(table, study),
        "## At equal budget\n\n" + _equal_budget(study, tuning),
        "## Figures\n\n" + "\n\n".join(f"![{file.stem}]({file.name})" for file in figures),
    ]
    write_text(folder / "study.md", "\n\n".join(parts) + "\n")
    return folder / "study.md"


def trial_tflop(trial: FrozenTrial, settings: Settings, source: Source, epochs: int | None = None) -> float:
    """TFLOP of the convolutions a trial trained, or would have in so many epochs."""
    own = apply_point(settings, trial.user_attrs[POINT])
    trained = trial.user_attrs.get(EPOCHS, 0) if epochs is None else epochs
    return gflop(own, source) * trained * own.recipe(settings.tuning.model).images_per_epoch / 1e3


def _what_was_searched(study: Study, settings: Settings, source: Source) -> str:
    tuning, protocol = settings.tuning, settings.protocol
    recipe, split = settings.recipe(tuning.model), split_of(settings, source, protocol.folds[0])
    space = tuning.space.model_dump(exclude_none=True)
    machines = {
        f"{worker.device}, torch {worker.packages['torch']}, commit {str(worker.git_commit)[:10]}"
        + (" with uncommitted changes" if worker.git_dirty else "")
        for worker in workers_of(study)
    }
    searched = pd.DataFrame([{"parameter": name, "values": _values(values)} for name, values in space.items()])
    return (
        f"`{tuning.model}` on {source.name} (data digest {source.digest}), protocol {protocol.name}: trained on "
        f"{len(split.training)} sections, judged by {tuning.metric} on {len(split.validation)} validation sections "
        f"({split.validation[0]} to {split.validation[-1]}), the {len(split.test)} tested sections unseen. A trial "
        f"trains at most {recipe.epochs} epochs of {recipe.images_per_epoch} crops of {recipe.crop} pixels. "
        f"{'; '.join(sorted(machines))}.\n\n{markdown_table(searched)}"
    )


def _values(values: Any) -> str:
    if isinstance(values, dict):
        scale = ", logarithmic" if values.get("log") else f", step {values['step']:g}" if values.get("step") else ""
        return f"{values['low']:g} to {values['high']:g}{scale}"
    return ", ".join(map(str, values))


def _cost(study: Study, settings: Settings, source: Source) -> str:
    trials = [trial for trial in study.trials if trial.state.is_finished() and POINT in trial.user_attrs]
    epochs = settings.recipe(settings.tuning.model).epochs
    # What is too large is not trained at all, with or without pruning.
    trained = [trial for trial in trials if trial.user_attrs.get(EPOCHS)]
    spent = sum(trial_tflop(trial, settings, source) for trial in trained)
    whole = sum(trial_tflop(trial, settings, source, epochs) for trial in trained)
    states = pd.Series([trial.state.name.lower() for trial in trials]).value_counts()
    counted = ", ".join(f"{count} {state}" for state, count in states.items())
    seconds = sum(trial.duration.total_seconds() for trial in trials if trial.duration)
    workers = len(workers_of(study))
    begun = min(trial.datetime_start for trial in trials if trial.datetime_start)
    ended = max(trial.datetime_complete for trial in trials if trial.datetime_complete)
    return (
        f"{len(trials)} trials: {counted}; {len(trials) - len(trained)} of them too large to be trained. "
        f"{(ended - begun).total_seconds() / 60:.0f} minutes from first to last, {seconds / 60:.0f} minutes of "
        f"{workers} worker{'s' if workers > 1 else ''}. {spent:.0f} TFLOP of convolutions; the same trials "
        f"to the end would have been {whole:.0f}, so pruning saved {1 - spent / whole:.0%}."
    )


def _best(best: FrozenTrial, study: Study, metric: str) -> str:
    readable = as_text(pd.DataFrame([best.user_attrs[POINT]])).iloc[0]
    point = ", ".join(f"{name} {value}" for name, value in readable.items())
    text = f"Best is trial {best.number}, {metric} {best.values[0]:.4f}: {point}."
    first = study.trials[0]
    if first.state.name == "COMPLETE":
        text += f" The settings it began with (trial 0): {first.values[0]:.4f}."
    importances = importance(study)
    if not importances:
        return text
    shares = ", ".join(f"{name} {share:.2f}" for name, share in importances.items())
    return f"{text} Importance among complete trials (PED-ANOVA): {shares}."


def _top(table: pd.DataFrame, study: Study) -> str:
    complete = table[table["state"] == "complete"]
    ranked = complete.sort_values("value", ascending=study.directions[0].name == "MINIMIZE").head(_SHOWN)
    shown = ranked.drop(columns=["state", "status"])
    return f"The best {len(shown)} of {len(complete)} complete trials:\n\n{markdown_table(as_text(shown))}"


def _equal_budget(study: Study, tuning: TuningSettings) -> str:
    when, compared = at_equal_budget(study, tuning.resource)
    values = pd.DataFrame([trial.user_attrs[POINT] | {"value": value} for trial, value in compared])
    text = f"{tuning.metric} {when} of {len(compared)} trials, pruned or not."
    lower = study.directions[0].name == "MINIMIZE"
    for name in ("loss", "dropout"):
        if name in values:
            grouped = values.groupby(values[name].astype(str))["value"]
            best = grouped.min() if lower else grouped.max()
            table = pd.DataFrame({"trials": grouped.count(), "median": grouped.median(), "best": best}).reset_index()
            text += f"\n\n{markdown_table(as_text(table))}"
    correlations = []
    for name in _NUMBERS:
        known = values.dropna(subset=[name]) if name in values else values.iloc[:0]
        if len(known) > 2 and known[name].nunique() > 1:
            found = stats.spearmanr(known[name], known["value"])
            correlations.append(
                {"parameter": name, "trials": len(known), "rank correlation": found.statistic, "p": found.pvalue}
            )
    if correlations:
        table = as_text(pd.DataFrame(correlations))
        text += f"\n\nSpearman's rank correlation with {tuning.metric}:\n\n{markdown_table(table)}"
    return text
