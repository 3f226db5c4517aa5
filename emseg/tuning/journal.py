"""The journal of a study on one machine: a line of JSON for everything that happened."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from emseg.errors import InputError


def mend_journal(path: Path) -> None:
    """Cut off a last line that a full disk or a power cut left half written; say so.

    Raises:
        InputError: a line before the last is no JSON.
    """
    from optuna.storages.journal import JournalFileSymlinkLock

    if not path.is_file() or _whole_length(path) == path.stat().st_size:
        return
    # What looks half written may be a line that another worker is writing.
    lock = JournalFileSymlinkLock(str(path))
    lock.acquire()
    try:
        length = _whole_length(path)
        if length < path.stat().st_size:
            with path.open("r+b") as file:
                file.truncate(length)
            print(f"{path}: the last line was cut short and is dropped", file=sys.stderr)
    finally:
        lock.release()


def _whole_length(path: Path) -> int:
    """Bytes of the journal up to the end of its last whole line."""
    length, broken = 0, 0
    for number, line in enumerate(path.read_bytes().splitlines(keepends=True), start=1):
        if not _is_whole(line):
            broken = broken or number
        elif broken:
            raise InputError(
                f"{path} is damaged in line {broken}; bring back a copy, or begin another study with --name"
            )
        else:
            length += len(line)
    return length


def _is_whole(line: bytes) -> bool:
    try:
        return line.endswith(b"\n") and isinstance(json.loads(line), dict)
    except ValueError:
        return False
