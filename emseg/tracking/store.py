"""Which MLflow store is used, and its one-time creation."""

from __future__ import annotations

import fcntl
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from emseg.errors import InputError, RunError

if TYPE_CHECKING:
    from mlflow import MlflowClient


class StoreUnreachableError(RunError):
    """The MLflow store cannot be reached; records stay on disk and can be published later."""


def store_uri() -> str:
    """MLFLOW_TRACKING_URI, or a SQLite database in the project's root folder."""
    # Absolute: a relative SQLite path would follow the current folder and scatter runs.
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{project_root() / 'mlflow.db'}"


def project_root() -> Path:
    """The nearest folder upwards that holds .git, or the current one."""
    here = Path.cwd().resolve()
    return next((folder for folder in (here, *here.parents) if (folder / ".git").exists()), here)


def connect() -> MlflowClient:
    """A client of the store, whose database is created by the first process that asks.

    Raises:
        InputError: MLflow is not installed.
        StoreUnreachableError: the store does not answer.
    """
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_ALLOW_PICKLE_DESERIALIZATION", "false")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
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
    uri = store_uri()
    try:
        # Several processes that migrate an empty database at once crash each other.
        with _creation_lock(uri):
            mlflow.set_tracking_uri(uri)
            client = MlflowClient(uri)
            client.search_experiments(max_results=1)
    except Exception as error:
        raise StoreUnreachableError(f"the MLflow store {uri} cannot be reached ({_reason(error)})") from error
    return client


@contextmanager
def _creation_lock(uri: str) -> Iterator[None]:
    if not uri.startswith("sqlite:///"):
        yield
        return
    with Path(uri.removeprefix("sqlite:///") + ".lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _reason(error: Exception) -> str:
    return " ".join(str(error).split())[:160]
