"""What earlier versions of emseg wrote, brought into the form of today: the one place that knows how it was.

Files had no `format`, and some no `checksum`. Scores did not name what they were made from, what was evaluated, or how
cells were told apart, which was by a threshold. Instead of a calibration of its own, an evaluation held thresholds and,
in agglomeration.json, rules for cells.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

AGGLOMERATION_FILE = "agglomeration.json"
"""In an `evaluation` folder, of before rules for cells were kept with the calibration."""


def upgraded_run(values: Any) -> Any:
    """What record.json holds, in the form of today; anything but a mapping as it is."""
    if not isinstance(values, dict) or "format" in values:
        return values
    return {"format": 1} | values


def upgraded_evaluation(values: Any) -> Any:
    """What metrics.json holds, in the form of today; anything but a mapping as it is."""
    if not isinstance(values, dict) or "format" in values:
        return values
    return {"format": 1, "cells": "threshold", "made_from": None, "calibration": None, "files": {}} | values


def calibration_of_evaluation(folder: Path) -> dict[str, Any] | None:
    """What an evaluation of before there were calibrations had found: cells.json but for `made_from`.

    It is enough to segment with, not to score again. None where `folder` holds no such evaluation.

    Raises:
        OSError, ValueError, KeyError, TypeError: it is damaged.
    """
    metrics_file, rules = folder / "metrics.json", folder / AGGLOMERATION_FILE
    if not metrics_file.is_file():
        return None
    metrics = upgraded_evaluation(json.loads(metrics_file.read_text(encoding="utf-8")))
    if metrics["calibration"] is not None:
        return None
    learned = json.loads(rules.read_text(encoding="utf-8")) if rules.is_file() else None
    if learned is not None and "rounds" not in learned:
        raise ValueError("its agglomeration was learned by a version of emseg that judges borders otherwise")
    thresholds = {"v_rand": metrics["threshold"], "v_info": metrics["v_info_threshold"]}
    return {
        "cells": metrics["cells"],
        "thresholds": thresholds,
        "plain": thresholds,
        "agglomeration": learned,
        "grey_threshold": None,
        "curve": [],
    }
