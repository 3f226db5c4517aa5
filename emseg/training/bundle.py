"""A run as one zip file, to carry it from the machine that trained it to the one that has MLflow."""

from __future__ import annotations

import json
import re
import zipfile
from pathlib import Path

from emseg.errors import InputError
from emseg.files import atomic_folder, atomic_path
from emseg.training.record import RunRecord

LARGEST_BUNDLE = 16 * 2**20
"""Bytes. Weights that would make a bundle larger stay behind."""
_WEIGHTS = "training/weights.safetensors"


def pack_run(record: RunRecord, path: Path) -> None:
    """Write record, history, scores, 8-bit probabilities and, where they fit, the weights of a run to a zip file."""
    root = record.folder.parent
    files = [
        file
        for part in (record.folder, root / "evaluation")
        for file in sorted(part.rglob("*"))
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

    Raises:
        InputError: the file is not such a bundle.
    """
    try:
        with zipfile.ZipFile(path) as bundle:
            names = bundle.namelist()
            if bundle.testzip() or any(name.startswith("/") or ".." in Path(name).parts for name in names):
                raise InputError(f"{path} is damaged; pack the run again")
            facts = json.loads(bundle.read("training/record.json"))
            name = f"{facts['model']}-{facts['id'][:8]}"
            if not re.fullmatch(r"[\w-]+", name):
                raise InputError(f"{path} is damaged: its run is named {name!r}")
            target = folder / name
            with atomic_folder(target, ("training/*", "evaluation/*", "metrics.json")) as temporary:
                bundle.extractall(temporary)
    except (OSError, KeyError, ValueError, zipfile.BadZipFile) as error:
        raise InputError(f"{path} is not a packed run: {' '.join(str(error).split())}") from error
    return RunRecord.open(target)
