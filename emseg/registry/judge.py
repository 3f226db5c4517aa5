"""The rule of promotion: each condition with its evidence."""

from __future__ import annotations

from typing import Any

from emseg.evaluation.bootstrap import paired_difference
from emseg.metrics.scoring import LOWER_IS_BETTER
from emseg.registry.compare import Comparison, siblings
from emseg.registry.decision import Condition
from emseg.registry.described import Version
from emseg.settings import PromotionSettings


def judge(
    candidate: Version, compared: Comparison | str | None, every: list[Version], rule: PromotionSettings
) -> list[Condition]:
    """Every condition of the rule for one version, but that it loads.

    Args:
        candidate: the version.
        compared: with the champion; why it cannot be; or None: there is no champion.
        every: version of the task.
        rule: the `promotion` part of params.yaml.
    """
    origin, evaluation = candidate.origin, candidate.evaluation
    seeds = sorted({v.origin.seed for v in siblings(candidate, every)})
    warning = ", which tests on copies of training sections" if evaluation.leaks else ""
    counted = len(compared.sections) if isinstance(compared, Comparison) else evaluation.sections
    conditions = [
        Condition(
            "honest protocol",
            not evaluation.leaks,
            f"protocol {evaluation.protocol}{warning}",
        ),
        Condition(
            "not collapsed",
            not evaluation.collapsed,
            f"it predicts {'the same' if evaluation.collapsed else 'both membranes and cells'}",
        ),
        Condition(
            "sections",
            counted >= rule.minimum_sections,
            f"{counted} tested on, {rule.minimum_sections} needed",
        ),
        Condition(
            "seeds",
            len(seeds) >= rule.minimum_seeds,
            f"{len(seeds)} trained ({', '.join(map(str, seeds))}), {rule.minimum_seeds} needed",
        ),
    ]
    if rule.clean_git:
        commit = str(origin.git_commit)[:10]
        clean = bool(origin.git_commit) and not origin.git_dirty
        conditions.append(
            Condition("clean commit", clean, f"commit {commit}{'' if clean else ', with uncommitted changes'}")
        )
    if compared is None:
        return [*conditions, Condition("better than the champion", True, "there is no champion yet")]
    if isinstance(compared, str):
        return [*conditions, Condition("same test", False, compared)]
    conditions.append(Condition("same test", bool(compared.sections), compared.evidence))
    if not compared.sections:
        return conditions
    return conditions + [_gain(metric, compared, rule) for metric in (rule.metric, *rule.not_worse)]


def _gain(metric: Any, compared: Comparison, rule: PromotionSettings) -> Condition:
    for name, scores in (("the version", compared.candidate), ("the champion", compared.champion)):
        if metric not in scores.per_section:
            return Condition(f"{metric} compared", False, f"{metric} of {name} is not known; evaluate its run again")
    gain = paired_difference(compared.candidate, compared.champion, metric, confidence=rule.confidence)
    sign = -1 if metric in LOWER_IS_BETTER else 1
    low, mean = min(sign * gain.low, sign * gain.high), sign * gain.mean
    own, champions = (scores.per_section[metric].mean() for scores in (compared.candidate, compared.champion))
    evidence = (
        f"{metric} {own:.4f}, champion's {champions:.4f}; "
        f"difference {gain.mean:+.4f} [{gain.low:+.4f}, {gain.high:+.4f}]"
    )
    if metric == rule.metric:
        needed = f"more than {rule.minimum_gain:g} needed with {rule.confidence:.0%} confidence"
        return Condition("better than the champion", low > rule.minimum_gain, f"{evidence}, {needed}")
    allowed = rule.not_worse[metric]
    return Condition(f"{metric} not worse", mean >= -allowed, f"{evidence}, {allowed:g} allowed")
