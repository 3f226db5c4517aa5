"""A project of one's own: its beginning, its settings, the stages of its pipeline, lists of runs, reports."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from emseg.cli.app import AsJson, app, warn


@app.command()
def init(
    folder: Annotated[Path, typer.Argument(help="The project; made if it is not there.")] = Path(),
    data: Annotated[str | None, typer.Option(help="Labelled sections: of `emseg data list`, or your own.")] = None,
    profile: Annotated[str | None, typer.Option(help="A set of settings of profiles.yaml, such as quick.")] = None,
    as_json: AsJson = False,
) -> None:
    """Begin a project: settings, pipeline and ignore files, ready for `dvc repro`. Nothing is overwritten.

    Run again after another emseg was installed, it notes the version in code.yaml and says which stages are stale.

    Examples:

        emseg init

        emseg init cortex --data cortex --profile quick
    """
    from dataclasses import asdict

    from emseg.data.datasets.known import SYNTHETIC, how_to_add
    from emseg.data.sources import SOURCES_FOLDER
    from emseg.project.initialise import initialise

    done = initialise(folder, data, profile)
    if as_json:
        print(json.dumps(asdict(done), indent=2))
        return
    if done.written:
        print(f"{folder} is a project of emseg; written: {', '.join(done.written)}")
    if done.kept:
        print(f"left as they were: {', '.join(done.kept)}")
    if done.stale:
        print(
            f"code.yaml notes this emseg now; stale: {', '.join(done.stale)}. `dvc repro` runs them, and what follows"
        )
    elif done.stale is not None and not done.written:
        print("nothing to do: the project is of this emseg")
    for note in done.notes:
        warn(note)
    if data and data != SYNTHETIC and not (folder / SOURCES_FOLDER / str(data)).is_dir():
        print(f"bring the sections in: `{how_to_add(data)}` in the project")


@app.command("set")
def set_settings(
    changes: Annotated[list[str], typer.Argument(help="KEY=VALUE, such as training.epochs=2.")],
    settings_file: Annotated[Path, typer.Option("--settings", help="File to change.")] = Path("params.yaml"),
) -> None:
    """Change settings in params.yaml; comments and order stay. Nothing is written unless all of it is right.

    Example:

        emseg set training.epochs=20 data.source=cortex
    """
    from emseg.files import write_text
    from emseg.settings import read_yaml
    from emseg.settings.commented import change_settings
    from emseg.settings.file import assign

    read_yaml(settings_file)  # a file that is none has a sentence of its own
    laid: dict[str, object] = {}
    for change in changes:
        assign(laid, change)
    write_text(settings_file, change_settings(settings_file.read_text("utf-8-sig"), laid, str(settings_file)))


@app.command()
def stage(
    name: Annotated[
        str, typer.Argument(help="prepare, augment, recipes, train, calibrate, evaluate, compare or publish.")
    ],
    model: Annotated[str | None, typer.Option(help="Of train, calibrate and evaluate.")] = None,
    fold: Annotated[int | None, typer.Option(help="Of train, calibrate and evaluate.")] = None,
    seed: Annotated[int | None, typer.Option(help="Of train, calibrate and evaluate.")] = None,
) -> None:
    """Run one stage of the pipeline in the current project; `dvc repro` runs those that are stale.

    Examples:

        emseg stage prepare

        emseg stage train --model unet2 --fold 0 --seed 0
    """
    from emseg.project.stages import run_stage

    run_stage(name, model, fold, seed)


@app.command()
def jobs(
    file: Annotated[Path, typer.Argument(metavar="JOBS.yaml", help="The list.")],
    out: Annotated[Path, typer.Option(help="Folder of the runs.")],
    minutes: Annotated[float, typer.Option(help="Start or go on with nothing after these.")] = float("inf"),
    sources: Annotated[Path, typer.Option(help="Folder that holds the data, by name.")] = Path("data/sources"),
    pack: Annotated[bool, typer.Option("--pack", help="Zip every finished run into OUT/packed.")] = False,
) -> None:
    """Train and score a list of runs, also on a machine without MLflow, DVC and Optuna.

    A job of the list names what differs from params.yaml:

        - {model: residual_unet, profile: best, data: cortex, protocol: heldout, fold: 0, seed: 0,
           name: no-average, set: {training: {weight_average: 0.0}}}

    Every job becomes OUT/runs/NAME. Started again, finished jobs are kept and a stopped one goes on from its
    checkpoint. Started several times at once, the processes share the list. `emseg publish` takes packed runs; weights
    that do not fit 16 MiB stay behind.

    Examples:

        emseg jobs jobs.yaml --out runs/list --minutes 50

        OMP_NUM_THREADS=1 emseg jobs jobs.yaml --out runs/list --pack
    """
    from emseg.project.jobs import run_jobs

    if run_jobs(file, out, minutes, sources, pack):
        raise typer.Exit(1)


@app.command()
def report(
    runs: Annotated[list[Path], typer.Argument(help="Folders below which runs are, or records.zip; later replace.")],
    folder: Annotated[Path, typer.Argument(help="Folder to write to.")],
    title: Annotated[str, typer.Option(help="Its heading.")],
    command: Annotated[str, typer.Option(help="How the runs were made, to print.")],
) -> None:
    """Write the report of evaluated runs, from their records alone.

    It keeps those records in records.zip, so it can be made again, or with further runs, where the runs are gone.

    Examples:

        emseg report runs/benchmark reports/cortex --title "Our cortex" --command "dvc repro"

        emseg report reports/cortex/records.zip more/runs reports/cortex --title "Our cortex" --command "emseg jobs ..."
    """
    from emseg.reporting.report import write_report

    print(write_report(runs, folder, title, command))
