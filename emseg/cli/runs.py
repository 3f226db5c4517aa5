"""One run, step by step."""

from __future__ import annotations

import json
import os
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from emseg.cli.app import PARAMS, AsJson, Changes, SettingsFile, app, warn
from emseg.errors import InputError
from emseg.settings import CellMethod

if TYPE_CHECKING:
    from emseg.data.labelled_sections import Parts
    from emseg.records.evaluation import ScoredRun
    from emseg.records.record import RunRecord


@app.command()
def train(
    model: Annotated[str, typer.Argument(help="A name under `models` in params.yaml.")],
    fold: Annotated[int, typer.Option(help="Fold of the protocol.")] = 0,
    seed: Annotated[int, typer.Option(help="Of initial weights, batches and dropout.")] = 0,
    change: Changes = None,
    settings_file: SettingsFile = PARAMS,
    folder: Annotated[Path | None, typer.Option(help="Run folder; default runs/single/NAME.")] = None,
    budget_minutes: Annotated[
        float | None, typer.Option(help="Stop after so much training time; the schedule fits itself to it.")
    ] = None,
    maximum_steps: Annotated[int | None, typer.Option(help="Stop early, to try a recipe out.")] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace a finished run of other settings in the folder.")
    ] = False,
) -> None:
    """Train one model outside the pipeline. The same command goes on where a killed run stopped.

    Several GPUs share a run when torchrun starts the command.

    Examples:

        emseg train unet2

        emseg train weighted_unet --budget-minutes 20

        torchrun --nproc-per-node 4 -m emseg.cli train unet2

        emseg train unet2 --seed 1 --set data.source=isbi2012 --set training.epochs=20
    """
    from emseg.data.sources import load_source
    from emseg.settings import load_settings
    from emseg.tracking.live import live_mirror
    from emseg.training.plan import RunPlan
    from emseg.training.run import train_model

    budget = [] if budget_minutes is None else [f"models.{model}.training.budget_minutes={budget_minutes}"]
    settings = load_settings(settings_file, [*(change or []), *budget])
    settings.recipe(model)
    source = load_source(settings.data.source, labels=settings.data.labels)
    plan = RunPlan(model, fold, seed, settings, source, maximum_steps)
    for note in plan.notes:
        warn(note)
    folder = folder or Path("runs/single") / plan.name
    with live_mirror() as mirror:
        train_model(plan, folder / "training", overwrite, mirror)
    if os.environ.get("RANK", "0") == "0":  # under torchrun one process speaks
        print(f"{folder} is trained; go on with `emseg calibrate {folder}`")


@app.command()
def calibrate(
    record: Annotated[Path, typer.Argument(help="Run folder.")],
    cells: Annotated[
        CellMethod | None, typer.Option(help="How cells are told apart; default: as the run's recipe says.")
    ] = None,
) -> None:
    """Choose thresholds and learn how regions become cells, without a look at the test sections: cells.json.

    Examples:

        emseg calibrate runs/single/unet2-fold0-seed0

        emseg calibrate runs/single/unet2-fold0-seed0 --cells agglomeration
    """
    from emseg.evaluation.calibrate import calibrate as learn
    from emseg.records.record import RunRecord

    run = RunRecord.open(record)
    parts = _parts(run)
    found = learn(run, parts.training, parts.validation, cells)
    print(f"{run.name}: cells by {found.cells} at {found.thresholds.v_rand}; score it with `emseg evaluate {record}`")


@app.command()
def evaluate(
    record: Annotated[str, typer.Argument(help="Run folder; with --data also a registry URI.")],
    data: Annotated[
        str | None, typer.Option(help="Another dataset of data/sources, to see how far the run carries over.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Score a calibrated run on its test sections: scores.csv, metrics.json and pictures in its evaluation folder.

    With --data every section of another dataset is scored, but for those that the run was trained or calibrated on.
    Thresholds and rules for cells stay as they are. The files go to transfer/DATASET in the run's folder.

    Examples:

        emseg evaluate runs/single/unet2-fold0-seed0

        emseg evaluate runs/single/unet2-fold0-seed0 --data isbi2012

        emseg evaluate models:/cortex@champion --data isbi2012
    """
    from emseg.data.sources import load_source
    from emseg.evaluation.evaluate import evaluate as score
    from emseg.evaluation.transfer import evaluate_transfer
    from emseg.records.record import RunRecord
    from emseg.records.transfer import transfer_folder
    from emseg.reporting.evaluation_figures import draw_evaluation
    from emseg.reporting.terminal import evaluation_text

    found: ScoredRun
    if data is not None:
        run = _run_or_registered(record)
        found = evaluate_transfer(run, load_source(data), draw_evaluation, warn)
        written = transfer_folder(run, data)
    else:
        if record.startswith("models:/"):
            raise InputError(
                "a registered model is scored on other data: say --data DATASET; `emseg registry` shows its own scores"
            )
        run = RunRecord.open(record)
        found = score(run, _parts(run).test, draw_evaluation)
        written = run.evaluation_folder
    if as_json:
        print(json.dumps(found.shown(), indent=2))
        return
    print(evaluation_text(run.name, found))
    print(f"\nTables and pictures are in {written}.")


def _run_or_registered(reference: str) -> RunRecord:
    """The record of a run folder, or that of a registered model, which is fetched."""
    from emseg.records.record import RunRecord

    if not reference.startswith("models:/"):
        return RunRecord.open(reference)
    from emseg.registry.load import fetch_run

    return fetch_run(reference)


@app.command()
def leak(
    model: Annotated[str, typer.Argument(help="A name under `models` in params.yaml.")],
    seeds: Annotated[int, typer.Option(help="How many seeds to train with.", min=1)] = 1,
    change: Changes = None,
    settings_file: SettingsFile = PARAMS,
    reports: Annotated[Path, typer.Option(help="Where the report goes.")] = Path("reports"),
) -> None:
    """Train a model under the leaking protocol `paper` and under `heldout`, same budget, and report the gap.

    Example:

        emseg leak unet2 --seeds 3 --settings projects/isbi2012-quick/params.yaml
    """
    from emseg.data.sources import load_source
    from emseg.evaluation.leak import measure_leak
    from emseg.reporting.evaluation_figures import draw_evaluation
    from emseg.reporting.leak import write_leak_report
    from emseg.settings import load_settings
    from emseg.tracking.live import live_mirror

    settings = load_settings(settings_file, change)
    settings.recipe(model)
    source = load_source(settings.data.source, labels=settings.data.labels)
    with live_mirror() as mirror:
        folder = Path("runs/leak") / source.name
        measured = measure_leak(model, settings, source, list(range(seeds)), folder, mirror, draw_evaluation)
    print(write_leak_report(measured, reports, shlex.join(["emseg", *sys.argv[1:]])))


def _parts(record: RunRecord) -> Parts:
    """Of the data that a run was trained on, where they are here."""
    from emseg.data.sources import load_source_of
    from emseg.training.plan import parts_of_run

    run = record.read()
    return parts_of_run(record, load_source_of(run.dataset, run.data_digest))
