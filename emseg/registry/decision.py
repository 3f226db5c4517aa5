"""What was decided about a version, by what evidence, and how it is kept where people read."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING

from emseg.registry.described import DECISION_TAG, Version
from emseg.registry.telling import say
from emseg.text import markdown, plain
from emseg.tracking.store import patiently, reason_of

if TYPE_CHECKING:
    from mlflow import MlflowClient


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
        task: whose version it is.
        version: that was judged.
        promoted: whether it is champion now (or would be, in a dry run).
        conditions: of the rule.
        champion_before, champion_after: version numbers; None for no champion.
        reason: why the rule was overruled; None where it was not.
        who, when: user, and UTC time.
        judged_against: number of the link of the line of champions that was champion; 0: there was none.
        sections: numbers of the test sections that counted in the comparison; empty where there was none.
    """

    task: str
    version: int
    promoted: bool
    conditions: tuple[Condition, ...]
    champion_before: int | None
    champion_after: int | None
    reason: str | None
    who: str
    when: str
    judged_against: int = 0
    sections: list[int] = field(default_factory=list)

    @property
    def sentence(self) -> str:
        """What was decided, by whom and when."""
        against = f"version {self.champion_before}" if self.champion_before else "no champion"
        unmet = ", ".join(condition.name for condition in self.conditions if not condition.is_met)
        verdict = "promoted" if self.promoted else "not promoted"
        why = f" by force ({plain(self.reason)})" if self.promoted and self.reason else ""
        not_met = f"; not met: {unmet}" if unmet else ""
        return f"{verdict}{why} on {self.when[:10]} by {plain(self.who)}, judged against {against}{not_met}"

    def as_markdown(self) -> str:
        """The decision with its evidence as a table."""
        table = evidence_table((each.name, each.is_met, each.evidence) for each in self.conditions)
        sections = f"\nSections that counted: {', '.join(map(str, self.sections))}.\n" if self.sections else ""
        return f"Version {self.version} of {markdown(self.task)}: {markdown(self.sentence)}.\n{table}{sections}"


def evidence_table(conditions: Iterable[tuple[str, bool, str]]) -> str:
    """Name, whether it is met, and evidence of conditions, in Markdown; nothing where there are none."""
    rows = [
        f"| {markdown(name)} | {'yes' if met else '**no**'} | {markdown(found)} |" for name, met, found in conditions
    ]
    return "\n| condition | met | evidence |\n|---|---|---|\n" + "\n".join(rows) + "\n" if rows else ""


def keep_decision(client: MlflowClient, version: Version, decision: Decision) -> None:
    """Keep a decision with the version that was judged: a sentence in its tags, the evidence with its run."""
    from mlflow.exceptions import MlflowException

    name = f"decisions/{decision.when.replace(':', '-')}-{decision.task}-version{decision.version}"
    try:
        client.log_text(version.run_id, decision.as_markdown(), f"{name}.md")
        client.log_text(version.run_id, json.dumps(asdict(decision), indent=2) + "\n", f"{name}.json")
        patiently(
            lambda: client.set_model_version_tag(version.task, str(version.number), DECISION_TAG, decision.sentence)
        )
    except (MlflowException, OSError) as error:
        # Whoever may only promote may not write to runs; the line of champions has the evidence too.
        if not decision.promoted:
            say(f"the decision about {version.uri} could not be kept with it ({reason_of(error)})")
