"""Which models differ: paired tests on the same sections, corrected for how many are compared."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import stats

from emseg.metrics.scoring import LOWER_IS_BETTER, Scores

SIGNIFICANCE = 0.05
_RESAMPLES = 5000


@dataclass(frozen=True)
class PairedDifference:
    """Difference of a metric between two models on the same sections.

    Attributes:
        metric: its name.
        mean: first minus second.
        low, high: bootstrap interval over sections and seeds, 95 % unless asked otherwise.
        p_value: two-sided, from the same bootstrap; after `holm`, corrected.
        wilcoxon_p: of the Wilcoxon signed-rank test over sections, a second opinion; 1 where all are equal.
    """

    metric: str
    mean: float
    low: float
    high: float
    p_value: float
    wilcoxon_p: float


def paired_difference(
    first: Scores, second: Scores, metric: str, seed: int = 0, confidence: float = 0.95, same_networks: bool = False
) -> PairedDifference:
    """Compare two models on the sections that both were tested on.

    `per_section` tables with a column `seed` have a row per section and seed; sections are paired, seeds are
    resampled independently for each model, since they are different draws.

    Args:
        first, second: scores of the two.
        metric: a column of both.
        seed: of the resampling.
        confidence: of the interval.
        same_networks: both are scores of the same trained networks, read in two ways. Seeds are then resampled in
            pairs too. For networks trained apart that would raise more false alarms.

    Raises:
        ValueError: scores under different protocols or on different data, or of different sections or seeds.
    """
    require_comparable([first, second])
    a, b = (_by_seed(scores.per_section, metric) for scores in (first, second))
    if list(a.columns) != list(b.columns):
        raise ValueError("the two models were tested on different sections; evaluate both on the same ones")
    if same_networks and list(a.index) != list(b.index):
        raise ValueError("the same networks have the same seeds; these have different ones")
    random = np.random.default_rng(seed)
    sections = random.integers(0, a.shape[1], (_RESAMPLES, a.shape[1]))
    differences = np.empty(_RESAMPLES)
    x, y = a.to_numpy(), b.to_numpy()
    for index in range(_RESAMPLES):
        seeds_x = random.integers(0, len(x), len(x))
        seeds_y = seeds_x if same_networks else random.integers(0, len(y), len(y))
        differences[index] = (x[seeds_x].mean(axis=0) - y[seeds_y].mean(axis=0))[sections[index]].mean()
    per_section = x.mean(axis=0) - y.mean(axis=0)
    low, high = np.quantile(differences, [(1 - confidence) / 2, (1 + confidence) / 2])
    # One added to each count: no p-value of 0 from a finite number of resamples.
    tail = min((differences <= 0).sum(), (differences >= 0).sum())
    p_value = min(1.0, 2 * (tail + 1) / (_RESAMPLES + 1))
    wilcoxon = 1.0 if not per_section.any() else float(stats.wilcoxon(per_section).pvalue)
    return PairedDifference(metric, float(per_section.mean()), float(low), float(high), p_value, wilcoxon)


def holm(p_values: list[float]) -> list[float]:
    """P-values corrected for their number (Holm 1979), in the order given.

    >>> holm([0.01, 0.04, 0.03])
    [0.03, 0.06, 0.06]
    """
    corrected, running = [0.0] * len(p_values), 0.0
    for rank, index in enumerate(np.argsort(p_values, kind="stable")):
        running = max(running, min(1.0, (len(p_values) - rank) * p_values[index]))
        corrected[index] = running
    return corrected


def group_models(scores: dict[str, Scores], metric: str) -> dict[str, int]:
    """Group models that cannot be told apart from the best of their group; group 1 holds the best model.

    Each round compares the best remaining model with every other remaining one, corrects the p-values with
    `holm`, and takes those at or above 0.05 into its group.
    """
    remaining = rank(scores, metric)
    groups: dict[str, int] = {}
    group = 0
    while remaining:
        group += 1
        best, *others = remaining
        p_values = holm([paired_difference(scores[other], scores[best], metric).p_value for other in others])
        together = [best, *(other for other, p in zip(others, p_values, strict=True) if p >= SIGNIFICANCE)]
        groups |= dict.fromkeys(together, group)
        remaining = [name for name in remaining if name not in together]
    return groups


def rank(scores: dict[str, Scores], metric: str) -> list[str]:
    """Names of models, best mean first.

    Raises:
        ValueError: scores under different protocols or on different data.
    """
    require_comparable(list(scores.values()))
    sign = 1 if metric in LOWER_IS_BETTER else -1
    return sorted(scores, key=lambda name: sign * _by_seed(scores[name].per_section, metric).to_numpy().mean())


def require_comparable(scores: list[Scores]) -> None:
    """Refuse scores that cannot be ranked together.

    Raises:
        ValueError: they differ in protocol or data; says which.
    """
    for name, values in (
        ("protocol", {score.protocol for score in scores}),
        ("data digest", {score.data_digest for score in scores}),
    ):
        if len(values) > 1:
            raise ValueError(f"scores differ in {name} ({', '.join(sorted(values))}) and cannot be ranked together")


def _by_seed(table: pd.DataFrame, metric: str) -> pd.DataFrame:
    """Values as (seeds, sections)."""
    seeds = table if "seed" in table else table.assign(seed=0)
    return seeds.pivot_table(index="seed", columns="section", values=metric)
