"""How every registered version stands against the champion."""

from __future__ import annotations

import pandas as pd
from pydantic import BaseModel, ConfigDict

from emseg.evaluation.bootstrap import PairedDifference
from emseg.metrics.scoring import LOWER_IS_BETTER, Interval
from emseg.records.transfer import Home, Transferred
from emseg.registry.described import Version
from emseg.registry.promote import are_comparable, difference
from emseg.registry.versions import CHAMPION, Registry
from emseg.reporting.leaderboard import PRIMARY_METRIC
from emseg.reporting.transfer import Candidate
from emseg.settings import ProtocolName

_SHOWN = ("v_rand", "v_info", "pixel_error", "dice")
_CONFIDENCE = 0.95


class Standing(BaseModel):
    """One version among those that were tested on the same."""

    model_config = ConfigDict(frozen=True)

    version: int
    model: str
    seed: int
    aliases: list[str]
    metrics: dict[str, Interval]
    commit: str
    difference: PairedDifference | None
    """To the champion; None of the champion itself, and where there is none to compare with."""


class Group(BaseModel):
    """Versions that were tested on the same sections, best V_rand first."""

    model_config = ConfigDict(frozen=True)

    dataset: str
    protocol: ProtocolName
    fold: int
    data_digest: str
    leaks: bool
    has_champion: bool
    versions: list[Standing]


def standings(every: list[Version]) -> list[Group]:
    """Versions grouped by what they were tested on, the champion's group first."""
    champion = next((version for version in every if CHAMPION in version.aliases), None)
    groups: list[list[Version]] = []
    for version in every:
        own = next((group for group in groups if are_comparable(group[0], version)), None)
        if own is None:
            groups.append([version])
        else:
            own.append(version)
    described = [_group(group, champion, every) for group in groups]
    return sorted(described, key=lambda group: not group.has_champion)


def champions_by_data(registry: Registry) -> list[Version]:
    """The newest champion of each dataset and protocol that there ever was one of, the present champion last."""
    numbered = {version.number: version for version in registry.versions}
    newest: dict[tuple[str, str, str], Version] = {}
    for number in registry.champions:
        scores = numbered[number].evaluation
        key = (scores.dataset, scores.protocol, scores.data_digest)
        newest.pop(key, None)
        newest[key] = numbered[number]
    return list(newest.values())


def as_candidates(champions: list[Version], transfers: dict[str, list[Transferred]]) -> list[Candidate]:
    """Champions for a matrix of transfer.

    Args:
        champions: versions.
        transfers: scores on other datasets by the id of the record, as `transfers_by_record` gives them.
    """
    found = []
    for version in champions:
        scores, origin = version.evaluation, version.origin
        own = scores.made_from
        transferred = transfers.get(own.id, []) if own else []
        # Of a record that was calibrated again, scores are of another version.
        transferred = [each for each in transferred if each.transfer.calibration == scores.calibration]
        name = " ".join([f"{origin.model} {version.number}", *(f"({alias})" for alias in version.aliases)])
        home = Home(dataset=scores.dataset, protocol=scores.protocol, data_digest=scores.data_digest)
        found.append(Candidate(name, version.uri, home, version.scores.per_section, transferred))
    return found


def as_tables(groups: list[Group]) -> list[tuple[str, pd.DataFrame]]:
    """Title and table of each group, as text."""
    tables = []
    for group in groups:
        leaks = ", LEAKS" if group.leaks else ""
        apart = "" if group.has_champion else "; not ranked with the champion"
        tested_on = f"{group.dataset}, protocol {group.protocol}{leaks}, fold {group.fold}"
        rows = [
            {
                "version": str(each.version),
                "model": " ".join([each.model, *(f"({alias})" for alias in each.aliases)]),
                "seed": str(each.seed),
                **{name: str(interval) for name, interval in each.metrics.items()},
                "V_rand to champion": _signed(each.difference) if each.difference else "",
                "commit": each.commit,
            }
            for each in group.versions
        ]
        tables.append((f"{tested_on}, data {group.data_digest[:8]}{apart}", pd.DataFrame(rows)))
    return tables


def _signed(gap: PairedDifference) -> str:
    return f"{gap.mean:+.4f} [{gap.low:+.4f}, {gap.high:+.4f}]"


def _group(group: list[Version], champion: Version | None, every: list[Version]) -> Group:
    first = group[0].evaluation
    here = champion if champion is not None and are_comparable(group[0], champion) else None
    sign = 1 if PRIMARY_METRIC in LOWER_IS_BETTER else -1
    return Group(
        dataset=first.dataset,
        protocol=first.protocol,
        fold=first.fold,
        data_digest=first.data_digest,
        leaks=first.leaks,
        has_champion=here is not None,
        versions=[
            Standing(
                version=version.number,
                model=version.origin.model,
                seed=version.origin.seed,
                aliases=list(version.aliases),
                metrics={name: version.evaluation.metrics[name] for name in _SHOWN},
                commit=version.origin.commit,
                difference=difference(version, here, every, PRIMARY_METRIC, _CONFIDENCE)
                if here is not None and here.number != version.number
                else None,
            )
            for version in sorted(group, key=lambda v: sign * v.evaluation.metrics[PRIMARY_METRIC].mean)
        ],
    )
