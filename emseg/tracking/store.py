"""Which MLflow store is used, its one-time creation, and what it refuses, in one sentence."""

from __future__ import annotations

import logging
import os
import random
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import unquote, urlsplit
from urllib.request import getproxies, proxy_bypass

from emseg.errors import InputError, RunError
from emseg.files import hold
from emseg.text import plain, without_secrets
from emseg.tracking.location import database_file, follow_moved_artifacts

if TYPE_CHECKING:
    from mlflow import MlflowClient

_PORTS = {"http": 80, "https": 443, "postgresql": 5432, "mysql": 3306, "mssql": 1433}
_REACH_SECONDS = 4.0
"""MLflow itself would try a database that does not answer for two minutes."""
_CREATION_SECONDS = 300.0
_PATIENCE_SECONDS = 60.0
"""How long a write is tried that others are in the way of."""
_CONFLICTS = (
    "database is locked",
    "Giving up after",  # the store numbers new versions, and others took each number that it tried
    "UNIQUE constraint",
    "duplicate key",
    "deadlock",
    "could not serialize",
    "too many 500 error responses",
    "too many 503 error responses",
)
_Result = TypeVar("_Result")


class StoreUnreachableError(RunError):
    """The MLflow store cannot be reached; records stay on disk and can be published later."""


class StoreRefusalError(RunError):
    """The MLflow store answers, and refuses or fails."""


def store_uri() -> str:
    """MLFLOW_TRACKING_URI, or a SQLite database in the project's root folder.

    It may hold a password; what is shown or written is `store_name`.
    """
    # Absolute: a relative SQLite path would follow the current folder and scatter runs.
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{project_root() / 'mlflow.db'}"


def store_name() -> str:
    """The store's URI as files, logs and messages may hold it: without user and password."""
    return without_secrets(store_uri())


def project_root() -> Path:
    """The nearest folder upwards that holds .git, or the current one."""
    here = Path.cwd().resolve()
    return next((folder for folder in (here, *here.parents) if (folder / ".git").exists()), here)


def connect(must_exist: bool = False) -> MlflowClient:
    """A client of the store, whose database is created by the first process that asks.

    Artifacts of a local store that was moved with its folder are found again.

    Args:
        must_exist: create nothing, for who only looks.

    Raises:
        InputError: MLflow is not installed, or there is no store and there must be.
        StoreUnreachableError: the store does not answer.
        StoreRefusalError: it does not know who asks.
    """
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_ALLOW_PICKLE_DESERIALIZATION", "false")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    # It would stand in the middle of what `--json` prints.
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
    # A dead server must not hold up training for the default of several minutes.
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")
    try:
        import mlflow
        from mlflow import MlflowClient
    except ImportError as error:
        raise InputError("MLflow is not installed; `pip install emseg[tracking]`") from error
    for name in ("mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.ERROR)
    # It prints a traceback of what becomes a sentence here, or is tried again.
    logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)
    uri = store_uri()
    database = database_file(uri)
    if must_exist and database is not None and not database.is_file():
        raise InputError(
            f"there is no MLflow store here, that is no {plain(database)}; `emseg train` and `emseg publish` make it, "
            "MLFLOW_TRACKING_URI names another one"
        )
    try:
        _require_reachable(uri)
        # Several processes that migrate an empty database at once crash each other.
        with _creation_lock(uri):
            if database is not None:
                follow_moved_artifacts(database)
            mlflow.set_tracking_uri(uri)
            client = MlflowClient(uri)
            client.search_experiments(max_results=1)
    except Exception as error:
        if _status(error) in (401, 403):
            raise _refusal(error, "read the store") from error
        raise StoreUnreachableError(
            f"the MLflow store {store_name()} cannot be reached ({reason_of(error)})"
        ) from error
    return client


@contextmanager
def asking(what: str) -> Iterator[None]:
    """What the store refuses or fails at becomes one sentence.

    Args:
        what: is being done, as a verb and its object, such as `promote version 3`.

    Raises:
        StoreRefusalError: it says no, or something went wrong there.
        StoreUnreachableError: it went away.
    """
    from mlflow.exceptions import MlflowException
    from requests.exceptions import RequestException
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except (MlflowException, RequestException, SQLAlchemyError) as error:
        raise _refusal(error, what) from error


def patiently(work: Callable[[], _Result]) -> _Result:
    """Read or write, and try again for a minute where others who write at the same time are in the way.

    A write may be done twice, if its answer was lost.
    """
    from mlflow.exceptions import MlflowException

    deadline = time.monotonic() + _PATIENCE_SECONDS
    wait = 0.01
    while True:
        try:
            return work()
        except MlflowException as error:
            if time.monotonic() > deadline or not any(conflict in str(error) for conflict in _CONFLICTS):
                raise
        time.sleep(random.uniform(0, wait))
        wait = min(2 * wait, 1.0)


def reason_of(error: BaseException) -> str:
    """What an error says, in one short line without passwords."""
    return plain(without_secrets(_without_password_of_store(str(error))))[:200]


def _refusal(error: Exception, what: str) -> RunError:
    status = _status(error)
    user = os.environ.get("MLFLOW_TRACKING_USERNAME")
    if status == 401:
        return StoreRefusalError(
            f"the MLflow store {store_name()} does not know {plain(user) if user else 'who asks'}; set "
            "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD to a login of it"
        )
    if status == 403:
        return StoreRefusalError(
            f"{plain(user) if user else 'this login'} may not {what} in the MLflow store {store_name()} "
            f"({reason_of(error)}); ask its keeper for the right to"
        )
    if "readonly database" in str(error):
        return StoreRefusalError(
            f"the MLflow store {store_name()} can only be read here, so it is not possible to {what}"
        )
    if "Max retries exceeded" in str(error) or "failed with exception" in str(error):
        return StoreUnreachableError(f"the MLflow store {store_name()} went away ({reason_of(error)})")
    return StoreRefusalError(f"the MLflow store {store_name()} failed to {what} ({reason_of(error)})")


def _status(error: BaseException) -> int | None:
    """The HTTP status that an error of MLflow or of requests stands for."""
    if (answer := getattr(error, "response", None)) is not None and getattr(answer, "status_code", None):
        return int(answer.status_code)
    known = {"PERMISSION_DENIED": 403, "UNAUTHENTICATED": 401, "CUSTOMER_UNAUTHORIZED": 401}
    return known.get(getattr(error, "error_code", None) or "")


def _require_reachable(uri: str) -> None:
    """Raise what the system says, within seconds, where nobody answers at the store's address or lets us in."""
    parts = urlsplit(uri)
    kind = parts.scheme.partition("+")[0]
    is_web = kind in ("http", "https")
    host = parts.hostname
    if kind not in _PORTS or not host or "," in host or (is_web and kind in getproxies() and not proxy_bypass(host)):
        return
    socket.create_connection((host, parts.port or _PORTS[kind]), _REACH_SECONDS).close()
    if not is_web:
        from sqlalchemy import create_engine

        engine = create_engine(uri)
        try:
            engine.connect().close()
        finally:
            engine.dispose()


def _without_password_of_store(text: str) -> str:
    # Errors in an address quote parts of it.
    user, colon, password = store_uri().rpartition("@")[0].partition("://")[2].partition(":")
    own = password if colon else user
    others = [os.environ.get(f"MLFLOW_TRACKING_{name}") for name in ("PASSWORD", "TOKEN")]
    for secret in [own, unquote(own), *others]:
        if secret and len(secret) > 3:
            text = text.replace(secret, "***")
    return text


def _creation_lock(uri: str) -> AbstractContextManager[None]:
    database = database_file(uri)
    # Who may only read a shared store cannot create it either.
    if database is None or (database.exists() and not os.access(database.parent, os.W_OK)):
        return nullcontext()
    busy = f"{database} is being created by another process; try again when it is done"
    return hold(database, busy, patience=_CREATION_SECONDS)
