"""The run record: the folder that is the source of truth about one training run.

record.json           identity, settings, lineage, status, with a checksum
history.csv           a row per epoch, appended as it happens
checkpoint.pt         everything a killed run needs to go on, and checkpoint-before.pt the epoch before, should
                      the disk have spoilt the last; removed when the run finishes
weights.safetensors   the weights to use; record.json has their SHA-256
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
import pickle
import sys
import uuid
import zipfile
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
from emseg.files import atomic_path, hold, require_own, write_text, writing
from emseg.inference import Predictor
from emseg.models import Network, build_model
from emseg.records.checked import file_digest, read_checked, write_checked
from emseg.records.run import FINISHED, RUNNING, Run
from emseg.training.distributed import available_device

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

    def start(self, identity: dict[str, Any], facts: dict[str, Any], replace_finished: bool) -> None:
        """Begin, go on with an unfinished run of the same identity, or keep a finished one.

        Args:
            identity: what decides the weights: model, protocol, fold, seed, settings, digests of data and code.
                An unfinished record of another identity in this folder is replaced; stderr says why.
            facts: further entries of record.json.
            replace_finished: whether a finished record of another identity is replaced too.

        Raises:
            InputError: the folder holds such a finished run, a damaged one, or files of somebody else.
        """
        if not self._record_file.is_file():
            # Without a record nothing here can be known to be a run's.
            require_own(self.folder, ())
        fingerprint = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:32]
        new = {
            "id": uuid.uuid4().hex,
            "fingerprint": fingerprint,
            "status": RUNNING,
            "message": None,
            "resumed": 0,
            "created": now(),
            "finished": None,
            **identity,
            **facts,
        }
        if known := self._known(new):
            another = ", ".join(_differing(known, identity))
            if known["fingerprint"] == fingerprint:
                if known["status"] != FINISHED:
                    self.update(status=RUNNING, message=None, resumed=known["resumed"] + 1)
                    return
                if damage := self._damage_of_weights(known):
                    self._say(f"training again; {damage}")
                else:
                    self._drop_checkpoints()
                    return
            elif known["status"] == FINISHED and not replace_finished:
                raise InputError(
                    f"{self.folder} holds a finished run of another {another}; choose another --folder, or give "
                    "--overwrite to replace it"
                )
            elif known["status"] == FINISHED:
                self._say(f"replacing the finished run there, of another {another}")
            elif epochs := known["epochs_kept"]:
                self._say(f"starting again; the unfinished run there, of {epochs} epoch(s), had another {another}")
        self._clear()
        write_checked(self._record_file, new)

    def _known(self, new: dict[str, Any]) -> dict[str, Any] | None:
        """The record that is here, with the number of its epochs; None: nothing is.

        A damaged record.json of a run that has a checkpoint of the same identity is written anew.
        """
        if not self._record_file.is_file():
            return None
        try:
            known = self.read()
        except InputError as damage:
            # Read without touching the history, which belongs to the record that may be lost.
            state = self._readable_checkpoint()
            if state is None and not self.weights_file.is_file():
                self._say(f"starting again; {damage}")
                return None
            if state is None or state.get("fingerprint") != new["fingerprint"]:
                raise
            self._say(f"record.json was damaged and is written anew from the checkpoint of epoch {state['epoch']}")
            known = new | {"id": state["id"]}
            write_checked(self._record_file, known)
        try:
            epochs = len(self.history())
        except InputError:
            epochs = 0
        return known | {"epochs_kept": epochs}

    def _damage_of_weights(self, known: dict[str, Any]) -> str | None:
        try:
            self.check_weights(known)
        except InputError as damage:
            return str(damage)
        return None

    def _say(self, sentence: str) -> None:
        print(f"{self.folder}: {sentence}", file=sys.stderr)

    def read(self) -> dict[str, Any]:
        """record.json, as `emseg.records.run.Run` describes it.

        Raises:
            InputError: it is missing or damaged.
        """
        remedy = f"bring it back, or remove {self.folder} and train again"
        return read_checked(self._record_file, Run, remedy)[0]

    def update(self, **changes: Any) -> None:
        """Change entries of record.json."""
        write_checked(self._record_file, self.read() | changes)

    @property
    def name(self) -> str:
        """The run's name, such as unet2-fold0-seed0."""
        record = self.read()
        return run_name(record["model"], record["fold"], record["seed"])

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
        known = self.read()
        whole = state | {"id": known["id"], "fingerprint": known["fingerprint"], "history": self.history()}
        with self._writing(), atomic_path(self._checkpoint_file) as temporary:
            torch.save(whole, temporary)
            if self._checkpoint_file.is_file():
                os.replace(self._checkpoint_file, self._checkpoint_before)

    def load_checkpoint(self) -> dict[str, Any] | None:
        """The last checkpoint that is whole, or None; the history becomes what it was then."""
        state = self._readable_checkpoint()
        if state is not None and state.get("fingerprint") != self.read()["fingerprint"]:
            self._say("its checkpoint is of another run; training begins anew")
            state = None
        self._write_history(state["history"] if state else [])
        return state

    def _readable_checkpoint(self) -> dict[str, Any] | None:
        files = [file for file in (self._checkpoint_file, self._checkpoint_before) if file.is_file()]
        for file in files:
            try:
                # PyTorch writes a checksum beside every tensor, and reads past it.
                with zipfile.ZipFile(file) as whole:
                    if damaged := whole.testzip():
                        raise ValueError(f"{damaged} does not fit its checksum")
                return torch.load(file, map_location="cpu", weights_only=True)
            except _UNREADABLE as error:
                reason = " ".join(str(error).split())[:120]
                then = "going back to the one before" if file != files[-1] else "there is none before"
                print(f"{file} cannot be read ({reason}); {then}", file=sys.stderr)
        return None

    def finish(self, **facts: Any) -> None:
        """Mark the run finished and drop the checkpoints, which nothing needs any more."""
        self.update(status=FINISHED, finished=now(), weights_sha256=file_digest(self.weights_file), **facts)
        self._drop_checkpoints()

    def _drop_checkpoints(self) -> None:
        self._checkpoint_file.unlink(missing_ok=True)
        self._checkpoint_before.unlink(missing_ok=True)

    def load_network(self) -> tuple[Network, Normalization]:
        """The trained network on the CPU, in evaluation mode, and its normalisation.

        Raises:
            InputError: the run has no weights yet, or they are not those that it ended with.
        """
        record = self.read()
        self.check_weights(record)
        settings = record["settings"]
        try:
            network = build_model(settings["architecture"], **settings["network"])
            network.load_state_dict(load_file(self.weights_file))
        except (OSError, SafetensorError, RuntimeError, ValueError, KeyError, TypeError) as error:
            reason = " ".join(str(error).split())[:120]
            raise InputError(f"{self.weights_file} cannot be loaded ({reason}); train the run again") from error
        return network.eval(), Normalization(**record["normalization"])

    def check_weights(self, record: dict[str, Any]) -> None:
        """Refuse weights that are not those that the run ended with.

        Args:
            record: what `read` gives.

        Raises:
            InputError: they are not, or there are none.
        """
        if not self.weights_file.is_file():
            state = "were left behind" if record["status"] == FINISHED else "are not there yet"
            raise InputError(f"{self.folder} has no weights: they {state}; its run is {record['status']}")
        noted = record.get("weights_sha256")
        if noted is not None and file_digest(self.weights_file) != noted:
            raise InputError(f"{self.weights_file} is damaged: its SHA-256 is not the record's; train the run again")

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
        # What was there before is whole: files are written under another name first.
        safe = "nothing is lost, it goes on from the last checkpoint"
        try:
            yield
        except RunError as error:
            raise RunError(f"{error}; {safe}") from error
        except (RuntimeError, SafetensorError) as error:
            reason = str(error).splitlines()[0]
            raise RunError(
                f"{self.folder} cannot be written ({reason}); make room and run the same command again; {safe}"
            ) from error

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
        if self.read()["status"] != RUNNING:
            return False
        try:
            with self.lock():
                return True
        except InputError:
            return False

    def _clear(self) -> None:
        with writing(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
            for name in OWN_FILES:
                (self.folder / name).unlink(missing_ok=True)

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


_UNREADABLE = (OSError, RuntimeError, EOFError, KeyError, ValueError, zipfile.BadZipFile, pickle.UnpicklingError)


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
