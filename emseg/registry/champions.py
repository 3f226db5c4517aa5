"""Who is champion: the one list that decides, the aliases that follow it, and the lock of who changes it."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from emseg.errors import RunError
from emseg.files import HeldError, hold
from emseg.registry.described import MODEL_NAME
from emseg.registry.versions import (
    CHALLENGER,
    CHAMPION,
    HISTORY_TAG,
    PREVIOUS,
    champions,
    registered_model,
    say,
)
from emseg.tracking.location import database_file
from emseg.tracking.store import store_uri

if TYPE_CHECKING:
    from mlflow import MlflowClient


_LOCK_NAME = f"{MODEL_NAME}-lock"
_LOCK_SECONDS = 120
"""A lock on a server that is older was left behind by a process that died."""


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
    registered = registered_model(client)
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
