"""What to call recipes that share a model's name."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from emseg.records.recipe import recipe_digest, recipe_of
from emseg.records.run import Run
from emseg.settings.file import flat

_MOST_DIFFERENCES = 2
"""Settings that fit into a name; recipes that differ in more go by their digest."""


def distinct_names(runs: Mapping[Path, Run]) -> dict[Path, str]:
    """A name for each run: its model's, and in brackets what sets its recipe apart from others of that model.

    Args:
        runs: the record of each.
    """
    names: dict[Path, str] = {}
    for model in dict.fromkeys(run.model for run in runs.values()):
        own = {place: run for place, run in runs.items() if run.model == model}
        labels = _labels({(_title(run), recipe_digest(run)): run for run in own.values()})
        for place, run in own.items():
            label = labels[_title(run), recipe_digest(run)]
            names[place] = f"{model} ({label})" if label else model
    return names


def _title(run: Run) -> str:
    """What a list of jobs calls a run's profile and variation; nothing for other runs."""
    parts = (run.profile, (run.variation or "").lstrip("/"))
    return ", ".join(part for part in parts if part)


def _labels(recipes: dict[tuple[str, str], Run]) -> dict[tuple[str, str], str]:
    if len(recipes) == 1:
        return dict.fromkeys(recipes, "")
    titles = [title for title, _ in recipes]
    if len(set(titles)) == len(titles):
        return {(title, digest): title for title, digest in recipes}
    leaves = {key: flat(recipe_of(run)) for key, run in recipes.items()}
    settings = dict.fromkeys(setting for values in leaves.values() for setting in values)
    differing = [
        setting for setting in settings if len({json.dumps(values.get(setting)) for values in leaves.values()}) > 1
    ]
    labels = {}
    for (title, digest), values in leaves.items():
        told = ", ".join(f"{setting.rpartition('.')[2]} {values.get(setting)}" for setting in differing)
        apart = told if 0 < len(differing) <= _MOST_DIFFERENCES else f"recipe {digest[:6]}"
        labels[title, digest] = f"{title}, {apart}" if title else apart
    return labels
