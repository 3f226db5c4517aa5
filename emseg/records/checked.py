"""JSON files with a checksum of their own, so that a file which a disk or an editor changed is known as such."""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from safetensors import SafetensorError

from emseg.errors import InputError, RunError
from emseg.files import write_json
from emseg.text import plain

CHECKSUM = "checksum"
LATEST_FORMAT = 1
_Kind = TypeVar("_Kind", bound=BaseModel)
DAMAGED = (
    SafetensorError,
    RuntimeError,
    ValueError,
    KeyError,
    TypeError,
    AttributeError,
    IndexError,
    ArithmeticError,
    RecursionError,
    MemoryError,
    EOFError,
    zipfile.BadZipFile,
    OSError,
)
"""What reading files raises that are not what they should be."""


def write_checked(path: Path, record: BaseModel) -> None:
    """Write a record with its checksum, whole or not at all."""
    values = record.model_dump(mode="json")
    write_json(path, values | {CHECKSUM: checksum(values)})


def read_checked(path: Path, kind: type[_Kind], remedy: str) -> tuple[_Kind, str]:
    """What a file holds, and its checksum.

    Args:
        path: of the file. One that was written before there were checksums has none, and is read all the same.
        kind: what it must hold.
        remedy: what to do about a damaged one, such as `evaluate the run again`.

    Raises:
        InputError: it is missing, is not JSON, does not fit its checksum, does not hold what it must, or was written by
            a later version of emseg in a form of its own.
    """
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(values, dict):
            raise ValueError("not a mapping")
        noted, found = values.pop(CHECKSUM, None), checksum(values)
        if noted is not None and noted != found:
            raise ValueError("its checksum does not fit")
        if type(form := values.get("format")) is int and form > LATEST_FORMAT:
            raise InputError(
                f"{path} has format {form}, of a later version of emseg; this one reads formats up to "
                f"{LATEST_FORMAT}: update emseg"
            )
        return kind.model_validate(values), found
    except InputError:
        raise
    except ValidationError as error:
        raise InputError(f"{path} is damaged ({what_is_wrong(error)}); {remedy}") from error
    except FileNotFoundError as error:
        raise InputError(f"{path} is missing; {remedy}") from error
    except OSError as error:
        raise InputError(f"{path} cannot be read ({(error.strerror or str(error)).lower()})") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is damaged ({' '.join(str(error).split())[:100]}); {remedy}") from error


def what_is_wrong(error: ValidationError) -> str:
    """The first complaint about values, and the key it is about."""
    problem = error.errors()[0]
    key = ".".join(map(str, problem["loc"]))
    return f"{key}: {problem['msg'].lower()}" if key else problem["msg"].lower()


def file_digest(path: Path) -> str:
    """SHA-256 of a file's bytes, hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def reading(folder: str | Path) -> Iterator[None]:
    """What cannot be read of a run becomes one sentence.

    Raises:
        InputError: a file is not what it should be.
    """
    try:
        yield
    except (InputError, RunError):
        raise
    except DAMAGED as error:
        raise InputError(
            f"{folder}: the run is damaged ({reason_of_damage(error)}); copy it again from where it was made, "
            "or train and evaluate it again"
        ) from error


def reason_of_damage(error: Exception) -> str:
    """A short, inert account of what reading raised; sentences of emseg's own are whole."""
    said = plain(error)
    return (said if isinstance(error, InputError) else said[:120]) or type(error).__name__


def checksum(values: dict[str, Any]) -> str:
    """SHA-256 of JSON-like values, whatever the order of their keys."""
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()
