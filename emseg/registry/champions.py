"""Who is champion: the last valid link of a task's line of champions.

A link is a version of the registered model TASK-champion. One write creates it, with the number of the link that its
version was judged against. It counts if that one is the last valid link before it; of two promotions at once, which
judged against the same champion, the second does not count, and its maker judges again. So there is no lock, nothing
is torn, and a promotion that is killed is either there or not.

Someone may delete a link on MLflow's pages. One that others were judged against did count, and keeps its place in the
line: what was void beside it stays void.
"""

from __future__ import annotations

import getpass
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from emseg.errors import RunError
from emseg.records.record import now
from emseg.registry.described import SHOWN, Version, read_version
from emseg.registry.tasks import COPIES_TAG, line_of, make_line, registered_model, versions_in
from emseg.registry.telling import Tell, say_nothing
from emseg.text import markdown
from emseg.tracking.store import patiently

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

CHAMPION, PREVIOUS, CHALLENGER = "champion", "previous", "challenger"
AGAINST_TAG, RESTORES_TAG = "champion.judged_against", "champion.restores"
VERDICT_TAG, REASON_TAG, WHO_TAG, WHEN_TAG = (f"champion.{part}" for part in ("decision", "reason", "who", "when"))
_LONGEST_DESCRIPTION = 4900
"""Characters that every store of MLflow's keeps."""


@dataclass(frozen=True)
class Link:
    """One version of a line of champions.

    Attributes:
        number: of the link.
        version: number of the task's version that it copies.
        judged_against: number of the link that was champion when it was judged; 0: there was none.
        restores: the place in the line that a rollback goes back to, which is the number of the link that first held
            it; 0: it is a new champion, with a place of its own.
    """

    number: int
    version: int
    judged_against: int
    restores: int = 0

    @property
    def place(self) -> int:
        """Its place in the line: what stands before it is what a rollback goes back to."""
        return self.restores or self.number


def valid_links(links: Iterable[Link]) -> list[Link]:
    """Links that count, in order; `links` come in any."""
    there = {link.number: link for link in links}
    # Only a link that counted was ever judged against.
    gone = {link.judged_against for link in there.values()} - there.keys() - {0}
    valid: list[Link] = []
    last = 0
    for number in sorted(there.keys() | gone):
        if number in gone:
            last = number
        elif there[number].judged_against == last:
            valid.append(there[number])
            last = number
    return valid


def standing_links(valid: Iterable[Link]) -> list[Link]:
    """Of valid links those that rollbacks have left, in order of their places: the champion is the last one."""
    standing: list[Link] = []
    for link in valid:
        standing = [*(before for before in standing if before.place < link.place), link]
    return standing


@dataclass(frozen=True)
class Line:
    """The line of champions of a task, at one moment.

    Attributes:
        task: whose champions they are.
        valid: links that count, in order.
        standing: of these what rollbacks have left; the last one is champion.
        found: links by number, as MLflow has them.
    """

    task: str
    valid: list[Link]
    standing: list[Link]
    found: dict[int, ModelVersion]

    @property
    def last(self) -> int:
        """The number of the last valid link, which the next one is judged against; 0: there is none."""
        return self.valid[-1].number if self.valid else 0

    @property
    def champions(self) -> list[int]:
        """Numbers of the task's versions that were champion and were not rolled back, in order; the last one is."""
        return [link.version for link in self.standing]

    def champion(self, tell: Tell) -> Version | None:
        """The champion, as its link has it; None: there is none."""
        for link in reversed(self.standing):
            try:
                return self.version_of(link)
            except ValueError as error:
                tell(f"version {link.number} of {line_of(self.task)} is passed by: {error}")
        return None

    def version_of(self, link: Link) -> Version:
        """The version that a link copies, whether its task still has it or not.

        Raises:
            ValueError: its tags cannot be read.
        """
        return read_version(self.found[link.number], self.task, link.version, link.number)


def read_line(client: MlflowClient, task: str, tell: Tell = say_nothing) -> Line:
    """The line of champions of a task; versions of it that are no links are told of and passed by."""
    found = {int(version.version): version for version in versions_in(client, f"name = '{line_of(task)}'")}
    links = []
    for number, version in sorted(found.items()):
        copied, against, restores = (_number(version, tag) for tag in (COPIES_TAG, AGAINST_TAG, RESTORES_TAG))
        if not copied or against is None or against >= number or (restores or 0) >= number:
            tell(f"version {number} of {line_of(task)} is passed by: emseg did not add it to the line of champions")
        else:
            links.append(Link(number, copied, against, restores or 0))
    valid = valid_links(links)
    return Line(task, valid, standing_links(valid), found)


def add_link(
    client: MlflowClient, version: Version, line: Line, verdict: str, described: str, tags: dict[str, str] | None = None
) -> bool:
    """Make a version champion, unless another one was made champion since `line` was read.

    Args:
        client: of the store.
        version: that becomes champion.
        line: that it was judged by.
        verdict: such as promoted.
        described: what a person reads on the link's page, in Markdown.
        tags: more about the decision.

    Returns:
        Whether the link counts; where it does not, its version is to be judged again.

    Raises:
        RunError: the link was deleted as soon as it was made.
    """
    make_line(client, line.task)
    # Judging takes a while: most that came too late are told here, and leave no void link.
    if read_line(client, line.task).last != line.last:
        return False
    link = {
        COPIES_TAG: str(version.number),
        AGAINST_TAG: str(line.last),
        VERDICT_TAG: verdict,
        WHO_TAG: who(),
        WHEN_TAG: now(),
    }
    made = patiently(
        lambda: client.create_model_version(
            line_of(line.task),
            version.source,
            run_id=version.run_id,
            tags=version.tags | link | (tags or {}),
            description=(described + _scores(version))[:_LONGEST_DESCRIPTION],
            model_id=version.source.removeprefix("models:/") if version.source.startswith("models:/m-") else None,
        )
    )
    after = read_line(client, line.task)
    if int(made.version) not in after.found:
        raise RunError(f"version {made.version} of {line_of(line.task)} was deleted as soon as it was made")
    return any(link.number == int(made.version) for link in after.valid)


def _scores(version: Version) -> str:
    """What a version is and was scored with, in Markdown."""
    origin, evaluation = version.origin, version.evaluation
    what = f"{markdown(origin.model)}, seed {origin.seed}, on {markdown(evaluation.dataset)}"
    tested = f"protocol {evaluation.protocol}, fold {evaluation.fold}, {evaluation.sections} test sections"
    rows = "".join(f"| {name} | {evaluation.metrics[name]} |\n" for name in SHOWN)
    return f"\n{what}, {tested}:\n\n| metric | mean and 95 % interval |\n|---|---|\n{rows}"


def settle(client: MlflowClient, task: str, challenger: int | None = None) -> None:
    """Make the aliases of a task agree with its line of champions, as far as this login may.

    Args:
        client: of the store.
        task: whose aliases.
        challenger: version that was judged last; None leaves that alias alone, unless it became champion.
    """
    from mlflow.exceptions import MlflowException

    wanted = dict(zip((CHAMPION, PREVIOUS), read_line(client, task).champions[::-1], strict=False))
    model = registered_model(client, task)
    there = {alias: int(number) for alias, number in model.aliases.items()} if model else {}
    if challenger is not None and challenger != wanted.get(CHAMPION):
        wanted[CHALLENGER] = challenger
    elif there.get(CHALLENGER) not in (None, wanted.get(CHAMPION)):
        wanted[CHALLENGER] = there[CHALLENGER]
    for alias in (CHAMPION, PREVIOUS, CHALLENGER):
        if wanted.get(alias) == there.get(alias):
            continue
        # Nobody goes by them: that a login may not move one, or that its version is gone, undoes nothing.
        with suppress(MlflowException):
            if alias in wanted:
                patiently(lambda: client.set_registered_model_alias(task, alias, str(wanted[alias])))  # noqa: B023
            else:
                patiently(lambda: client.delete_registered_model_alias(task, alias))  # noqa: B023


def who() -> str:
    """The user's name, for decisions."""
    try:
        return getpass.getuser()
    except (OSError, KeyError):
        return "unknown"


def _number(version: ModelVersion, tag: str) -> int | None:
    """A tag that is a number; None where it is none."""
    text = version.tags.get(tag, "")
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 10 else None
