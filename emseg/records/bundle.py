"""A run as one zip file, to carry it from the machine that trained it to the one that has MLflow."""

from __future__ import annotations

import json
import re
import zipfile
import zlib
from fnmatch import fnmatchcase
from pathlib import Path

from pydantic import ValidationError

from emseg.errors import InputError, RunError
from emseg.files import atomic_folder, atomic_path
from emseg.records.record import OWN_FILES, RunRecord
from emseg.records.run import Run

LARGEST_BUNDLE = 16 * 2**20
"""Bytes. Weights that would make a bundle larger stay behind."""
_LARGEST_CONTENT = 2**30
"""Bytes in all, unpacked. Probabilities compress well, but not without end."""
_LARGEST_JSON = 2**24
_MOST_FILES = 1000
_WEIGHTS = "training/weights.safetensors"
_FILES = (*(f"training/{name}" for name in OWN_FILES), "evaluation/*.*", "cells.json", "metrics.json")
_SUFFIXES = (".json", ".csv", ".tif", ".png", ".safetensors")


def pack_run(record: RunRecord, path: Path) -> None:
    """Write record, history, scores, 8-bit probabilities and, where they fit, the weights of a run to a zip file."""
    root = record.folder.parent
    files = [
        file
        for part in (record.folder, root / "evaluation", root)
        for file in sorted(part.rglob("*") if part != root else root.glob("cells.json"))
        if file.is_file() and not file.name.startswith((".", "checkpoint"))
    ]
    names = {file.relative_to(root).as_posix().replace(record.folder.name, "training", 1): file for file in files}
    with atomic_path(path) as temporary:
        with zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED) as bundle:
            for name, file in names.items():
                if name != _WEIGHTS:
                    bundle.write(file, name)
        weights = names.get(_WEIGHTS)
        if weights and temporary.stat().st_size + weights.stat().st_size < LARGEST_BUNDLE:
            with zipfile.ZipFile(temporary, "a", zipfile.ZIP_DEFLATED) as bundle:
                bundle.write(weights, _WEIGHTS)


def unpack_run(path: Path, folder: Path) -> RunRecord:
    """Unpack a bundle into `folder`/NAME and return the record; the same bundle again changes nothing.

    What the bundle says of its content is checked before anything of it is unpacked.

    Raises:
        InputError: the file is not such a bundle.
    """
    if not path.is_file():
        raise InputError(f"{path} is not a file; expected a run that was packed with --pack")
    try:
        with zipfile.ZipFile(path) as bundle:
            members = [member for member in bundle.infolist() if not member.is_dir()]
            if wrong := _wrong(members):
                raise InputError(f"{path} is not a packed run: {wrong}")
            run = Run.model_validate(json.loads(bundle.read("training/record.json")))
            name = f"{re.sub(r'[^A-Za-z0-9_-]', '-', run.model)}-{run.id[:8]}"
            if damaged := bundle.testzip():
                raise InputError(f"{path} is damaged ({damaged}); pack the run again")
            with atomic_folder(folder / name, _FILES) as temporary:
                for member in members:
                    bundle.extract(member, temporary)
                RunRecord.open(temporary).read()
    except ValidationError as error:
        key = ".".join(map(str, error.errors()[0]["loc"]))
        raise InputError(f"{path} is not a packed run: its record has no proper {key}") from error
    except (InputError, RunError):
        raise
    except _UNREADABLE as error:
        raise InputError(f"{path} is not a packed run: {' '.join(str(error).split())}") from error
    return RunRecord.open(folder / name)


_UNREADABLE = (OSError, KeyError, ValueError, RuntimeError, RecursionError, zipfile.BadZipFile, zlib.error)


def _wrong(members: list[zipfile.ZipInfo]) -> str | None:
    if len(members) > _MOST_FILES:
        return f"it holds {len(members):,} files, the most is {_MOST_FILES:,}"
    names = [member.filename for member in members]
    if len(set(names)) < len(names):
        return "it holds a file twice"
    if any(member.filename.endswith(".json") and member.file_size > _LARGEST_JSON for member in members):
        return f"its JSON files are larger than {_LARGEST_JSON / 2**20:,.0f} MiB"
    size = sum(member.file_size for member in members)
    if size > _LARGEST_CONTENT:
        return f"unpacked it is {size / 2**20:,.0f} MiB large, the most is {_LARGEST_CONTENT / 2**20:,.0f}"
    for member in members:
        parts = Path(member.filename).parts
        is_known = any(fnmatchcase(member.filename, pattern) for pattern in _FILES)
        is_plain = ".." not in parts and "\\" not in member.filename and len(parts) <= 3
        if not (is_known and is_plain and member.filename.endswith(_SUFFIXES)):
            return f"it holds {member.filename[:80]!r}, which no run has"
        if member.flag_bits & 1 or member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            return f"{member.filename} is encrypted or compressed in an unknown way"
    return None
