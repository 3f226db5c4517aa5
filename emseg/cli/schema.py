"""What an editor needs to know of params.yaml."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from emseg.cli.app import app


@app.command()
def schema(
    file: Annotated[Path, typer.Argument(help="Where to write it; - prints it.")] = Path("params.schema.json"),
) -> None:
    """Write a JSON schema of params.yaml, with which an editor completes its keys and marks misspelt ones.

    In VS Code the YAML extension takes it where the first line of params.yaml is

        # yaml-language-server: $schema=params.schema.json

    Examples:

        emseg schema

        emseg schema - | less
    """
    from emseg.settings.schema import settings_schema, write_schema

    if str(file) == "-":
        print(json.dumps(settings_schema(), indent=2))
        return
    write_schema(file)
    print(f"{file} is the schema of params.yaml; `emseg schema --help` says how an editor takes it")
