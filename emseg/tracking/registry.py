"""The registry: one registered model in which versions of every architecture compete, and its champion.

Which version is champion is written in one tag of the registered model, a list of all champions in order. One write
changes it, so it is never torn; the aliases `champion`, `previous` and `challenger` follow from it and are put right
whenever the registry is locked.
"""

from __future__ import annotations

import fcntl
import json
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from emseg.errors import InputError, RunError
from emseg.metrics.scoring import Scores
from emseg.tracking.packaging import open_package
from emseg.tracking.store import store_uri

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

    from emseg.inference.segmenter import Segmenter

MODEL_NAME = "emseg-membrane"
CHAMPION, PREVIOUS, CHALLENGER = "champion", "previous", "challenger"
HISTORY_TAG = "emseg.champions"
DIGEST_TAG = "emseg.digest"
RECORD_TAG = "emseg.record_id"
_LOCK_NAME = f"{MODEL_NAME}-lock"
_LOCK_SECONDS = 120
"""A lock on a server that is older was left behind by a process that died."""


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


def is_registered(client: MlflowClient, record_id: str) -> ModelVersion | None:
    """The version made of a record, or None."""
    found = client.search_model_versions(f"name = '{MODEL_NAME}' and tags.`{RECORD_TAG}` = '{record_id}'")
    return found[0] if found else None


def versions(client: MlflowClient) -> list[Version]:
    """Every version, newest first."""
    from mlflow.exceptions import MlflowException

    try:
        registered = client.get_registered_model(MODEL_NAME)
    except MlflowException:
        return []
    found = client.search_model_versions(f"name = '{MODEL_NAME}'")
    # The store gives versions without their aliases; the registered model has them.
    by_version: dict[int, list[str]] = {}
    for alias, number in registered.aliases.items():
        by_version.setdefault(int(number), []).append(alias)
    return sorted((_version(v, by_version) for v in found), key=lambda version: -version.number)


def find_version(client: MlflowClient, reference: str) -> Version:
    """A version by number, alias (champion) or URI (models:/emseg-membrane@champion, models:/emseg-membrane/3).

    Raises:
        InputError: there is no such version.
    """
    text = reference.removeprefix(f"models:/{MODEL_NAME}").lstrip("/@")
    every = versions(client)
    for version in every:
        if text == str(version.number) or text in version.aliases:
            return version
    known = ", ".join(f"{v.number}{' (' + ', '.join(v.aliases) + ')' if v.aliases else ''}" for v in reversed(every))
    raise InputError(
        f"no version {text or reference} of {MODEL_NAME}; "
        + (f"there are {known}" if known else "nothing is registered yet: run `emseg publish`")
    )


def load_version(version: Version, folder: Path) -> Segmenter:
    """Fetch a version's package into `folder`, check it against the digest the registry recorded, and load it.

    Raises:
        InputError: it is damaged or was tampered with.
        RunError: its files cannot be fetched.
    """
    from mlflow.artifacts import download_artifacts
    from mlflow.exceptions import MlflowException

    try:
        location = Path(download_artifacts(artifact_uri=version.uri, dst_path=str(folder)))
    except (MlflowException, OSError) as error:
        raise RunError(f"{version.uri} cannot be fetched ({' '.join(str(error).split())[:160]})") from error
    return open_package(location / "extra_files", version.uri, version.tags.get(DIGEST_TAG, ""))


def champions(client: MlflowClient) -> list[int]:
    """Numbers of the versions that were champion, in order; the last one is."""
    from mlflow.exceptions import MlflowException

    try:
        tags = client.get_registered_model(MODEL_NAME).tags
    except MlflowException:
        return []
    return [int(number) for number in json.loads(tags.get(HISTORY_TAG, "[]"))]


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
    aliases = client.get_registered_model(MODEL_NAME).aliases
    if challenger is not None and challenger not in history[-1:]:
        client.set_registered_model_alias(MODEL_NAME, CHALLENGER, str(challenger))
    elif history and str(aliases.get(CHALLENGER)) == str(history[-1]):
        client.delete_registered_model_alias(MODEL_NAME, CHALLENGER)


def settle(client: MlflowClient) -> None:
    """Make `champion` and `previous` agree with the list of champions."""
    history = champions(client)
    aliases = client.get_registered_model(MODEL_NAME).aliases
    wanted = dict(zip((CHAMPION, PREVIOUS), map(str, history[::-1]), strict=False))
    for alias in (CHAMPION, PREVIOUS):
        if alias in wanted and str(aliases.get(alias)) != wanted[alias]:
            client.set_registered_model_alias(MODEL_NAME, alias, wanted[alias])
        elif alias not in wanted and alias in aliases:
            client.delete_registered_model_alias(MODEL_NAME, alias)


@contextmanager
def registry_lock(client: MlflowClient, patience: float = 60.0) -> Iterator[None]:
    """Hold the registry: of two promotions at once, one waits and then compares with the other's champion.

    A local store is locked by a file, which the system frees when a process dies. A server is locked by creating a
    registered model, since a name can be created once; MLflow has no other operation that only one client can win.

    Raises:
        RunError: another process has held the registry for `patience` seconds.
    """
    uri = store_uri()
    deadline = time.monotonic() + patience
    if uri.startswith("sqlite:///"):
        with Path(uri.removeprefix("sqlite:///") + ".registry.lock").open("w") as file:
            while True:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    _wait(deadline)
            _settle_if_there(client)
            yield
        return
    owner = uuid.uuid4().hex
    while not _create_lock(client, owner):
        _wait(deadline)
    try:
        _settle_if_there(client)
        yield
    finally:
        _release_lock(client, owner)


def _settle_if_there(client: MlflowClient) -> None:
    if champions(client):
        settle(client)


def _wait(deadline: float) -> None:
    if time.monotonic() > deadline:
        raise RunError("another process holds the registry; try again when it is done")
    time.sleep(0.05)


def _create_lock(client: MlflowClient, owner: str) -> bool:
    from mlflow.exceptions import MlflowException

    try:
        client.create_registered_model(_LOCK_NAME, tags={"owner": owner})
    except MlflowException:
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


def _version(version: ModelVersion, aliases: dict[int, list[str]]) -> Version:
    import io

    number = int(version.version)
    described = json.loads(version.tags["emseg.description"])
    return Version(
        number,
        version.run_id,
        dict(version.tags),
        tuple(sorted(aliases.get(number, []))),
        described["facts"],
        described["metrics"],
        pd.read_csv(io.StringIO(described["scores"])),
    )
