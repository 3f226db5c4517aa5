"""What a change of a recipe, or of the way cells are told apart, was worth: paired on the same sections and seeds."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import pandas as pd

from emseg.evaluation.bootstrap import paired_difference
from emseg.metrics.scoring import LOWER_IS_BETTER, THRESHOLDED_METRICS, Scores
from emseg.reporting.leaderboard import as_cell, markdown_table
from emseg.reporting.runs import EvaluatedRun

_METRICS = ("v_rand", "v_info", "pixel_error")


@dataclass(frozen=True)
class _Change:
    """Scores with and without one change, of the same sections and seeds."""

    model: str
    protocol: str
    change: str
    changed: Scores
    unchanged: Scores
    runs: int
    same_networks: bool
    """It changes how the same trained networks are scored."""


def ablations(runs: list[EvaluatedRun]) -> pd.DataFrame:
    """What each change was worth: runs named FAMILY/CHANGE minus the run named FAMILY, paired by section.

    A change may be another way to score the same trained networks, as is thresholding where cells are found by
    agglomeration; of several models it is also told for all together.

    Columns model, protocol, change, metric, mean, low, high, p_value, runs; `mean` is the change's effect.
    """
    changes = _changes(runs)
    rows = []
    for each in [*changes, *_for_all_models(changes)]:
        about = {"model": each.model, "protocol": each.protocol, "change": each.change, "runs": each.runs}
        for metric in _METRICS:
            difference = vars(paired_difference(each.changed, each.unchanged, metric, same_networks=each.same_networks))
            rows.append(about | {key: difference[key] for key in ("metric", "mean", "low", "high", "p_value")})
    return pd.DataFrame(rows)


def _changes(runs: list[EvaluatedRun]) -> list[_Change]:
    changes = []
    for model, protocol, variation in sorted({(r.model, r.evaluation.protocol, r.variation) for r in runs}):
        family, _, change = variation.partition("/")
        changed, base = (
            {
                (r.evaluation.fold, r.evaluation.seed): r
                for r in runs
                if (r.model, r.evaluation.protocol, r.variation) == (model, protocol, name)
            }
            for name in (variation, family)
        )
        common = sorted(changed.keys() & base.keys())
        if change and common:
            with_it, without = (_pooled([part[key].scores for key in common]) for part in (changed, base))
            same_networks = all(changed[key].run.id == base[key].run.id for key in common)
            changes.append(_Change(model, protocol, change, with_it, without, len(common), same_networks))
        scores = [run.scores for run in base.values()]
        agglomerated = [each for each in scores if set(THRESHOLDED_METRICS) <= set(each.per_section)]
        if agglomerated and not change:
            label = f"{family}: cells by threshold" if family else "cells by threshold"
            pooled = _pooled(agglomerated)
            changes.append(_Change(model, protocol, label, _thresholded(pooled), pooled, len(agglomerated), True))
    return changes


def _for_all_models(changes: list[_Change]) -> list[_Change]:
    """Each way of scoring that was tried on several models, over all their networks."""
    by_change: dict[Any, list[_Change]] = {}
    for each in changes:
        if each.same_networks:
            tested = frozenset(each.unchanged.per_section["section"])
            by_change.setdefault((each.protocol, each.change, tested), []).append(each)
    together = []
    for parts in by_change.values():
        if len(parts) > 1:
            changed = _pooled([_named(part.changed, part.model) for part in parts])
            unchanged = _pooled([_named(part.unchanged, part.model) for part in parts])
            runs = sum(part.runs for part in parts)
            together.append(
                replace(parts[0], model=f"all {len(parts)}", changed=changed, unchanged=unchanged, runs=runs)
            )
    return together


def _named(scores: Scores, model: str) -> Scores:
    """Scores whose seeds are told from those of other models."""
    seeds = model + " " + scores.per_section["seed"].astype(str)
    return replace(scores, per_section=scores.per_section.assign(seed=seeds))


def _thresholded(scores: Scores) -> Scores:
    own = {name.removesuffix("_thresholded"): scores.per_section[name] for name in THRESHOLDED_METRICS}
    return replace(scores, per_section=scores.per_section.assign(**own))


def ablation_text(table: pd.DataFrame) -> str:
    """What `ablations` found, in Markdown."""
    shown = pd.DataFrame({key: table[key] for key in ("model", "protocol", "change", "runs", "metric")})
    shown["difference"] = [f"{r.mean:+.4f} [{r.low:+.4f}, {r.high:+.4f}]" for r in table.itertuples()]
    wide = shown.pivot(index=["model", "protocol", "change", "runs"], columns="metric", values="difference")
    wide = wide.reset_index()[["model", "protocol", "change", "runs", *_METRICS]]
    verdicts: dict[str, list[str]] = {}
    for change, rows in table.groupby("change", sort=False):
        effects = [_effect(row) for row in rows.itertuples()]
        verdict = (
            "Makes something better and something else worse"
            if {-1, 1} <= set(effects)
            else "Makes something worse"
            if -1 in effects
            else "Makes something better and nothing worse"
            if 1 in effects
            else "No effect that these sections can show"
        )
        verdicts.setdefault(verdict, []).append(as_cell(change))
    sentences = [f"{verdict}: {'; '.join(changes)}." for verdict, changes in verdicts.items()]
    return (
        "## What each ingredient is worth\n\nEffect of one change of a recipe: changed minus unchanged, same "
        "sections and seeds, 95 % interval over sections and seeds.\n\n"
        f"{markdown_table(wide)}\n\n{' '.join(sentences)}"
    )


def _effect(row: Any) -> int:
    """1 where a change helps beyond its interval, -1 where it harms, 0 where neither can be said."""
    if row.low <= 0 <= row.high:
        return 0
    return 1 if (row.mean < 0) == (row.metric in LOWER_IS_BETTER) else -1


def _pooled(scores: list[Scores]) -> Scores:
    return replace(scores[0], per_section=pd.concat([part.per_section for part in scores]))
