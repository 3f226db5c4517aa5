"""MLflow brought up to date with a run while it trains."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from emseg.errors import InputError, RunError
from emseg.records.record import RunRecord
from emseg.records.run import FINISHED
from emseg.tracking.publish import publish_record
from emseg.tracking.store import connect, reason_of

if TYPE_CHECKING:
    from mlflow import MlflowClient


@contextmanager
def live_mirror() -> Iterator[Any]:
    """Yield a function that brings MLflow up to date with a record while it trains.

    If the store cannot be reached it says so once and training goes on; `emseg publish` delivers later.
    """
    mirror = _LiveMirror()
    try:
        yield mirror
    except BaseException:
        mirror.stopped()
        raise


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Let Ctrl-C wait until a delivery is done: hit in the middle, a database leaves locks and tracebacks behind.

    A second Ctrl-C does not wait.
    """
    before = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or before is None:
        yield
        return
    came: list[int] = []

    def note(number: int, _: object) -> None:
        if came:
            raise KeyboardInterrupt
        came.append(number)

    signal.signal(signal.SIGINT, note)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if came:
        raise KeyboardInterrupt


class _LiveMirror:
    def __init__(self) -> None:
        self.client: MlflowClient | None = None
        self.record: RunRecord | None = None
        self.broken = False

    def __call__(self, record: RunRecord) -> None:
        self.record = record
        self._attempt(is_training=record.read().status != FINISHED)

    def stopped(self) -> None:
        if self.record is not None:
            self._attempt(is_training=False)

    def _attempt(self, is_training: bool) -> None:
        if self.broken or self.record is None:
            return
        # Whatever the store does, training must not stop for it.
        try:
            with _undisturbed():
                self.client = self.client or connect()
                publish_record(self.client, self.record, is_training, with_scores=False)
        except Exception as error:
            self.broken = True
            reason = error if isinstance(error, InputError | RunError) else f"MLflow failed: {reason_of(error)}"
            print(
                f"{reason}; training goes on, `emseg publish {self.record.folder}` delivers the run later",
                file=sys.stderr,
            )
