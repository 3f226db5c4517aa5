"""Writing a run record while it trains: it begins, goes on after a kill, and ends."""

from __future__ import annotations

import csv
import io
import os
import pickle
import sys
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file

from emseg.errors import InputError, RunError
from emseg.files import atomic_path, require_own, write_text, writing
from emseg.models import Network
from emseg.records.checked import file_digest, write_checked
from emseg.records.record import OWN_FILES, RunRecord, now
from emseg.records.run import FINISHED, RUNNING, Identity, Outcome, Run, SettingsOfRun


class Recorder(RunRecord):
    """A run record that is being written; hold its lock."""

    def start(self, new: Run, replace_finished: bool) -> None:
        """Begin, go on with an unfinished run of the same identity, or keep a finished one.

        Args:
            new: the run that begins. An unfinished record of another identity in this folder is replaced; stderr says
                why.
            replace_finished: whether a finished record of another identity is replaced too.

        Raises:
            InputError: the folder holds such a finished run, a damaged one, or files of somebody else.
        """
        if not self.record_file.is_file():
            # Without a record nothing here can be known to be a run's.
            require_own(self.folder, ())
        if known := self._known(new):
            another = ", ".join(_differing(known, new))
            if known.fingerprint == new.fingerprint:
                if known.status != FINISHED:
                    self.update(status=RUNNING, message=None, resumed=known.resumed + 1)
                    return
                if damage := self._damage_of_weights(known):
                    self._say(f"training again; {damage}")
                else:
                    self._drop_checkpoints()
                    return
            elif known.status == FINISHED and not replace_finished:
                raise InputError(
                    f"{self.folder} holds a finished run of another {another}; choose another --folder, or give "
                    "--overwrite to replace it"
                )
            elif known.status == FINISHED:
                self._say(f"replacing the finished run there, of another {another}")
            elif epochs := self._epochs_kept():
                self._say(f"starting again; the unfinished run there, of {epochs} epoch(s), had another {another}")
        self._clear()
        write_checked(self.record_file, new)

    def finished_run(self) -> Run | None:
        """The finished, undamaged run that is here, without checkpoints; None: there is none."""
        if not self.record_file.is_file():
            return None
        try:
            known = self.read()
            self.check_weights(known)
        except InputError:
            return None
        if known.status != FINISHED:
            return None
        self._drop_checkpoints()
        return known

    def _known(self, new: Run) -> Run | None:
        """The record that is here; None: nothing is.

        A damaged record.json of a run that has a checkpoint of the same identity is written anew.
        """
        if not self.record_file.is_file():
            return None
        try:
            return self.read()
        except InputError as damage:
            # Read without touching the history, which belongs to the record that may be lost.
            state = self._readable_checkpoint()
            if state is None and not self.weights_file.is_file():
                self._say(f"starting again; {damage}")
                return None
            if state is None or state.get("fingerprint") != new.fingerprint:
                raise
            self._say(f"record.json was damaged and is written anew from the checkpoint of epoch {state['epoch']}")
            known = new.model_copy(update={"id": state["id"]})
            write_checked(self.record_file, known)
            return known

    def _epochs_kept(self) -> int:
        try:
            return len(self.history())
        except InputError:
            return 0

    def _damage_of_weights(self, known: Run) -> str | None:
        try:
            self.check_weights(known)
        except InputError as damage:
            return str(damage)
        return None

    def _say(self, sentence: str) -> None:
        print(f"{self.folder}: {sentence}", file=sys.stderr)

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
        whole = state | {"id": known.id, "fingerprint": known.fingerprint, "history": self.history()}
        with self._writing(), atomic_path(self.checkpoint_file) as temporary:
            torch.save(whole, temporary)
            if self.checkpoint_file.is_file():
                os.replace(self.checkpoint_file, self.checkpoint_before)

    def load_checkpoint(self) -> dict[str, Any] | None:
        """The last checkpoint that is whole, or None; the history becomes what it was then."""
        state = self._readable_checkpoint()
        if state is not None and state.get("fingerprint") != self.read().fingerprint:
            self._say("its checkpoint is of another run; training begins anew")
            state = None
        self._write_history(state["history"] if state else [])
        return state

    def _readable_checkpoint(self) -> dict[str, Any] | None:
        files = [file for file in (self.checkpoint_file, self.checkpoint_before) if file.is_file()]
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

    def finish(self, outcome: Outcome) -> None:
        """Mark the run finished and drop the checkpoints, which nothing needs any more."""
        self.update(status=FINISHED, finished=now(), weights_sha256=file_digest(self.weights_file), **dict(outcome))
        self._drop_checkpoints()

    def _drop_checkpoints(self) -> None:
        self.checkpoint_file.unlink(missing_ok=True)
        self.checkpoint_before.unlink(missing_ok=True)

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


def _differing(known: Run, new: Run) -> list[str]:
    """What of a run's identity a record has otherwise; of the settings, which group."""
    keys = [key for key in Identity.model_fields if key != "settings"]
    groups = list(SettingsOfRun.model_fields)
    pairs = [(known, new, key) for key in keys] + [(known.settings, new.settings, key) for key in groups]
    return [key for before, after, key in pairs if getattr(before, key) != getattr(after, key)]
