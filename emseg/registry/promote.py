"""Promotion and rollback: a version is judged by the rule, and a link is added to the line of champions, or not."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from emseg.errors import InputError
from emseg.metrics.scoring import LOWER_IS_BETTER
from emseg.records.evaluation import BASELINES_FILE
from emseg.records.record import now
from emseg.registry.champions import REASON_TAG, RESTORES_TAG, Link, add_link, settle, who
from emseg.registry.compare import Comparison, NotComparableError, are_comparable, compare
from emseg.registry.decision import Condition, Decision, keep_decision
from emseg.registry.described import DIGEST_TAG, Version
from emseg.registry.judge import judge
from emseg.registry.telling import say
from emseg.registry.versions import Registry, load_version, read_registry, split_reference
from emseg.settings import PromotionMetric, PromotionSettings
from emseg.text import plain
from emseg.tracking.publish import WEIGHTS_TAG
from emseg.tracking.store import asking

if TYPE_CHECKING:
    from mlflow import MlflowClient

_LONGEST_REASON = 500


def promote(
    client: MlflowClient,
    rule: PromotionSettings,
    reference: str | None = None,
    dry_run: bool = False,
    force: str | None = None,
    task: str | None = None,
) -> Decision:
    """Judge a version by the rule, and make it champion if every condition is met.

    Where another version became champion meanwhile, it is judged again, against that one.

    Args:
        client: of the store.
        rule: the `promotion` part of params.yaml.
        reference: number, alias or URI of the version; None: the best one that could replace the champion.
        dry_run: judge only.
        force: a reason to promote against the rule; it is recorded. Damaged files cannot be forced.
        task: whose version it is; None: the reference says it, or there is only one.

    Raises:
        InputError: there is no such version, or nothing to promote.
        RunError: the store refuses.
    """
    loaded: dict[str, Condition] = {}
    tell = cache(say)
    with asking("promote a version"):
        wanted = None
        if reference:
            task, wanted = split_reference(reference, task)
        while True:
            registry = read_registry(client, task, tell)
            if wanted is not None:
                candidate = registry.find(wanted)
            else:
                candidate = best_candidate(registry.versions, registry.champion, rule)
            digest = candidate.tags[DIGEST_TAG]
            if digest not in loaded:
                loaded[digest] = _loads(client, candidate)
            decision = _judge(client, candidate, registry, rule, force, loaded[digest])
            if dry_run:
                return decision
            if decision.promoted:
                verdict = "promoted by force" if decision.reason else "promoted"
                tags = {REASON_TAG: plain(decision.reason)[:_LONGEST_REASON]} if decision.reason else {}
                if not add_link(client, candidate, registry.line, verdict, decision.as_markdown(), tags):
                    continue
            keep_decision(client, candidate, decision)
            settle(client, registry.task, candidate.number)
            return decision


def rollback(client: MlflowClient, task: str | None = None) -> Decision:
    """Make the champion before this one champion again; as often as there is history.

    Raises:
        InputError: there is no champion before this one.
        RunError: the store refuses.
    """
    tell = cache(say)
    with asking("roll back a promotion"):
        while True:
            registry = read_registry(client, task, tell)
            standing = registry.line.standing
            if len(standing) < 2:
                settle(client, registry.task)
                had = ", ".join(map(str, registry.champions)) or "none"
                raise InputError(f"there is no champion to go back to; {registry.task} has had {had}")
            dropped, back = standing[-1], standing[-2]
            decision = Decision(
                registry.task,
                dropped.version,
                False,
                (),
                dropped.version,
                back.version,
                f"rolled back to version {back.version}",
                who(),
                now(),
                registry.line.last,
            )
            described = (
                f"Version {back.version} of {registry.task} is champion again: rolled back from version "
                f"{dropped.version} on {decision.when[:10]} by {plain(decision.who)}.\n"
            )
            tags = {RESTORES_TAG: str(back.place)}
            if add_link(client, _restored(registry, back), registry.line, "rolled back", described, tags):
                settle(client, registry.task)
                return decision


def best_candidate(every: list[Version], champion: Version | None, rule: PromotionSettings) -> Version:
    """The version with the best metric of those that may replace the champion.

    Where the champion's dataset has moved on, these are versions of the newest data; else those that were tested as the
    champion was; else all of its dataset.

    Raises:
        InputError: there is none, or those that there are do not rank together.
    """
    measured = [v for v in every if rule.metric in v.evaluation.metrics]
    others = [v for v in measured if champion is None or not _is_same(v, champion)]
    if champion is not None:
        others = _rivals([v for v in others if v.evaluation.dataset == champion.evaluation.dataset], champion)
    if not others:
        raise InputError(
            "nothing to promote: no other version was scored on the champion's dataset"
            if champion
            else "nothing to promote: no version is registered; run `emseg publish`"
        )
    if not all(are_comparable(version, others[0]) for version in others):
        there = "no other version was tested as the champion was" if champion else "there is no champion yet"
        raise InputError(
            f"{there}, and versions were scored on different data, protocols or folds, which do not "
            "rank together; name one of `emseg registry`"
        )
    sign = -1 if rule.metric in LOWER_IS_BETTER else 1
    return max(others, key=lambda version: (sign * version.evaluation.metrics[rule.metric].mean, -version.number))


def _rivals(of_dataset: list[Version], champion: Version) -> list[Version]:
    """Of the other versions of the champion's dataset those that it is judged against."""
    own = champion.evaluation
    newest = max(of_dataset, key=lambda version: version.number, default=champion)
    if newest.number < champion.number or newest.evaluation.data_digest == own.data_digest:
        return [v for v in of_dataset if are_comparable(v, champion)] or of_dataset
    of_newest = [v for v in of_dataset if v.evaluation.data_digest == newest.evaluation.data_digest]
    alike = [v for v in of_newest if (v.evaluation.protocol, v.evaluation.fold) == (own.protocol, own.fold)]
    return alike or of_newest


def _judge(
    client: MlflowClient,
    candidate: Version,
    registry: Registry,
    rule: PromotionSettings,
    force: str | None,
    loads: Condition,
) -> Decision:
    champion = registry.champion
    compared: Comparison | str | None = None
    if champion is None:
        if warning := _below_baseline(client, candidate, rule.metric):
            say(warning)
    elif _is_same(candidate, champion):
        raise InputError(f"version {candidate.number} is the champion already")
    else:
        try:
            compared = compare(client, candidate, champion, registry.versions)
        except NotComparableError as error:
            compared = str(error)
    conditions = [loads, *judge(candidate, compared, registry.versions, rule)]
    unmet = [condition for condition in conditions if not condition.is_met]
    promoted = not unmet or (force is not None and all(condition.can_be_forced for condition in unmet))
    before = champion.number if champion else None
    return Decision(
        registry.task,
        candidate.number,
        promoted,
        tuple(conditions),
        before,
        candidate.number if promoted else before,
        force if unmet and promoted else None,
        who(),
        now(),
        registry.line.last,
        compared.sections if isinstance(compared, Comparison) else [],
    )


def _is_same(version: Version, champion: Version) -> bool:
    """Whether a version is what the champion is, to the byte."""
    return version.number == champion.number and version.tags[DIGEST_TAG] == champion.tags[DIGEST_TAG]


def _restored(registry: Registry, link: Link) -> Version:
    """What a rollback goes back to: the version of a link, or what was registered in its place since."""
    numbered = {version.number: version for version in registry.versions}
    try:
        copied = registry.line.version_of(link)
    except ValueError as error:
        raise InputError(f"version {link.version} of {registry.task} cannot be restored: {error}") from None
    same = [v for v in numbered.values() if v.record_id == copied.record_id]
    same = [v for v in same if v.tags.get(WEIGHTS_TAG) == copied.tags.get(WEIGHTS_TAG) and not v.link]
    return same[0] if same else replace(copied, aliases=())


def _loads(client: MlflowClient, candidate: Version) -> Condition:
    with tempfile.TemporaryDirectory() as folder:
        try:
            load_version(client, candidate, Path(folder))
        except InputError as error:
            return Condition("loads safely", False, str(error), can_be_forced=False)
    return Condition("loads safely", True, "files as registered, test output reproduced", can_be_forced=False)


def _below_baseline(client: MlflowClient, candidate: Version, metric: PromotionMetric) -> str | None:
    """What to tell who makes a first champion of a version that is worse than what needs no network."""
    from mlflow.exceptions import MlflowException

    if (own := candidate.evaluation.metrics.get(metric)) is None:
        return None
    sign, mean = -1 if metric in LOWER_IS_BETTER else 1, own.mean
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
