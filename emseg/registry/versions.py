"""The registry: one registered model in which versions of every architecture compete, and its champion.

Which version is champion is written in one tag of the registered model, a list of all champions in order. One write
changes it, so it is never torn; the aliases `champion`, `previous` and `challenger` follow from it and are put right
whenever the registry is locked. Versions that are gone are no champions any more.

A record is one version. Were two registered at once, the lower number stands for the record; one that was registered
again stands for the one it replaces.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from emseg.errors import InputError, RunError
from emseg.registry.described import MODEL_NAME, Version, read_version
from emseg.registry.package import PACKAGE_FILES, open_package, require_digest
from emseg.text import plain
from emseg.tracking.delivery import RECORD_TAG
from emseg.tracking.store import asking, reason_of, store_name

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion, RegisteredModel

    from emseg.segmentation.segmenter import Segmenter

CHAMPION, PREVIOUS, CHALLENGER = "champion", "previous", "challenger"
HISTORY_TAG = "emseg.champions"
DIGEST_TAG = "emseg.digest"
REPLACES_TAG = "emseg.replaces"
DECISION_TAG = "emseg.decision"

Tell = Callable[[str], None]
"""Told in a sentence what is passed by."""


def say(sentence: str) -> None:
    """Print a sentence to stderr."""
    print(sentence, file=sys.stderr)


def say_nothing(sentence: str) -> None:
    """For who was told before."""


@dataclass(frozen=True)
class Registry:
    """What is registered, at one moment.

    Attributes:
        versions: every version that can be read, newest first.
        champions: numbers of those that were champion, in order; the last one is.
    """

    versions: list[Version]
    champions: list[int]


def read_registry(client: MlflowClient, tell: Tell = say) -> Registry:
    """What is registered; versions that others made, or whose tags cannot be read, are told of and passed by."""
    registered = registered_model(client)
    if registered is None:
        return Registry([], [])
    found = client.search_model_versions(f"name = '{MODEL_NAME}'")
    stands_for = _standing(found)
    readable: dict[int, Version] = {}
    for version in found:
        if stands_for[int(version.version)] != int(version.version):
            continue
        try:
            readable[int(version.version)] = read_version(version)
        except ValueError as error:
            tell(f"version {version.version} of {MODEL_NAME} is passed by: {error}")
    champions: list[int] = []
    for number in _history(registered, tell):
        now = stands_for.get(number, number)
        if now in readable and champions[-1:] != [now]:
            champions.append(now)
    names = _aliases(registered, champions)
    versions = [
        replace(version, aliases=tuple(sorted(alias for alias, n in names.items() if n == number)))
        for number, version in readable.items()
    ]
    return Registry(sorted(versions, key=lambda version: -version.number), champions)


def versions(client: MlflowClient, tell: Tell = say) -> list[Version]:
    """Every version that can be read, newest first; see `read_registry`."""
    return read_registry(client, tell).versions


def champions(client: MlflowClient) -> list[int]:
    """Numbers of the versions that were champion and are there, in order; the last one is."""
    return read_registry(client, say_nothing).champions


def listed_champions(client: MlflowClient) -> list[int]:
    """The list of champions as it is written, with versions that are gone or were replaced."""
    registered = registered_model(client)
    return [] if registered is None else _history(registered, say_nothing)


def versions_of_record(client: MlflowClient, record_id: str) -> list[ModelVersion]:
    """Versions made of a record, as MLflow has them: first the one that stands for it, then those to remove."""
    found = client.search_model_versions(f"name = '{MODEL_NAME}' and tags.`{RECORD_TAG}` = '{record_id}'")
    standing = _standing(found)
    return sorted(found, key=lambda v: (standing[int(v.version)] != int(v.version), int(v.version)))


def find_version(client: MlflowClient, reference: str, tell: Tell = say) -> Version:
    """A version by number, alias (champion) or URI (models:/emseg-membrane@champion, models:/emseg-membrane/3).

    Raises:
        InputError: there is no such version.
    """
    text = reference.removeprefix(f"models:/{MODEL_NAME}").lstrip("/@")
    every = versions(client, tell)
    for version in every:
        if text == str(version.number) or text in version.aliases:
            return version
    known = ", ".join(f"{v.number}{' (' + ', '.join(v.aliases) + ')' if v.aliases else ''}" for v in reversed(every))
    raise InputError(
        f"no version {plain(text or reference)} of {MODEL_NAME}; "
        + (f"there are {known}" if known else f"nothing is registered yet in {store_name()}: run `emseg publish`")
    )


def fetch_package(client: MlflowClient, version: Version, folder: Path) -> Path:
    """Fetch the files of a version's package, and nothing else, into `folder`; they are what was registered.

    Raises:
        InputError: one is missing, or they differ from what the registry recorded.
        RunError: they cannot be fetched.
    """
    from mlflow.artifacts import download_artifacts, list_artifacts

    try:
        with asking(f"fetch {version.uri}"):
            place = client.get_model_version_download_uri(MODEL_NAME, str(version.number)) + "/extra_files"
            there = {Path(file.path).name for file in list_artifacts(artifact_uri=place) if not file.is_dir}
            for name in PACKAGE_FILES:
                if name in there:
                    fetched = download_artifacts(artifact_uri=f"{place}/{name}", dst_path=str(folder))
                    os.replace(fetched, folder / name)
    except OSError as error:
        raise RunError(f"{version.uri} cannot be fetched ({reason_of(error)})") from error
    require_digest(folder, version.uri, version.tags.get(DIGEST_TAG, ""))
    return folder


def load_version(client: MlflowClient, version: Version, folder: Path) -> Segmenter:
    """Fetch a version's package into `folder`, check it against the digest the registry recorded, and load it.

    Raises:
        InputError: it is damaged or was tampered with.
        RunError: its files cannot be fetched.
    """
    return open_package(fetch_package(client, version, folder), version.uri, version.tags.get(DIGEST_TAG, ""))


def registered_model(client: MlflowClient) -> RegisteredModel | None:
    """The registered model, or None while nothing is registered."""
    from mlflow.exceptions import MlflowException

    try:
        return client.get_registered_model(MODEL_NAME)
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        return None


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


def _history(registered: RegisteredModel, tell: Tell) -> list[int]:
    """Numbers in the list of champions, whether they are there or not."""
    try:
        history = json.loads(registered.tags.get(HISTORY_TAG, "[]"))
    except (ValueError, RecursionError):
        history = None
    if isinstance(history, list) and all(type(number) is int for number in history):
        return history
    tell(f"the tag {HISTORY_TAG} of {MODEL_NAME} is no list of versions; its alias {CHAMPION} counts instead")
    alias = registered.aliases.get(CHAMPION)
    return [int(alias)] if alias else []


def _aliases(registered: RegisteredModel, champions: list[int]) -> dict[str, int]:
    """Number by alias; whether MLflow's aliases followed the list of champions yet or not, the list is right."""
    names = {alias: int(number) for alias, number in registered.aliases.items()}
    if HISTORY_TAG in registered.tags:
        names = {alias: number for alias, number in names.items() if alias not in (CHAMPION, PREVIOUS)}
        names |= dict(zip((CHAMPION, PREVIOUS), champions[::-1], strict=False))
    return names
