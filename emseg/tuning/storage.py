"""Where a study is kept: a journal for workers on one machine, or a database for workers on many."""

from __future__ import annotations

import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from emseg.errors import InputError
from emseg.text import plain, without_secrets
from emseg.tuning.journal import mend_journal

if TYPE_CHECKING:
    from optuna.storages import BaseStorage

STUDIES = Path("runs/tuning")
_CREATION_ATTEMPTS = 3


def journal_of(name: str) -> Path:
    """The file of a study on this machine."""
    return STUDIES / name / "journal.log"


@contextmanager
def opened_storage(name: str, url: str | None, heartbeat_seconds: int) -> Iterator[BaseStorage]:
    """The storage of a study, made where there is none.

    Args:
        name: of the study.
        url: of a database; None: a journal below runs/tuning.
        heartbeat_seconds: how often workers on a database say that they live.

    Raises:
        InputError: it cannot be reached or written, now or in the block.
    """
    import optuna
    from optuna.exceptions import StorageInternalError
    from optuna.storages.journal import JournalFileBackend
    from sqlalchemy.exc import SQLAlchemyError

    try:
        if url is not None:
            yield _created_database(url, heartbeat_seconds)
            return
        journal = journal_of(name)
        journal.parent.mkdir(parents=True, exist_ok=True)
        mend_journal(journal)
        yield optuna.storages.JournalStorage(JournalFileBackend(str(journal)))
    except (OSError, ImportError, SQLAlchemyError, StorageInternalError) as error:
        place, reason = without_secrets(url or STUDIES / name), plain(without_secrets(error))[:160]
        raise InputError(f"the storage {place} cannot be used ({reason})") from error


def _created_database(url: str, heartbeat_seconds: int) -> BaseStorage:
    from optuna.exceptions import StorageInternalError
    from sqlalchemy.exc import SQLAlchemyError

    # Workers that start together on an empty database stumble over each other's tables; the next try finds them.
    for _ in range(_CREATION_ATTEMPTS - 1):
        with suppress(SQLAlchemyError, StorageInternalError):
            return _database(url, heartbeat_seconds)
        time.sleep(1)
    return _database(url, heartbeat_seconds)


def _database(url: str, heartbeat_seconds: int) -> BaseStorage:
    import optuna
    from optuna.exceptions import ExperimentalWarning

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)  # the heartbeat
        return optuna.storages.RDBStorage(
            url,
            heartbeat_interval=heartbeat_seconds,
            grace_period=3 * heartbeat_seconds,
            heartbeat_stale_trial_callback=optuna.storages.RetryHeartbeatStaleTrialCallback(max_retry=2),
        )
