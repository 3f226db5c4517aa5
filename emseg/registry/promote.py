"""Promotion is a rule: each condition with its evidence, then the aliases move, or do not."""

from __future__ import annotations

import getpass
import json
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from emseg.errors import InputError
from emseg.evaluation.bootstrap import PairedDifference, paired_difference
from emseg.metrics.scoring import LOWER_IS_BETTER, Scores
from emseg.records.evaluation import BASELINES_FILE
from emseg.records.record import now
from emseg.registry.champions import registry_lock, set_champions
from emseg.registry.described import MODEL_NAME, Version
from emseg.registry.versions import (
    DECISION_TAG,
    find_version,
    load_version,
    read_registry,
    say,
    say_nothing,
)
from emseg.settings import PromotionSettings
from emseg.text import plain
from emseg.tracking.store import asking

if TYPE_CHECKING:
    from mlflow import MlflowClient

_TEST = ("protocol", "data_digest", "fold")
"""What two versions must share to be compared."""


@dataclass(frozen=True)
class Condition:
    """One condition of the rule, and what was found."""

    name: str
    is_met: bool
    evidence: str
    can_be_forced: bool = True


@dataclass(frozen=True)
class Decision:
    """What `promote` or `rollback` decided.

    Attributes:
        version: that was judged.
        promoted: whether it is champion now (or would be, in a dry run).
        conditions: of the rule.
        champion_before, champion_after: version numbers; None for no champion.
        reason: why the rule was overruled; None where it was not.
        who, when: user, and UTC time.
    """

    version: int
    promoted: bool
    conditions: tuple[Condition, ...]
    champion_before: int | None
    champion_after: int | None
    reason: str | None
    who: str
    when: str


def promote(
    client: MlflowClient,
    rule: PromotionSettings,
    reference: str | None = None,
    dry_run: bool = False,
    force: str | None = None,
) -> Decision:
    """Judge a version by the rule, and make it champion if every condition is met.

    Args:
        client: of the store.
        rule: the `promotion` part of params.yaml.
        reference: number, alias or URI of the version; None: the best one that could replace the champion.
        dry_run: judge only.
        force: a reason to promote against the rule; it is recorded. Damaged files cannot be forced.

    Raises:
        InputError: there is no such version, or nothing to promote.
        RunError: another process holds the registry.
    """
    with asking("promote a version"), registry_lock(client):
        found = read_registry(client)
        every, history = found.versions, found.champions
        champion = next((v for v in every if history and v.number == history[-1]), None)
        candidate = find_version(client, reference, say_nothing) if reference else best_candidate(every, champion, rule)
        if champion is not None and candidate.number == champion.number:
            raise InputError(f"version {candidate.number} is the champion already")
        if champion is None and (warning := _below_baseline(client, candidate, rule.metric)):
            say(warning)
        conditions = [_loads(client, candidate), *judge(candidate, champion, every, rule)]
        unmet = [condition for condition in conditions if not condition.is_met]
        promoted = not unmet or (force is not None and all(condition.can_be_forced for condition in unmet))
        decision = Decision(
            candidate.number,
            promoted,
            tuple(conditions),
            history[-1] if history else None,
            candidate.number if promoted else (history[-1] if history else None),
            force if unmet and promoted else None,
            _who(),
            now(),
        )
        if not dry_run:
            # First the evidence, then the move: a champion without its decision cannot be.
            client.set_model_version_tag(
                MODEL_NAME, str(candidate.number), DECISION_TAG, json.dumps(asdict(decision), indent=1)
            )
            set_champions(client, [*history, candidate.number] if promoted else history, candidate.number)
    return decision


def rollback(client: MlflowClient) -> Decision:
    """Make the champion before this one champion again; as often as there is history.

    Raises:
        InputError: there is no champion before this one.
    """
    with asking("roll back a promotion"), registry_lock(client):
        history = read_registry(client).champions
        if len(history) < 2:
            raise InputError(
                "there is no champion to go back to; the registry has had " + (_numbers(history) or "none")
            )
        dropped, back = history[-1], history[-2]
        decision = Decision(dropped, False, (), dropped, back, f"rolled back to version {back}", _who(), now())
        client.set_model_version_tag(MODEL_NAME, str(dropped), DECISION_TAG, json.dumps(asdict(decision), indent=1))
        set_champions(client, history[:-1])
    return decision


def best_candidate(every: list[Version], champion: Version | None, rule: PromotionSettings) -> Version:
    """The version with the best metric among those that compare with the champion.

    Raises:
        InputError: there is none.
    """
    measured = [v for v in every if rule.metric in v.evaluation.metrics]
    others = [v for v in measured if champion is None or (v.number != champion.number and are_comparable(v, champion))]
    if not others:
        raise InputError(
            "nothing to promote: no other version was scored on the champion's data and protocol"
            if champion
            else "nothing to promote: no version is registered; run `emseg publish`"
        )
    if not all(are_comparable(version, others[0]) for version in others):
        raise InputError(
            "there is no champion yet, and versions were scored on different data, protocols or folds, which do not "
            "rank together; name one of `emseg registry`"
        )
    sign = -1 if rule.metric in LOWER_IS_BETTER else 1
    return max(others, key=lambda version: (sign * version.evaluation.metrics[rule.metric].mean, -version.number))


def are_comparable(one: Version, other: Version) -> bool:
    """Whether two versions were scored on the same sections of the same data, under one protocol and fold."""
    return all(getattr(one.evaluation, key) == getattr(other.evaluation, key) for key in _TEST) and _sections(
        one
    ) == _sections(other)


def siblings(version: Version, every: list[Version]) -> list[Version]:
    """Versions of the same recipe, whatever their seed, scored on the same sections; the version is among them."""
    return [v for v in every if v.origin.recipe == version.origin.recipe and are_comparable(v, version)]


def difference(one: Version, other: Version, every: list[Version], metric: str, confidence: float) -> PairedDifference:
    """Paired difference of a metric between two recipes, over their sections and all their seeds."""
    first, second = (_pooled(siblings(version, every)) for version in (one, other))
    return paired_difference(first, second, metric, confidence=confidence)


def judge(
    candidate: Version, champion: Version | None, every: list[Version], rule: PromotionSettings
) -> list[Condition]:
    """Every condition of the rule for one version, but that it loads."""
    origin, evaluation = candidate.origin, candidate.evaluation
    seeds = sorted({v.origin.seed for v in siblings(candidate, every)})
    warning = ", which tests on copies of training sections" if evaluation.leaks else ""
    conditions = [
        Condition(
            "honest protocol",
            not evaluation.leaks,
            f"protocol {evaluation.protocol}{warning}",
        ),
        Condition("not collapsed", not evaluation.collapsed, f"collapsed: {str(evaluation.collapsed).lower()}"),
        Condition(
            "sections",
            evaluation.sections >= rule.minimum_sections,
            f"{evaluation.sections} tested on, {rule.minimum_sections} needed",
        ),
        Condition(
            "seeds",
            len(seeds) >= rule.minimum_seeds,
            f"{len(seeds)} trained ({_numbers(seeds)}), {rule.minimum_seeds} needed",
        ),
    ]
    if rule.clean_git:
        commit = str(origin.git_commit)[:10]
        clean = bool(origin.git_commit) and not origin.git_dirty
        conditions.append(
            Condition("clean commit", clean, f"commit {commit}{'' if clean else ', with uncommitted changes'}")
        )
    if champion is None:
        return [*conditions, Condition("better than the champion", True, "there is no champion yet")]
    comparable = are_comparable(candidate, champion)
    conditions.append(
        Condition(
            "same test",
            comparable,
            ", ".join(
                f"{key} {getattr(evaluation, key)}, champion's {getattr(champion.evaluation, key)}" for key in _TEST
            )
            + ("" if _sections(candidate) == _sections(champion) else ", other sections"),
        )
    )
    if not comparable:
        return conditions
    for metric in (rule.metric, *rule.not_worse):
        if lacking := [version for version in (candidate, champion) if metric not in version.evaluation.metrics]:
            evidence = f"{metric} of version {lacking[0].number} is not known; evaluate its run again"
            conditions.append(Condition(f"{metric} compared", False, evidence))
            continue
        gain = difference(candidate, champion, every, metric, rule.confidence)
        sign = -1 if metric in LOWER_IS_BETTER else 1
        low, mean = min(sign * gain.low, sign * gain.high), sign * gain.mean
        own, champions = (version.evaluation.metrics[metric].mean for version in (candidate, champion))
        evidence = (
            f"{metric} {own:.4f}, champion's {champions:.4f}; "
            f"difference {gain.mean:+.4f} [{gain.low:+.4f}, {gain.high:+.4f}]"
        )
        if metric == rule.metric:
            conditions.append(
                Condition(
                    "better than the champion",
                    low > rule.minimum_gain,
                    f"{evidence}, more than {rule.minimum_gain:g} needed with {rule.confidence:.0%} confidence",
                )
            )
        else:
            allowed = rule.not_worse[metric]
            conditions.append(Condition(f"{metric} not worse", mean >= -allowed, f"{evidence}, {allowed:g} allowed"))
    return conditions


def _loads(client: MlflowClient, candidate: Version) -> Condition:
    with tempfile.TemporaryDirectory() as folder:
        try:
            load_version(client, candidate, Path(folder))
        except InputError as error:
            return Condition("loads safely", False, str(error), can_be_forced=False)
    return Condition("loads safely", True, "files as registered, test output reproduced", can_be_forced=False)


def _test_of(version: Version) -> list[Any]:
    return [getattr(version.evaluation, key) for key in _TEST]


def _below_baseline(client: MlflowClient, candidate: Version, metric: str) -> str | None:
    """What to tell who makes a first champion of a version that is worse than what needs no network."""
    from mlflow.exceptions import MlflowException

    sign, mean = -1 if metric in LOWER_IS_BETTER else 1, candidate.evaluation.metrics[metric].mean
    with tempfile.TemporaryDirectory() as folder:
        try:
            baselines = pd.read_csv(client.download_artifacts(candidate.run_id, BASELINES_FILE, folder))
            means = baselines.groupby("model")[metric].mean()
        except (MlflowException, OSError, ValueError, KeyError):
            return None  # the files of the run were deleted, and nothing else needs them
    worse_than = [f"{plain(name)} has {value:.4f}" for name, value in means.items() if sign * (value - mean) > 0]
    if not worse_than:
        return None
    return (
        f"version {candidate.number} is worse than no network at all on the same sections: its {metric} is "
        f"{mean:.4f}, {', '.join(worse_than)}"
    )


def _sections(version: Version) -> set[float]:
    return set(version.table["section"])


def _pooled(group: list[Version]) -> Scores:
    first = group[0].scores
    return Scores(first.protocol, first.data_digest, pd.concat([version.scores.per_section for version in group]))


def _numbers(values: list[Any]) -> str:
    return ", ".join(map(str, values))


def _who() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):
        return "unknown"
