"""Settings files as plain values: YAML read as DVC reads it, profiles, and changes laid over them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from emseg.errors import InputError

# YAML 1.2, which is what DVC reads and writes: 1e-3 is a number, and `off` a word.
_WORDS = [
    ("null", r"(?:~|null|Null|NULL|)", ["~", "n", "N", ""]),
    ("bool", r"(?:true|True|TRUE|false|False|FALSE)", list("tTfF")),
    ("int", r"(?:[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+)", list("-+0123456789")),
    (
        "float",
        r"(?:[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))",
        list("-+0123456789."),
    ),
    ("merge", r"<<", ["<"]),
]


class _Loader(yaml.SafeLoader):
    """YAML 1.2, with a key that is given twice as an error."""

    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        """The mapping of a node."""
        names = [key.value for key, _ in node.value] if isinstance(node, yaml.MappingNode) else []
        if twice := next((name for name in names if names.count(name) > 1), None):
            raise yaml.constructor.ConstructorError(None, None, f"{twice} is given twice", node.start_mark)
        return super().construct_mapping(node, deep=deep)


class _Dumper(yaml.SafeDumper):
    """Writes what `_Loader` reads back, without anchors, in which a change would be lost."""

    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012

    def ignore_aliases(self, data: Any) -> bool:
        """Write what stands in two places twice."""
        return True


def _whole_number(loader: yaml.SafeLoader, node: yaml.ScalarNode) -> int:
    text = str(loader.construct_scalar(node))
    return int(text, {"0x": 16, "0o": 8}.get(text[:2], 10))


_Loader.add_constructor("tag:yaml.org,2002:int", _whole_number)
for _name, _pattern, _first in _WORDS:
    for _kind in (_Loader, _Dumper):
        _kind.add_implicit_resolver(f"tag:yaml.org,2002:{_name}", re.compile(f"^{_pattern}$"), _first)


def parse_yaml(text: str | bytes, where: str) -> Any:
    """The value of a YAML text.

    Args:
        text: bytes are UTF-8.
        where: the beginning of the sentence about what is wrong, such as the file's name.

    Raises:
        InputError: it is not UTF-8 or not YAML, or gives a key twice.
    """
    try:
        return yaml.load(text.decode("utf-8-sig") if isinstance(text, bytes) else text, _Loader)
    except UnicodeDecodeError as error:
        raise InputError(f"{where} is not UTF-8 text (byte {error.start}); save it as UTF-8") from error
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f", line {mark.line + 1}" if mark else ""
        if error.problem and error.problem.endswith("given twice"):
            raise InputError(f"{where}{place}: {error.problem}; keep one") from error
        raise InputError(f"{where} is not YAML{place}: {' '.join(str(error.problem or error).split())}") from error
    # A tag such as !!int on what is none raises whatever its constructor stumbles over.
    except (yaml.YAMLError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise InputError(f"{where} is not YAML: {' '.join(str(error).split())[:160]}") from error


def read_file(path: Path) -> bytes:
    """The content of a file.

    Raises:
        InputError: it cannot be read.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"{path} cannot be read ({(error.strerror or str(error)).lower()})") from error


def as_yaml(values: dict[str, Any]) -> str:
    """Plain values as YAML text."""
    return yaml.dump(values, Dumper=_Dumper, sort_keys=False, allow_unicode=True)


def read_yaml(path: Path) -> dict[str, Any]:
    """A YAML file that is a mapping.

    Raises:
        InputError: it is not, or cannot be read.
    """
    values = parse_yaml(read_file(path), str(path))
    if not isinstance(values, dict):
        raise InputError(f"{path} must be a mapping of settings")
    return values


def merge(values: dict[str, Any], changes: dict[str, Any]) -> None:
    """Write `changes` into `values`, level by level, in place."""
    for key, change in changes.items():
        if isinstance(change, dict) and isinstance(values.get(key), dict):
            merge(values[key], change)
        else:
            values[key] = change


def flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """The values by their dotted keys, such as training.epochs."""
    leaves: dict[str, Any] = {}
    for key, value in values.items():
        leaves |= flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return leaves


def assign(values: dict[str, Any], assignment: str) -> None:
    """Change one key of `values` in place, as `training.epochs=2` says.

    Raises:
        InputError: it is not KEY=VALUE, or the value is not YAML.
    """
    key, equals, text = assignment.partition("=")
    parts = key.split(".")
    if not equals or not all(parts):
        raise InputError(f"'{assignment[:80]}' is not KEY=VALUE, such as training.epochs=2")
    change: Any = parse_yaml(text, f"the value in '{assignment[:80]}'")
    for part in reversed(parts):
        change = {part: change}
    merge(values, change)


def profile_of(project: Path, profile: str) -> dict[str, Any]:
    """The values of one profile of profiles.yaml.

    Raises:
        InputError: there is no such profile, it is no mapping, or the file is missing or not YAML.
    """
    profiles = read_yaml(project / "profiles.yaml")
    if profile not in profiles:
        raise InputError(f"no profile {profile} in profiles.yaml; there are {', '.join(map(str, profiles))}")
    own = profiles[profile] or {}
    if not isinstance(own, dict):
        raise InputError(f"profiles.yaml, {profile} must be a mapping of settings")
    return own


def profile_values(project: Path, profile: str | None, changes: dict[str, Any]) -> dict[str, Any]:
    """params.yaml with a profile of profiles.yaml and then `changes` laid over it, not yet validated.

    Raises:
        InputError: there is no such profile, it is no mapping, or a file is missing or not YAML.
    """
    values = read_yaml(project / "params.yaml")
    if profile is not None:
        merge(values, profile_of(project, profile))
    merge(values, changes)
    return values
