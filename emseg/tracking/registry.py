"""The registry: one registered model in which versions of every architecture compete, and its champion.

Which version is champion is written in one tag of the registered model, a list of all champions in order. One write
changes it, so it is never torn; the aliases `champion`, `previous` and `challenger` follow from it and are put right
whenever the registry is locked. Versions that are gone are no champions any more.

A record is one version. Were two registered at once, the lower number stands for the record; one that was registered
again stands for the one it replaces.
"""

from __future__ import annotations

import io
import json
import os
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import pandas as pd
from pydantic import AfterValidator, BaseModel, ConfigDict, FiniteFloat, ValidationError

from emseg.errors import InputError, RunError
from emseg.files import HeldError, hold
from emseg.metrics.scoring import ALL_METRICS, Scores
from emseg.text import plain
from emseg.tracking.location import database_file
from emseg.tracking.packaging import PACKAGE_FILES, open_package, require_digest
from emseg.tracking.store import asking, reason_of, store_name, store_uri

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion, RegisteredModel

    from emseg.inference.segmenter import Segmenter

MODEL_NAME = "emseg-membrane"
CHAMPION, PREVIOUS, CHALLENGER = "champion", "previous", "challenger"
HISTORY_TAG = "emseg.champions"
DIGEST_TAG = "emseg.digest"
RECORD_TAG = "emseg.record_id"
REPLACES_TAG = "emseg.replaces"
DESCRIPTION_TAG = "emseg.description"
DECISION_TAG = "emseg.decision"
_LOCK_NAME = f"{MODEL_NAME}-lock"
_LOCK_SECONDS = 120
"""A lock on a server that is older was left behind by a process that died."""

Tell = Callable[[str], None]
"""Told in a sentence what is passed by."""


def say(sentence: str) -> None:
    """Print a sentence to stderr."""
    print(sentence, file=sys.stderr)


def say_nothing(sentence: str) -> None:
    """For who was told before."""


@dataclass(frozen=True)
class Version:
    """One version of the registered model, with what it is judged by."""

    number: int
    run_id: str
    tags: dict[str, str]
    aliases: tuple[str, ...]
    facts: dict[str, Any]
    metrics: dict[str, Any]
    table: pd.DataFrame

    @property
    def uri(self) -> str:
        """models:/emseg-membrane/N."""
        return f"models:/{MODEL_NAME}/{self.number}"

    @property
    def scores(self) -> Scores:
        """Scores per section, with the seed."""
        return Scores(
            self.metrics["protocol"], self.metrics["data_digest"], self.table.assign(seed=self.metrics["seed"])
        )


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
    registered = _registered_model(client)
    if registered is None:
        return Registry([], [])
    found = client.search_model_versions(f"name = '{MODEL_NAME}'")
    stands_for = _standing(found)
    readable: dict[int, Version] = {}
    for version in found:
        if stands_for[int(version.version)] != int(version.version):
            continue
        try:
            readable[int(version.version)] = _read_version(version)
        except ValueError as error:
            tell(f"version {version.version} of {MODEL_NAME} is passed by: {error}")
    champions: list[int] = []
    for number in _history(registered, tell):
        now = stands_for.get(number, number)
        if now in readable and champions[-1:] != [now]:
            champions.append(now)
    names = _aliases(registered, champions)
    versions = [
        Version(**vars(version) | {"aliases": tuple(sorted(a for a, n in names.items() if n == number))})
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
    registered = _registered_model(client)
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


def set_champions(client: MlflowClient, history: list[int], challenger: int | None = None) -> None:
    """Make the last of `history` champion and the one before it `previous`; hold `registry_lock` while calling.

    Args:
        client: of the store.
        history: every champion, in order.
        challenger: version that was compared last; None leaves that alias alone, unless it became champion.
    """
    # The one write that decides. Were the process killed after it, the next lock puts the aliases right.
    client.set_registered_model_tag(MODEL_NAME, HISTORY_TAG, json.dumps(history))
    settle(client)
    with _following():
        aliases = client.get_registered_model(MODEL_NAME).aliases
        if challenger is not None and challenger not in history[-1:]:
            client.set_registered_model_alias(MODEL_NAME, CHALLENGER, str(challenger))
        elif history and str(aliases.get(CHALLENGER)) == str(history[-1]):
            client.delete_registered_model_alias(MODEL_NAME, CHALLENGER)


def settle(client: MlflowClient) -> None:
    """Make the aliases `champion` and `previous` agree with the list of champions."""
    registered = _registered_model(client)
    if registered is None or HISTORY_TAG not in registered.tags:
        return
    wanted = dict(zip((CHAMPION, PREVIOUS), map(str, champions(client)[::-1]), strict=False))
    with _following():
        for alias in (CHAMPION, PREVIOUS):
            if alias in wanted and str(registered.aliases.get(alias)) != wanted[alias]:
                client.set_registered_model_alias(MODEL_NAME, alias, wanted[alias])
            elif alias not in wanted and alias in registered.aliases:
                client.delete_registered_model_alias(MODEL_NAME, alias)


@contextmanager
def registry_lock(client: MlflowClient, patience: float = 60.0) -> Iterator[None]:
    """Hold the registry: of two promotions at once, one waits and then compares with the other's champion.

    A local store is locked by a file, which the system frees when a process dies. A server is locked by creating a
    registered model, since a name can be created once; MLflow has no other operation that only one client can win.

    Raises:
        RunError: another process has held the registry for `patience` seconds.
    """
    database = database_file(store_uri())
    busy = "another process holds the registry; try again when it is done"
    if database is not None:
        try:
            with hold(database.with_name(f"{database.name}.registry"), busy, patience):
                settle(client)
                yield
        except HeldError as error:
            raise RunError(str(error)) from error
        return
    deadline = time.monotonic() + patience
    owner = uuid.uuid4().hex
    while not _create_lock(client, owner):
        if time.monotonic() > deadline:
            raise RunError(busy)
        time.sleep(0.05)
    try:
        settle(client)
        yield
    finally:
        _release_lock(client, owner)


def _create_lock(client: MlflowClient, owner: str) -> bool:
    from mlflow.exceptions import MlflowException

    try:
        client.create_registered_model(_LOCK_NAME, tags={"owner": owner})
    except MlflowException as error:
        if error.error_code == "PERMISSION_DENIED":
            raise
        try:
            lock = client.get_registered_model(_LOCK_NAME)
        except MlflowException:
            return False
        if time.time() - lock.creation_timestamp / 1000 > _LOCK_SECONDS:
            _release_lock(client, lock.tags.get("owner", ""))
        return False
    return True


def _release_lock(client: MlflowClient, owner: str) -> None:
    from mlflow.exceptions import MlflowException

    try:
        if client.get_registered_model(_LOCK_NAME).tags.get("owner", "") == owner:
            client.delete_registered_model(_LOCK_NAME)
    except MlflowException:
        return


@contextmanager
def _following() -> Iterator[None]:
    """Aliases only follow the list of champions: that a login may not move them is said, and undoes nothing."""
    from mlflow.exceptions import MlflowException

    try:
        yield
    except MlflowException as error:
        if error.error_code != "PERMISSION_DENIED":
            raise
        say(f"this login may not move all aliases of {MODEL_NAME}; emseg goes by the list of champions, which is right")


def _registered_model(client: MlflowClient) -> RegisteredModel | None:
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


def _plain(text: str) -> str:
    if plain(text) != text or not text:
        raise ValueError("is no plain name")
    return text


_Name = Annotated[str, AfterValidator(_plain)]


class _Mean(BaseModel):
    model_config = ConfigDict(strict=True, extra="ignore")
    mean: FiniteFloat
    low: FiniteFloat
    high: FiniteFloat


class _Facts(BaseModel):
    model_config = ConfigDict(strict=True, extra="ignore")
    model: _Name
    seed: int
    recipe: _Name
    git_commit: _Name | None
    git_dirty: bool


class _Metrics(BaseModel):
    model_config = ConfigDict(strict=True, extra="ignore")
    dataset: _Name
    protocol: _Name
    data_digest: _Name
    fold: int
    seed: int
    sections: int
    leaks: bool
    collapsed: bool
    threshold: FiniteFloat
    cells: _Name = "threshold"
    v_rand: _Mean
    v_info: _Mean
    pixel_error: _Mean
    dice: _Mean


class _Description(BaseModel):
    model_config = ConfigDict(strict=True, extra="ignore")
    facts: _Facts
    metrics: _Metrics
    scores: str


def _read_version(version: ModelVersion) -> Version:
    """A version without its aliases.

    Raises:
        ValueError: it was not registered by emseg, or its tags cannot be read; the message says which.
    """
    if DESCRIPTION_TAG not in version.tags or not version.run_id:
        raise ValueError("emseg did not register it")
    again = "register its run again with `emseg publish RUN --again`"
    try:
        described = json.loads(version.tags[DESCRIPTION_TAG])
        _Description.model_validate(described)
        facts, metrics = described["facts"], described["metrics"]
        table = _read_table(described["scores"], metrics)
        read = Version(int(version.version), version.run_id, dict(version.tags), (), facts, metrics, table)
        _ = read.scores
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise ValueError(f"its tag {DESCRIPTION_TAG} is damaged ({plain(where)}: {first['msg']}); {again}") from None
    except (ValueError, RecursionError) as error:
        raise ValueError(f"its tag {DESCRIPTION_TAG} is damaged ({plain(error)[:80]}); {again}") from None
    return read


def _read_table(text: str, metrics: dict[str, Any]) -> pd.DataFrame:
    """Scores per section: a row for each, a column of finite numbers for each metric."""
    table = pd.read_csv(io.StringIO(text))
    for name in ("section", *(name for name in ALL_METRICS if name in metrics)):
        if name not in table or table[name].dtype.kind not in "iuf" or not np.isfinite(table[name]).all():
            raise ValueError(f"its scores have no numbers of {name}")
        if name != "section":
            _Mean.model_validate(metrics[name])
    return table
