"""The `emseg` command: a thin function per verb, by family."""

from __future__ import annotations

import sys
from typing import Any


def main() -> None:
    """Run the command; see `emseg.cli.app.main`. Ctrl-C, also while it still imports, is one line and exit code 130."""
    try:
        _with_verbs()
        from emseg.cli.app import main as run

        run()
    except KeyboardInterrupt:
        from emseg.errors import STOPPED, STOPPED_SENTENCE

        print(f"emseg: {STOPPED_SENTENCE}", file=sys.stderr)
        sys.exit(STOPPED)


def _with_verbs() -> Any:
    from emseg.cli import (  # noqa: F401  (each adds its verbs)
        boards,
        data,
        project,
        registry,
        runs,
        schema,
        tuning,
        use,
        versions,
    )
    from emseg.cli.app import app

    # Imported, the module of that name would stand in its place.
    globals()["app"] = app
    return app


def __getattr__(name: str) -> Any:
    """`app`, with every verb, only for those who ask: importing it takes as long as Ctrl-C is to be quiet for."""
    if name == "app":
        return _with_verbs()
    raise AttributeError(name)
