"""Which runs are of one recipe."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from emseg.records.run import Run

_SHARED = {"model", "dataset", "protocol", "data_digest", "settings", "maximum_steps"}


def recipe_of(run: Run) -> dict[str, Any]:
    """What runs of one recipe share: everything that decides the weights but fold and seed."""
    values = run.model_dump(mode="json", include=_SHARED)
    del values["settings"]["protocol"]["folds"]
    return values


def recipe_digest(run: Run) -> str:
    """`recipe_of` as 32 hexadecimal digits."""
    return hashlib.sha256(json.dumps(recipe_of(run), sort_keys=True).encode()).hexdigest()[:32]
