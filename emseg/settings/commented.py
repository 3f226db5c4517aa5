"""Changes to a settings file whose comments and order stay."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

from emseg.errors import InputError
from emseg.settings.file import as_yaml, merge, parse_yaml
from emseg.settings.settings import validate_settings


def change_settings(text: str, changes: dict[str, Any], where: str) -> str:
    """params.yaml with changes laid over it, level by level.

    Args:
        text: of the file.
        changes: nested values; a mapping changes what it names.
        where: the beginning of the sentence about what is wrong, such as the file's name.

    Returns:
        The text with the changes, validated.

    Raises:
        InputError: the text or the result are no settings.
    """
    wanted = parse_yaml(text, where)
    if not isinstance(wanted, dict):
        raise InputError(f"{where} must be a mapping of settings")
    merge(wanted, changes)
    validate_settings(wanted, f"{where}: ")
    return edit_commented(text, lambda values: _lay_over(values, changes), wanted, where)


def edit_commented(text: str, edit: Callable[[Any], None], wanted: dict[str, Any], where: str) -> str:
    """A YAML text after an edit.

    Args:
        text: before it.
        edit: changes the values in place, which are mappings with comments.
        wanted: the plain values after it.
        where: see `change_settings`.
    """
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    yaml = YAML()
    yaml.preserve_quotes = True
    yaml.width = 4096
    yaml.indent(mapping=2, sequence=4, offset=2)
    # ruamel would turn every null of the file into nothing.
    yaml.representer.add_representer(
        type(None), lambda representer, _: representer.represent_scalar("tag:yaml.org,2002:null", "null")
    )
    stream = io.StringIO()
    try:
        values = yaml.load(text)
        edit(values)
        yaml.dump(values, stream)
        if parse_yaml(stream.getvalue(), where) == wanted:
            return stream.getvalue()
    except (YAMLError, InputError):
        pass
    # A comment is worth less than a value.
    return as_yaml(wanted)


def _lay_over(values: Any, changes: dict[str, Any]) -> None:
    for key, change in changes.items():
        if isinstance(change, dict) and isinstance(values.get(key), dict):
            _lay_over(values[key], change)
        else:
            values[key] = _in_one_line(change)


def _in_one_line(value: Any) -> Any:
    """Mappings and lists as {a: 1} and [1, 2]."""
    from ruamel.yaml.comments import CommentedMap, CommentedSeq

    if isinstance(value, dict):
        mapping = CommentedMap((key, _in_one_line(entry)) for key, entry in value.items())
        mapping.fa.set_flow_style()
        return mapping
    if isinstance(value, list):
        sequence = CommentedSeq(map(_in_one_line, value))
        sequence.fa.set_flow_style()
        return sequence
    return value
