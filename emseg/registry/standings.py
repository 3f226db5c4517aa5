"""How every registered version stands against the champion."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from pydantic import BaseModel, ConfigDict

from emseg.errors import InputError
from emseg.evaluation.bootstrap import PairedDifference, paired_difference
from emseg.metrics.scoring import LOWER_IS_BETTER, Interval
from emseg.records.transfer import Home, Transferred
from emseg.registry.compare import are_comparable, compare
from emseg.registry.described import SHOWN, Version
from emseg.registry.scores import scores_of_version
from emseg.registry.telling import say
from emseg.registry.versions import Registry
from emseg.reporting.transfer import Candidate
from emseg.settings import PromotionMetric, ProtocolName

if TYPE_CHECKING:
    from mlflow import MlflowClient

_METRIC: PromotionMetric = "v_rand"
_CONFIDENCE = 0.95
_PAIRED = 5
"""Versions, best first, whose difference to the champion gets its interval: scores per section are read for it."""


class Standing(BaseModel):
    """One version among those that were tested on the same."""

    model_config = ConfigDict(frozen=True)

    version: int
    model: str
    seed: int
    aliases: list[str]
    metrics: dict[str, Interval]
    commit: str
    gain: float | None
    """Of V_rand over the champion's, each a mean over the seeds of a recipe; None of the champion itself, and where
    there is none to compare with."""
    difference: PairedDifference | None
    """The same with its interval, of the best versions alone."""


class Group(BaseModel):
    """Versions that were tested on the same sections, best V_rand first."""

    model_config = ConfigDict(frozen=True)

    task: str
    dataset: str
    protocol: ProtocolName
    fold: int
    data_digest: str
    leaks: bool
    has_champion: bool
    versions: list[Standing]


def standings(client: MlflowClient, registry: Registry) -> list[Group]:
    """The versions of a task, grouped by what they were tested on, the champion's group first."""
    groups: dict[str, list[Version]] = {}
    for version in registry.versions:
        groups.setdefault(version.evaluation.test, []).append(version)
    described = [_group(client, group, registry) for group in groups.values()]
    return sorted(described, key=lambda group: not group.has_champion)


def champions_by_data(registry: Registry) -> list[Version]:
    """The newest champion of each dataset and protocol that there ever was one of, the present champion last."""
    numbered = {version.number: version for version in registry.versions}
    newest: dict[tuple[str, str, str], Version] = {}
    standing = [numbered.get(number) for number in registry.champions[:-1]]
    for version in (*standing, registry.champion):
        # None: what others deleted or spoilt.
        if version is not None:
            scores = version.evaluation
            key = (scores.dataset, scores.protocol, scores.data_digest)
            newest.pop(key, None)
            newest[key] = version
    return list(newest.values())


def as_candidates(
    client: MlflowClient, champions: list[Version], transfers: dict[str, list[Transferred]]
) -> list[Candidate]:
    """Champions for a matrix of transfer; those whose scores per section are gone are told of and passed by.

    Args:
        client: of the store.
        champions: versions.
        transfers: scores on other datasets by the id of the record, as `transfers_by_record` gives them.
    """
    found = []
    for version in champions:
        scores, origin = version.evaluation, version.origin
        try:
            home_scores = scores_of_version(client, version)
        except InputError as error:
            say(str(error))
            continue
        transferred = transfers.get(version.record_id, [])
        # Of a record that was calibrated again, scores are of another version.
        transferred = [each for each in transferred if each.transfer.calibration == scores.calibration]
        name = " ".join([f"{origin.model} {version.number}", *(f"({alias})" for alias in version.aliases)])
        home = Home(dataset=scores.dataset, protocol=scores.protocol, data_digest=scores.data_digest)
        found.append(Candidate(name, version.uri, home, home_scores.per_section, transferred))
    return found


def as_tables(groups: list[Group]) -> list[tuple[str, pd.DataFrame]]:
    """Title and table of each group, as text."""
    tables = []
    crowned = {group.task for group in groups if group.has_champion}
    for group in groups:
        leaks = ", LEAKS" if group.leaks else ""
        apart = "; not ranked with the champion" if group.task in crowned and not group.has_champion else ""
        task = f"{group.task}: " if group.task != group.dataset else ""
        tested_on = f"{task}{group.dataset}, protocol {group.protocol}{leaks}, fold {group.fold}"
        rows = [
            {
                "version": str(each.version),
                "model": " ".join([each.model, *(f"({alias})" for alias in each.aliases)]),
                "seed": str(each.seed),
                **{name: str(interval) for name, interval in each.metrics.items()},
                "V_rand to champion": _signed(each),
                "commit": each.commit,
            }
            for each in group.versions
        ]
        tables.append((f"{tested_on}, data {group.data_digest[:8]}{apart}", pd.DataFrame(rows)))
    return tables


def _signed(standing: Standing) -> str:
    if (gap := standing.difference) is not None:
        return f"{gap.mean:+.4f} [{gap.low:+.4f}, {gap.high:+.4f}]"
    return "" if standing.gain is None else f"{standing.gain:+.4f}"


def _group(client: MlflowClient, group: list[Version], registry: Registry) -> Group:
    first = group[0].evaluation
    champion = registry.champion
    here = champion if champion is not None and are_comparable(group[0], champion) else None
    sign = 1 if _METRIC in LOWER_IS_BETTER else -1
    ranked = sorted(group, key=lambda v: sign * v.evaluation.metrics[_METRIC].mean)
    rivals = [version for version in ranked if here is not None and version.number != here.number]
    means = {recipe: _mean(group, recipe) for recipe in {version.origin.recipe for version in group}}
    standing = []
    for version in ranked:
        gain = difference = None
        if here is not None and version in rivals:
            gain = means[version.origin.recipe] - means[here.origin.recipe]
            if version in rivals[:_PAIRED]:
                difference = _difference(client, version, here, registry)
        standing.append(
            Standing(
                version=version.number,
                model=version.origin.model,
                seed=version.origin.seed,
                aliases=list(version.aliases),
                metrics={name: version.evaluation.metrics[name] for name in SHOWN},
                commit=version.origin.commit,
                gain=gain,
                difference=difference,
            )
        )
    return Group(
        task=registry.task,
        dataset=first.dataset,
        protocol=first.protocol,
        fold=first.fold,
        data_digest=first.data_digest,
        leaks=first.leaks,
        has_champion=here is not None,
        versions=standing,
    )


def _mean(group: list[Version], recipe: str) -> float:
    own = [v.evaluation.metrics[_METRIC].mean for v in group if v.origin.recipe == recipe]
    return float(np.mean(own))


def _difference(
    client: MlflowClient, version: Version, champion: Version, registry: Registry
) -> PairedDifference | None:
    try:
        compared = compare(client, version, champion, registry.versions)
    except InputError as error:
        say(str(error))
        return None
    return paired_difference(compared.candidate, compared.champion, _METRIC, confidence=_CONFIDENCE)
