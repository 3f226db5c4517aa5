"""The stages of the pipeline: each reads params.yaml of the current folder, calls emseg, and writes its outputs."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

from emseg.errors import InputError
from emseg.project.code_file import require_noted_code
from emseg.records.code import DECIDES
from emseg.settings import load_settings

STAGES = tuple(DECIDES)
_OF_ONE_RUN = ("train", "calibrate", "evaluate")


def run_stage(name: str, model: str | None = None, fold: int | None = None, seed: int | None = None) -> None:
    """Run one stage in the current folder.

    Args:
        name: one of `STAGES`.
        model: of train, calibrate and evaluate; so are fold and seed. The others take none.
        fold: of the protocol.
        seed: of the run.

    Raises:
        InputError: there is no such stage, it lacks a run or takes none, the settings are wrong, or the emseg that runs
            is not the one that DVC knows of.
    """
    if name not in STAGES:
        raise InputError(f"no stage {name}; there are {', '.join(STAGES)}")
    settings = load_settings()
    require_noted_code(Path())
    of_run: tuple[Any, ...] = (model, fold, seed)
    if name not in _OF_ONE_RUN:
        if of_run != (None, None, None):
            raise InputError(f"stage {name} is of all runs; it takes no --model, --fold or --seed")
        of_run = ()
    elif model is None or fold is None or seed is None:
        raise InputError(f"stage {name} is of one run; give it --model, --fold and --seed")
    else:
        settings.recipe(model)  # names the models that there are
    # Most stages need no MLflow: each brings only what it needs.
    import_module(f"{__name__}.{name}").run(settings, *of_run)
