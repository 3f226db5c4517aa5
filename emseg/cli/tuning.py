"""Optuna studies."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from emseg.cli.app import PARAMS, AsJson, Changes, SettingsFile, tune_app

if TYPE_CHECKING:
    from emseg.data.sources import Source
    from emseg.settings import Settings

StudyName = Annotated[str | None, typer.Option("--name", help="Of the study; default DATA-MODEL.")]
Storage = Annotated[
    str | None, typer.Option(help="Database for workers on many machines; default: a journal on this one.")
]


@tune_app.command()
def run(
    name: StudyName = None,
    storage: Storage = None,
    trials: Annotated[
        int | None, typer.Option(help="Until the study has so many; default: as params.yaml says.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of sampler and trainings.")] = 0,
    change: Changes = None,
    settings_file: SettingsFile = PARAMS,
    as_json: AsJson = False,
) -> None:
    """Search what `tuning` in params.yaml names, judged by sections that are never tested on.

    Started again it goes on; started several times, here or elsewhere on one --storage, the workers share the study.

    Examples:

        emseg tune run

        emseg tune run --set data.source=isbi2012 --set training.epochs=6 --trials 20

        emseg tune run --name cortex --storage postgresql+psycopg://lab@db/optuna
    """
    from emseg.data.sources import load_source
    from emseg.reporting.terminal import print_table
    from emseg.settings import load_settings
    from emseg.tuning.result import as_text, study_as_json, trials_table
    from emseg.tuning.run import tune
    from emseg.tuning.study import POINT, best_of

    limit = [] if trials is None else [f"tuning.trials={trials}"]
    settings = load_settings(settings_file, [*(change or []), *limit])
    study = tune(settings, load_source(settings.data.source, labels=settings.data.labels), name, storage, seed)
    metric = settings.tuning.metric
    if as_json:
        print(json.dumps(study_as_json(study, metric), indent=2))
        return
    print_table(f"study {study.study_name}, {metric} on validation sections", as_text(trials_table(study)))
    if best := best_of(study):
        print(f"best {metric} {best.values[0]:.4f}: {best.user_attrs[POINT]}")
        print(f"`emseg tune apply --name {study.study_name}` writes it to {settings_file}")


@tune_app.command()
def apply(
    trial: Annotated[
        int | None, typer.Option(help="This trial, such as a cheaper one; default: the one with the best metric.")
    ] = None,
    name: StudyName = None,
    storage: Storage = None,
    change: Changes = None,
    settings_file: SettingsFile = PARAMS,
) -> None:
    """Write the best trial into params.yaml as model `tuned`, for `dvc repro` to train beside the others.

    What changes is printed. Comments and order stay. Give the --set options that the study was begun with.

    Examples:

        emseg tune apply && dvc repro

        emseg tune apply --name cortex --trial 17
    """
    from emseg.tuning.result import apply_best

    study, settings, _ = _known_study(name, storage, change, settings_file)
    print(apply_best(study, settings, settings_file, trial), end="")


@tune_app.command()
def report(
    folder: Annotated[Path, typer.Argument(help="Where the report goes.")],
    name: StudyName = None,
    storage: Storage = None,
    change: Changes = None,
    settings_file: SettingsFile = PARAMS,
) -> None:
    """Write what a study found to a folder, as text (study.md), CSV and figures.

    Give the --set options that the study was begun with.

    Examples:

        emseg tune report found

        emseg tune report reports/cortex --name cortex --storage postgresql+psycopg://lab@db/optuna
    """
    from emseg.tuning.report import write_study_report

    study, settings, source = _known_study(name, storage, change, settings_file)
    print(write_study_report(study, settings, source, folder))


def _known_study(
    name: str | None, storage: str | None, change: list[str] | None, settings_file: Path
) -> tuple[Any, Settings, Source]:
    """A study that was begun, and what it was begun with."""
    from emseg.data.sources import load_source
    from emseg.settings import load_settings
    from emseg.tuning.study import open_study

    settings = load_settings(settings_file, change)
    source = load_source(settings.data.source, labels=settings.data.labels)
    return open_study(settings, source, name, storage, must_exist=True), settings, source
