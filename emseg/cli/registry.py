"""Versions and their champion."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from emseg.cli.app import PARAMS, AsJson, SettingsFile, Task, Wide, app
from emseg.errors import InputError


@app.command()
def publish(
    records: Annotated[
        list[Path] | None, typer.Argument(help="Run folders, or zip files packed elsewhere; default: all below runs.")
    ] = None,
    again: Annotated[
        bool, typer.Option("--again", help="Replace the versions of these runs, whose files are damaged.")
    ] = False,
    task: Annotated[
        str | None,
        typer.Option(help="Task whose versions they become; default: `task` in params.yaml, else the dataset's name."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Deliver run records to MLflow. A record becomes one MLflow run, however often it is published.

    Finished, evaluated runs become versions of their task, a registered model; folds and seeds of one recipe fold
    under a parent run with their mean.

    Examples:

        MLFLOW_TRACKING_URI=http://mlflow.lab:5000 emseg publish runs/single/unet2-fold0-seed0

        emseg publish packed/*.zip         runs of `emseg jobs` on another machine

        emseg publish runs/single/unet2-fold0-seed0 --again
    """
    from dataclasses import asdict

    from emseg.records.record import RunRecord
    from emseg.registry.deliver import publish_records
    from emseg.reporting.imported import import_run
    from emseg.settings import load_settings
    from emseg.tracking.store import connect, store_name

    if again and not records:
        raise InputError("--again needs the run folders whose versions are to be replaced")
    if task is None and PARAMS.is_file():
        task = load_settings(PARAMS).task
    folders = records or sorted(file.parent for file in Path("runs").glob("**/training/record.json"))
    if not folders:
        raise InputError("no run records below runs; train one with `make benchmark` or `emseg train`")
    runs, failed = [], []
    for path in folders:
        try:
            runs.append(import_run(path) if path.suffix == ".zip" else RunRecord.open(path))
        except InputError as error:
            if len(folders) == 1:
                raise
            failed.append(str(error))
    published = publish_records(connect(), runs, again, task)
    if as_json:
        print(json.dumps({"store": store_name(), **asdict(published)}, indent=2))
    else:
        for folder, run_id in published.runs.items():
            version = published.versions.get(folder)
            print(
                f"{folder}: MLflow run {run_id}, "
                + (
                    f"version {version} of {published.tasks[folder]}"
                    if version
                    else "no version: it is not scored here"
                )
            )
        for model, run_id in published.parents.items():
            print(f"{model}: mean over its folds and seeds in run {run_id}")
    for sentence in [*failed, *published.failed.values()]:
        print(f"emseg: not published: {sentence}", file=sys.stderr)
    if failed or published.failed:
        raise typer.Exit(1)


@app.command()
def registry(
    task: Annotated[str | None, typer.Argument(help="Task to show; default: all.")] = None,
    take_over: Annotated[
        bool, typer.Option("--take-over", help="Take over versions and champions of an earlier emseg, once.")
    ] = False,
    wide: Wide = False,
    as_json: AsJson = False,
) -> None:
    """List the registered versions of each task and their difference in V_rand to its champion.

    Versions scored on other data, another protocol or another fold stand apart: they do not rank. The best versions
    have the interval of their paired difference; `emseg promote VERSION --dry-run` gives it of any.

    Examples:

        emseg registry

        emseg registry isbi2012 --json
    """
    from emseg.registry.standings import as_tables, standings
    from emseg.registry.takeover import take_over as take_earlier_over
    from emseg.registry.tasks import find_task, tasks
    from emseg.registry.versions import read_registry
    from emseg.reporting.terminal import print_table
    from emseg.tracking.store import asking, connect

    client = connect(must_exist=True)
    if take_over:
        champions = take_earlier_over(client, task)
        for name, numbers in champions.items():
            print(f"{name}: its champion is version {numbers[-1]}" if numbers else f"{name}: it has no champion yet")
        return
    with asking("read the registry"):
        names = [find_task(client, task)] if task else tasks(client)
        groups = [group for name in names for group in standings(client, read_registry(client, name))]
    if as_json:
        print(json.dumps([group.model_dump(mode="json") for group in groups], indent=2))
        return
    if not groups:
        print("nothing is registered yet; `make benchmark` or `emseg publish` registers evaluated runs")
    for title, table in as_tables(groups):
        print_table(title, table, wide)


@app.command()
def promote(
    version: Annotated[
        str | None, typer.Argument(help="Number, alias or URI; default: the best that compares.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Judge only; change nothing.")] = False,
    force: Annotated[str | None, typer.Option(help="Promote against the rule, for this recorded reason.")] = None,
    task: Task = None,
    settings_file: SettingsFile = PARAMS,
    as_json: AsJson = False,
) -> None:
    """Judge a version by the rule in params.yaml and, if it holds, make it champion. Exit code 1 if it does not.

    Where version and champion were tested on other sections, or the data moved on, the champion is scored again on the
    version's test sections, without those that it was trained on.

    Examples:

        emseg promote --dry-run

        emseg promote 7 --force "the champion was trained on mislabelled sections"
    """
    from dataclasses import asdict

    from emseg.registry.promote import promote as judge_and_promote
    from emseg.settings import load_settings
    from emseg.tracking.store import connect

    if force is not None and not force.strip():
        raise InputError("--force needs a reason, which is recorded with the version")
    rule = load_settings(settings_file).promotion
    decision = judge_and_promote(connect(must_exist=True), rule, version, dry_run, force, task)
    if as_json:
        print(json.dumps(asdict(decision), indent=2))
    else:
        for condition in decision.conditions:
            print(f"{'yes' if condition.is_met else 'NO ':3}  {condition.name}: {condition.evidence}")
        becomes = f"{'would become' if dry_run else 'is'} champion of {decision.task}"
        verdict = becomes if decision.promoted else "is not promoted"
        reason = f", by force: {decision.reason}" if decision.reason else ""
        before = f"version {decision.champion_before}" if decision.champion_before else "none"
        print(f"version {decision.version} {verdict}{reason}; champion before: {before}")
        if not decision.promoted:
            print(f"the limits are under promotion in {settings_file}; --force REASON promotes all the same")
    if not decision.promoted:
        raise typer.Exit(1)


@app.command()
def rollback(task: Task = None, as_json: AsJson = False) -> None:
    """Make the champion before this one champion again; as often as there is history.

    Example:

        emseg rollback
    """
    from dataclasses import asdict

    from emseg.registry.promote import rollback as roll_back
    from emseg.tracking.store import connect

    decision = roll_back(connect(must_exist=True), task)
    if as_json:
        print(json.dumps(asdict(decision), indent=2))
    else:
        print(f"version {decision.champion_after} is champion again; version {decision.champion_before} is not")


@app.command()
def lineage(
    model: Annotated[
        str, typer.Argument(help="Number or alias, or models:/TASK@champion, models:/TASK/NUMBER.")
    ] = "champion",
    task: Task = None,
    settings: Annotated[Path | None, typer.Option(help="Write the run's params.yaml here instead.")] = None,
    as_json: AsJson = False,
) -> None:
    """Walk from a version to its run, commit, data and settings, and print the commands that make it again.

    Examples:

        emseg lineage

        emseg lineage models:/isbi2012/3
    """
    from emseg.registry.lineage import lineage as find_lineage
    from emseg.registry.lineage import write_settings
    from emseg.tracking.store import connect

    client = connect(must_exist=True)
    if settings:
        write_settings(client, model, settings, task=task)
        print(f"{settings} holds the settings of {model}")
        return
    found = find_lineage(client, model, task)
    if as_json:
        print(json.dumps(found.model_dump(mode="json"), indent=2))
        return
    data = found.data
    print(f"version     {found.version} of {found.task}  {' '.join(found.aliases)}")
    print(f"run         {found.run.name}  {found.run.id}")
    print(f"commit      {found.commit}{'  with uncommitted changes' if found.uncommitted_changes else ''}")
    print(f"data        {data.name}  digest {data.digest}, augmented {data.augmented_digest}")
    for path, md5 in data.dvc.items():
        print(f"            {path}  {md5} (DVC)")
    print(f"emseg       {found.emseg or found.packages.get('emseg', 'unknown')}, code {found.code_digest}")
    if found.networks.file:
        print(f"network     {found.networks.file}  sha256 {found.networks.sha256}")
    print(f"protocol    {found.protocol}")
    print(f"device      {found.device}, torch {found.packages['torch']}")
    print(f"weights     sha256 {found.weights_sha256}")
    where = "an empty folder" if found.git_remote else "a clean clone"
    print(f"\nIn {where}, on the same kind of machine:\n")
    for command in found.commands:
        print(f"    {command}")
