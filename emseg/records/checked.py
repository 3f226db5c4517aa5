"""JSON files with a checksum of their own, so that a file which a disk or an editor changed is known as such."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from emseg.errors import InputError
from emseg.files import write_json

CHECKSUM = "checksum"


def write_checked(path: Path, values: dict[str, Any]) -> None:
    """Write `values` with their checksum, whole or not at all."""
    values = {key: value for key, value in values.items() if key != CHECKSUM}
    write_json(path, values | {CHECKSUM: _checksum(values)})


def read_checked(path: Path, kind: type[BaseModel], remedy: str) -> tuple[dict[str, Any], str]:
    """The values of a file, and their checksum.

    Args:
        path: of the file. One that was written before there were checksums has none, and is read all the same.
        kind: what it must hold.
        remedy: what to do about a damaged one, such as `evaluate the run again`.

    Raises:
        InputError: it is missing, is not JSON, does not fit its checksum, or does not hold what it must.
    """
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(values, dict):
            raise ValueError("not a mapping")
        noted, checksum = values.pop(CHECKSUM, None), _checksum(values)
        if noted is not None and noted != checksum:
            raise ValueError("its checksum does not fit")
        kind.model_validate(values)
    except ValidationError as error:
        problem = error.errors()[0]
        key = ".".join(map(str, problem["loc"]))
        raise InputError(f"{path} is damaged ({key}: {problem['msg'].lower()}); {remedy}") from error
    except FileNotFoundError as error:
        raise InputError(f"{path} is missing; {remedy}") from error
    except OSError as error:
        raise InputError(f"{path} cannot be read ({(error.strerror or str(error)).lower()})") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is damaged ({' '.join(str(error).split())[:100]}); {remedy}") from error
    return values, checksum


def file_digest(path: Path) -> str:
    """SHA-256 of a file's bytes, hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _checksum(values: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()
