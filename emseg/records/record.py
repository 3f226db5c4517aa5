"""The run record: the folder that is the source of truth about one training run.

record.json           identity, settings, lineage, status, with a checksum
history.csv           a row per epoch, appended as it happens
checkpoint.pt         everything a killed run needs to go on, and checkpoint-before.pt the epoch before, should
                      the disk have spoilt the last; removed when the run finishes
weights.safetensors   the weights to use; record.json has their SHA-256
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from emseg.errors import InputError
from emseg.files import hold
from emseg.records.checked import file_digest, read_checked, write_checked
from emseg.records.run import FINISHED, RUNNING, Run

OWN_FILES = ("history.csv", "checkpoint.pt", "checkpoint-before.pt", "weights.safetensors", "record.json")
"""Everything that a run writes to its folder. They are removed in this order: what has no record is nobody's."""


class RunRecord:
    """A run record on disk.

    Args:
        folder: where it is or will be.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self.weights_file = self.folder / "weights.safetensors"
        self.history_file = self.folder / "history.csv"
        self.record_file = self.folder / "record.json"
        self.checkpoint_file = self.folder / "checkpoint.pt"
        self.checkpoint_before = self.folder / "checkpoint-before.pt"

    @classmethod
    def open(cls, folder: str | Path) -> RunRecord:
        """An existing record; `folder` is the record or the folder whose `training` part it is.

        Raises:
            InputError: there is none.
        """
        for candidate in (Path(folder), Path(folder) / "training"):
            if (candidate / "record.json").is_file():
                return cls(candidate)
        raise InputError(f"{folder} holds no run record (record.json); train one with `emseg train`")

    def read(self) -> Run:
        """record.json.

        Raises:
            InputError: it is missing or damaged.
        """
        remedy = f"bring it back, or remove {self.folder} and train again"
        return read_checked(self.record_file, Run, remedy)[0]

    def update(self, **changes: Any) -> None:
        """Change entries of record.json; values are those of the fields of `Run`."""
        write_checked(self.record_file, Run.model_validate(self.read().model_dump() | changes))

    @property
    def name(self) -> str:
        """The run's name, such as unet2-fold0-seed0."""
        return self.read().name

    @property
    def evaluation_folder(self) -> Path:
        """Where the evaluation of the run is written."""
        return self.folder.parent / "evaluation"

    @property
    def transfers_folder(self) -> Path:
        """Where evaluations of the run on other datasets are written, a folder for each."""
        return self.folder.parent / "transfer"

    def history(self) -> list[dict[str, float]]:
        """One row per epoch: epoch, losses, validation metrics, learning rate, seconds.

        Raises:
            InputError: history.csv is damaged.
        """
        if not self.history_file.is_file():
            return []
        try:
            with self.history_file.open(encoding="utf-8", newline="") as file:
                rows = [{key: float(value) for key, value in row.items()} for row in csv.DictReader(file)]
            if [row["epoch"] for row in rows] != list(range(1, len(rows) + 1)):
                raise ValueError("epochs are missing")
        except (OSError, ValueError, TypeError, KeyError, AttributeError, csv.Error) as error:
            reason = " ".join(str(error).split())[:80]
            raise InputError(f"{self.history_file} is damaged ({reason}); bring it back, or train again") from error
        return rows

    def check_weights(self, run: Run) -> None:
        """Refuse weights that are not those that the run ended with.

        Args:
            run: what `read` gives.

        Raises:
            InputError: they are not, or there are none.
        """
        if not self.weights_file.is_file():
            state = "were left behind" if run.status == FINISHED else "are not there yet"
            raise InputError(f"{self.folder} has no weights: they {state}; its run is {run.status}")
        if run.weights_sha256 is not None and file_digest(self.weights_file) != run.weights_sha256:
            raise InputError(f"{self.weights_file} is damaged: its SHA-256 is not the record's; train the run again")

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the record while training into it.

        Raises:
            InputError: another process holds it, or the folder cannot be written to.
        """
        with hold(self.folder, f"another process is training into {self.folder}; wait for it, or stop it"):
            yield

    def is_interrupted(self) -> bool:
        """Whether the run stopped without saying so: it reads as running, but no process holds it."""
        if self.read().status != RUNNING:
            return False
        try:
            with self.lock():
                return True
        except InputError:
            return False


def open_run(folder: str | Path) -> Run:
    """The record of a run folder, whichever version of emseg wrote it.

    Args:
        folder: the run folder, or the part of it that holds record.json.

    Raises:
        InputError: there is no record, or it is damaged.
    """
    return RunRecord.open(folder).read()


def now() -> str:
    """This moment, UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")
