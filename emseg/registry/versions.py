"""The versions of a task, the champion among them, and how a user's word becomes one of them.

A record is one version. Were two registered at once, the lower number stands for the record; one that was registered
again stands for the one it replaces.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from emseg.errors import InputError, RunError
from emseg.registry.champions import CHAMPION, PREVIOUS, Line, read_line
from emseg.registry.described import DIGEST_TAG, REPLACES_TAG, Version, read_version
from emseg.registry.package import AGAIN, PACKAGE_FILES, open_package, require_digest
from emseg.registry.tasks import COPIES_TAG, find_task, is_old, line_of, registered_model, versions_in
from emseg.registry.telling import Tell, say, say_nothing
from emseg.text import plain
from emseg.tracking.delivery import RECORD_TAG
from emseg.tracking.store import asking, reason_of

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

    from emseg.segmentation.segmenter import Segmenter

PACKAGE_FOLDER = "extra_files"
"""Where MLflow has the files of a package among those of a model."""
_REFERENCE = re.compile(r"models:/(?P<task>[^/@:]+)(?:@(?P<alias>[^/@]+)|/(?P<number>\d+))")


@dataclass(frozen=True)
class Registry:
    """A task, at one moment.

    Attributes:
        task: its name.
        versions: every version that can be read, newest first; a champion whose version was deleted is among them.
        line: of champions.
    """

    task: str
    versions: list[Version]
    line: Line
    champion: Version | None

    @property
    def champions(self) -> list[int]:
        """Numbers of those that were champion and were not rolled back, in order; the last one is."""
        return self.line.champions

    def find(self, wanted: str) -> Version:
        """The version of a number or alias.

        Raises:
            InputError: there is none.
        """
        for version in self.versions:
            if wanted == str(version.number) or wanted in version.aliases:
                return version
        known = [f"{v.number}{' (' + ', '.join(v.aliases) + ')' if v.aliases else ''}" for v in reversed(self.versions)]
        there = f"there are {', '.join(known)}" if known else "none is registered"
        hint = "; `emseg promote` makes one champion" if wanted == CHAMPION else ""
        raise InputError(f"no version {plain(wanted)} of {self.task}; {there}{hint}")


def read_registry(client: MlflowClient, task: str | None = None, tell: Tell = say) -> Registry:
    """A task, by default the only one; versions that others made, or whose tags cannot be read, are told of and passed
    by.

    Raises:
        InputError: there is no such task, or none is named and there are several.
    """
    task = find_task(client, task)
    found = versions_in(client, f"name = '{task}'")
    stands_for = _standing(found)
    readable: dict[int, Version] = {}
    for version in found:
        number = int(version.version)
        if stands_for[number] != number or is_old(version):
            continue
        try:
            readable[number] = read_version(version, task, number)
        except ValueError as error:
            tell(f"version {number} of {task} is passed by: {error}")
    line = read_line(client, task, tell)
    champion = line.champion(tell)
    if champion is not None:
        number = stands_for.get(champion.number, champion.number)
        champion = replace(champion, number=number)
        if number not in readable:
            readable[number] = champion
            tell(
                f"version {number} of {task} is champion, but was deleted; {line_of(task)}/{champion.link} is its copy"
            )
    names = _aliases(client, line, {number: stands_for.get(number, number) for number in line.champions})
    named = {
        number: replace(version, aliases=tuple(sorted(alias for alias, n in names.items() if n == number)))
        for number, version in readable.items()
    }
    if champion is not None:
        champion = replace(champion, aliases=named[champion.number].aliases)
    return Registry(task, sorted(named.values(), key=lambda version: -version.number), line, champion)


def versions_of_record(client: MlflowClient, record_id: str, task: str | None = None) -> list[ModelVersion]:
    """Versions made of a record, as MLflow has them: first the one that stands for it, then those to remove.

    Args:
        client: of the store.
        record_id: of the record.
        task: None: of every task.
    """
    condition = f"tags.`{RECORD_TAG}` = '{record_id}'" + (f" and name = '{task}'" if task else "")
    found = [v for v in versions_in(client, condition) if COPIES_TAG not in v.tags and not is_old(v)]
    standing: dict[tuple[str, int], int] = {}
    for name in {version.name for version in found}:
        own = _standing([version for version in found if version.name == name])
        standing |= {(name, number): stands for number, stands in own.items()}
    return sorted(found, key=lambda v: (standing[v.name, int(v.version)] != int(v.version), v.name, int(v.version)))


def find_version(client: MlflowClient, reference: str, task: str | None = None, tell: Tell = say) -> Version:
    """A version by number, alias (champion) or URI (models:/TASK@champion, models:/TASK/3).

    The champion comes with the files that were promoted, whatever became of its version.

    Args:
        client: of the store.
        reference: of the version.
        task: whose version it is, where the reference does not say; None: of the only one.
        tell: see `read_registry`.

    Raises:
        InputError: there is no such version.
    """
    task, wanted = split_reference(reference, task)
    task = find_task(client, task)
    # Without a look at the other versions, of which there may be many.
    if wanted == CHAMPION and (champion := read_line(client, task, tell).champion(tell)) is not None:
        stands = versions_of_record(client, champion.record_id, task)[:1]
        number = int(stands[0].version) if stands else champion.number
        return replace(champion, number=number, aliases=(CHAMPION,))
    return read_registry(client, task, say_nothing if wanted == CHAMPION else tell).find(wanted)


def split_reference(reference: str, task: str | None = None) -> tuple[str | None, str]:
    """Task and number or alias of a reference; `task` where it is a number or alias alone.

    >>> split_reference("models:/cortex@champion"), split_reference("3")
    (('cortex', 'champion'), (None, '3'))

    Raises:
        InputError: it begins like a URI and is none, or is of another task than `task`.
    """
    if not reference.startswith("models:"):
        return task, reference.lstrip("@")
    found = _REFERENCE.fullmatch(reference)
    if not found:
        raise InputError(f"{plain(reference)} names no version; expected models:/TASK@champion or models:/TASK/NUMBER")
    if task and found["task"] != task:
        raise InputError(f"{plain(reference)} is of task {plain(found['task'])}, not {plain(task)}")
    return found["task"], found["alias"] or found["number"]


def fetch_package(client: MlflowClient, version: Version, folder: Path) -> Path:
    """Fetch the files of a version's package, and nothing else, into `folder`; they are what was registered.

    Raises:
        InputError: one is missing, or they differ from what the registry recorded.
        RunError: they cannot be fetched.
    """
    from mlflow.artifacts import download_artifacts, list_artifacts

    try:
        with asking(f"fetch {version.uri}"):
            place = package_place(client, version)
            there = {Path(file.path).name for file in list_artifacts(artifact_uri=place) if not file.is_dir}
            for name in PACKAGE_FILES:
                if name in there:
                    fetched = download_artifacts(artifact_uri=f"{place}/{name}", dst_path=str(folder))
                    os.replace(fetched, folder / name)
    except OSError as error:
        raise RunError(f"{version.uri} cannot be fetched ({reason_of(error)})") from error
    if not there:
        raise InputError(f"{version.uri}: its files are gone from {plain(place)}; bring them back, or {AGAIN}")
    require_digest(folder, version.uri, version.tags.get(DIGEST_TAG, ""))
    return folder


def package_place(client: MlflowClient, version: Version) -> str:
    """Where MLflow has the files of a version's package."""
    name, number = (line_of(version.task), version.link) if version.link else (version.task, version.number)
    return client.get_model_version_download_uri(name, str(number)) + f"/{PACKAGE_FOLDER}"


def load_version(client: MlflowClient, version: Version, folder: Path) -> Segmenter:
    """Fetch a version's package into `folder`, check it against the digest the registry recorded, and load it.

    Raises:
        InputError: it is damaged or was tampered with.
        RunError: its files cannot be fetched.
    """
    return open_package(fetch_package(client, version, folder), version.uri, version.tags.get(DIGEST_TAG, ""))


def _standing(found: list[ModelVersion]) -> dict[int, int]:
    """Of each version, and of those that were replaced and are gone: the version that stands for its record."""
    records: dict[str, list[int]] = {}
    replaces: dict[int, int] = {}
    for version in found:
        number = int(version.version)
        records.setdefault(version.tags.get(RECORD_TAG) or f"version {number}", []).append(number)
        before = version.tags.get(REPLACES_TAG, "")
        if before.isascii() and before.isdecimal() and len(before) < 10 and int(before) < number:
            replaces[number] = int(before)
    standing: dict[int, int] = {}
    for numbers in records.values():
        replaced = {replaces[number] for number in numbers if number in replaces}
        # The newest is replaced by none, so that one is left.
        stands = min(number for number in numbers if number not in replaced)
        standing |= dict.fromkeys((*replaced, *numbers), stands)
    return standing


def _aliases(client: MlflowClient, line: Line, stands_for: dict[int, int]) -> dict[str, int]:
    """Number by alias. Those of the line are its own; MLflow's, which anyone moves, only follow them."""
    model = registered_model(client, line.task)
    names = {alias: int(number) for alias, number in model.aliases.items()} if model else {}
    names = {alias: number for alias, number in names.items() if alias not in (CHAMPION, PREVIOUS)}
    champions = [stands_for[number] for number in reversed(line.champions)]
    return names | dict(zip((CHAMPION, PREVIOUS), champions, strict=False))
