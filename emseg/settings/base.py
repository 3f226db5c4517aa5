"""What every part of the settings is made of, and what is wrong with values as one sentence that names the key."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from emseg.errors import InputError

ValidationMetric = Literal["v_rand", "v_info", "iou", "dice", "pixel_error"]
"""V_rand and V_info at a threshold chosen on the other half of the validation sections, the others at 0.5."""
LARGEST_SEED = 2**32 - 1
"""That every generator of random numbers takes."""
Seed = Annotated[int, Field(ge=0, le=LARGEST_SEED)]
DropoutRate = Annotated[float, Field(ge=0, le=0.95)]
Name = Annotated[str, Field(pattern=r"^\w[\w-]*$")]
"""Of a model: it becomes the name of folders."""
DATA_NAME = r"^\w[\w.-]*$"
_MOST_SAID = 8
"""Of what is wrong at once, in one sentence."""
_Kind = TypeVar("_Kind", bound=BaseModel)


class SettingsPart(BaseModel):
    """Unknown keys, other types, NaN and infinity are errors."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=True, allow_inf_nan=False, use_attribute_docstrings=True
    )


def validated(kind: type[_Kind], values: Any, where: str, entry: str = "a setting") -> _Kind:
    """A model of `kind` from plain values.

    Args:
        kind: what they must be.
        values: as a file has them.
        where: the beginning of the sentence about what is wrong, such as the file's name.
        entry: what a key is called.

    Raises:
        InputError: a key is unknown, missing, or of the wrong type; the sentence begins with `where`.
    """
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        found: dict[str, list[str]] = {}
        for problem in error.errors():
            key = _key(values, problem["loc"])
            found.setdefault(f"{where}{key}".rstrip(". :"), []).append(_complaint(problem, entry))
        # Of a value that may be this or that there is a complaint for each.
        first, *others = (key + _joined(complaints) for key, complaints in found.items())
        file = where[: where.rfind(": ") + 2] if ": " in where else ""
        said = [first, *(other.removeprefix(file) for other in others)]
        more = f"; and {len(said) - _MOST_SAID} more" if len(said) > _MOST_SAID else ""
        raise InputError("; ".join(said[:_MOST_SAID]) + more) from error


def _key(values: Any, location: Sequence[int | str]) -> str:
    """Where the problem is, as a user writes it; pydantic also names the alternatives of a value."""
    parts = []
    for part in location:
        if isinstance(values, dict) and part != "[key]":
            parts.append(str(part))
            values = values.get(part)
        elif isinstance(values, list | tuple) and isinstance(part, int):
            parts.append(str(part))
            values = values[part] if part < len(values) else None
    return ".".join(parts)


def _complaint(problem: Any, entry: str) -> str:
    if problem["type"] == "extra_forbidden":
        return f" is not {entry}"
    if problem["type"] == "missing":
        return " is missing"
    message = problem["msg"].removeprefix("Value error, ")
    shown = "" if isinstance(problem["input"], dict) else f" (it is {_short(problem['input'])})"
    return f": {message[0].lower()}{message[1:]}{shown}"


def _joined(complaints: list[str]) -> str:
    first, *others = dict.fromkeys(complaints)
    return first + "".join(f", or{other.partition(':')[2] or other}" for other in others)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
