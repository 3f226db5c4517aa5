"""params.yaml as a JSON schema, with which editors complete keys, show what they mean and mark misspelt ones."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from emseg.errors import InputError
from emseg.files import write_json
from emseg.settings.file import read_file
from emseg.settings.settings import RecipeSettings, Settings

_TITLE = "params.yaml of emseg"


def settings_schema() -> dict[str, Any]:
    """The JSON schema (draft 2020-12) of params.yaml.

    It holds what can be said of one key alone. That values fit together, and fit the sections, is checked by the
    commands.
    """
    schema = Settings.model_json_schema()
    definitions = schema["$defs"]
    model = definitions["ModelSettings"]["properties"]
    # A model names what differs from the shared weight map and the shared recipe.
    definitions["WeightMapChanges"] = _without_required(definitions["WeightMapSettings"])
    definitions["RecipeChanges"] = _without_required(definitions[RecipeSettings.__name__])
    model["weight_map"]["anyOf"][0] = {"$ref": "#/$defs/WeightMapChanges"}
    model["training"] = {"$ref": "#/$defs/RecipeChanges", "description": model["training"]["description"]}
    schema["properties"]["models"]["additionalProperties"] = False
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema, "title": _TITLE}


def write_schema(path: Path) -> None:
    """Write `settings_schema` to a file, in place of one that was written before.

    Raises:
        InputError: the file holds something else, or cannot be written.
    """
    if path.exists():
        try:
            known = json.loads(read_file(path))
        except ValueError:
            known = None
        if not isinstance(known, dict) or known.get("title") != _TITLE:
            raise InputError(f"{path} holds something else than the schema of params.yaml; choose another name")
    write_json(path, settings_schema())


def _without_required(definition: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in definition.items() if key != "required"}
