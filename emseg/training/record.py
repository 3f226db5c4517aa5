"""The run record: the folder that is the source of truth about one training run.

record.json           identity, settings, lineage, status
history.csv           a row per epoch, appended as it happens
checkpoint.pt         everything a killed run needs to go on, and checkpoint-before.pt the epoch before, should
                      the disk have spoilt the last; removed when the run finishes
weights.safetensors   the weights to use
"""

from __future__ import annotations

import csv
import fcntl
import hashlib
import io
import json
import os
import pickle
import shutil
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from emseg.data.normalization import Normalization
from emseg.errors import InputError, RunError
from emseg.files import atomic_path, write_json, write_text
from emseg.inference import Predictor
from emseg.models import Network, build_model
from emseg.training.distributed import available_device

RUNNING, FINISHED, FAILED = "running", "finished", "failed"


class RunRecord:
    """A run record on disk.

    Args:
        folder: where it is or will be.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self.weights_file = self.folder / "weights.safetensors"
        self.history_file = self.folder / "history.csv"
        self._record_file = self.folder / "record.json"
        self._checkpoint_file = self.folder / "checkpoint.pt"
        self._checkpoint_before = self.folder / "checkpoint-before.pt"

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

    def start(self, identity: dict[str, Any], facts: dict[str, Any], resume_finished: bool) -> None:
        """Begin, or go on with an unfinished run of the same identity.

        Args:
            identity: what decides the weights: model, protocol, fold, seed, settings, digests of data and code.
                A record of another identity in this folder is replaced; if it was unfinished, stderr says why.
            facts: further entries of record.json.
            resume_finished: whether a finished record of the same identity is kept as it is.
        """
        fingerprint = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:32]
        if self._record_file.is_file():
            known = self.read()
            if known["fingerprint"] == fingerprint and (resume_finished or known["status"] != FINISHED):
                if known["status"] != FINISHED:
                    self.update(status=RUNNING, message=None, resumed=known["resumed"] + 1)
                return
            if known["status"] != FINISHED and (epochs := len(self.history())):
                print(
                    f"{self.folder}: starting again; the unfinished run there, of {epochs} epoch(s), had another "
                    f"{', '.join(_differing(known, identity))}",
                    file=sys.stderr,
                )
        self._clear()
        write_json(
            self._record_file,
            {
                "id": uuid.uuid4().hex,
                "fingerprint": fingerprint,
                "status": RUNNING,
                "message": None,
                "resumed": 0,
                "created": now(),
                "finished": None,
                **identity,
                **facts,
            },
        )

    def read(self) -> dict[str, Any]:
        """record.json."""
        return json.loads(self._record_file.read_text(encoding="utf-8"))

    def update(self, **changes: Any) -> None:
        """Change entries of record.json."""
        write_json(self._record_file, self.read() | changes)

    @property
    def name(self) -> str:
        """The run's name, such as unet2-fold0-seed0."""
        record = self.read()
        return run_name(record["model"], record["fold"], record["seed"])

    def history(self) -> list[dict[str, float]]:
        """One row per epoch: epoch, losses, validation metrics, learning rate, seconds."""
        if not self.history_file.is_file():
            return []
        with self.history_file.open(encoding="utf-8", newline="") as file:
            return [{key: float(value) for key, value in row.items()} for row in csv.DictReader(file)]

    def append_history(self, row: dict[str, float]) -> None:
        """Add an epoch's row."""
        with self._writing():
            self._write_history([*self.history(), row])

    def save_weights(self, network: Network) -> None:
        """Write the network's weights as safetensors."""
        with self._writing(), atomic_path(self.weights_file) as temporary:
            save_file({name: tensor.contiguous() for name, tensor in network.state_dict().items()}, temporary)

    def save_checkpoint(self, state: dict[str, Any]) -> None:
        """Write a checkpoint and keep the one before; `state` holds tensors, numbers and strings only."""
        with self._writing(), atomic_path(self._checkpoint_file) as temporary:
            torch.save(state, temporary)
            if self._checkpoint_file.is_file():
                os.replace(self._checkpoint_file, self._checkpoint_before)

    def load_checkpoint(self) -> dict[str, Any] | None:
        """The last checkpoint that can be read, or None; history rows of later epochs, which were not safe, go."""
        state = None
        for file in (self._checkpoint_file, self._checkpoint_before):
            if not file.is_file():
                continue
            try:
                state = torch.load(file, map_location="cpu", weights_only=True)
                break
            except (OSError, RuntimeError, EOFError, KeyError, ValueError, pickle.UnpicklingError) as error:
                reason = " ".join(str(error).split())[:120]
                print(f"{file} cannot be read ({reason}); going back to the one before", file=sys.stderr)
        epochs = state["epoch"] if state else 0
        self._write_history([row for row in self.history() if row["epoch"] <= epochs])
        return state

    def finish(self, **facts: Any) -> None:
        """Mark the run finished and drop the checkpoints, which nothing needs any more."""
        self.update(status=FINISHED, finished=now(), **facts)
        self._checkpoint_file.unlink(missing_ok=True)
        self._checkpoint_before.unlink(missing_ok=True)

    def load_network(self) -> tuple[Network, Normalization]:
        """The trained network on the CPU, in evaluation mode, and its normalisation.

        Raises:
            InputError: the run has no weights yet.
        """
        record = self.read()
        if not self.weights_file.is_file():
            raise InputError(f"{self.folder} has no weights yet; its run is {record['status']}")
        settings = record["settings"]
        network = build_model(settings.get("architecture") or record["model"], **settings["network"])
        network.load_state_dict(load_file(self.weights_file))
        return network.eval(), Normalization(**record["normalization"])

    def load_predictor(self, normalized: bool = False) -> Predictor:
        """The trained network with its recipe's way of predicting, on a GPU where there is one.

        Args:
            normalized: it will get sections with normalised grey levels; else it normalises them itself.

        Raises:
            InputError: the run has no weights yet.
        """
        network, normalization = self.load_network()
        recipe = self.read()["settings"]["training"]
        return Predictor(
            network,
            None if normalized else normalization,
            recipe["prediction"],
            recipe["test_time_augmentation"],
            available_device(),
            recipe["precision"],
        )

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except (OSError, RuntimeError, SafetensorError) as error:
            # What was there before is whole: files are written under another name first.
            reason = error.strerror if isinstance(error, OSError) else str(error).splitlines()[0]
            raise RunError(
                f"{self.folder} cannot be written ({reason}); nothing is lost: make room, "
                "and the same command goes on from the last checkpoint"
            ) from error

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the record while training into it.

        Raises:
            InputError: another process holds it, or the folder cannot be written to.
        """
        try:
            file = self._lock_file.open("w")
        except OSError as error:
            raise InputError(
                f"{self.folder.parent} cannot be written to: {error.strerror}; choose another folder"
            ) from error
        with file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise InputError(f"another process is training into {self.folder}; wait for it, or stop it") from error
            yield

    def is_interrupted(self) -> bool:
        """Whether the run stopped without saying so: it reads as running, but no process holds it."""
        if self.read()["status"] != RUNNING:
            return False
        try:
            with self.lock():
                return True
        except InputError:
            return False

    @property
    def _lock_file(self) -> Path:
        # Beside the folder, which is a pipeline output and must hold results alone.
        try:
            self.folder.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"{self.folder} cannot be made: {error.strerror}; choose another folder") from error
        return self.folder.parent / f".{self.folder.name}.lock"

    def _clear(self) -> None:
        if self.folder.exists():
            shutil.rmtree(self.folder)
        self.folder.mkdir(parents=True)

    def _write_history(self, rows: list[dict[str, float]]) -> None:
        if not rows:
            self.history_file.unlink(missing_ok=True)
            return
        text = io.StringIO()
        writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(
            {key: f"{value:.0f}" if key == "epoch" else f"{value:.6g}" for key, value in row.items()} for row in rows
        )
        write_text(self.history_file, text.getvalue())


def _differing(known: dict[str, Any], identity: dict[str, Any]) -> list[str]:
    """The entries of an identity that a record has otherwise; of the settings, which group."""
    # As record.json has it, where a tuple is a list.
    identity = json.loads(json.dumps(identity))
    before, after = ({**entries, **entries["settings"]} for entries in (known, identity))
    return [key for key in after if key != "settings" and before.get(key) != after[key]]


def run_name(model: str, fold: int, seed: int) -> str:
    """The name of a run: unet2-fold0-seed0."""
    return f"{model}-fold{fold}-seed{seed}"


def now() -> str:
    """This moment, UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")
