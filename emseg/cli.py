"""The `emseg` command: one thin function per verb."""

from __future__ import annotations

import json
import os
import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from emseg.errors import STOPPED, STOPPED_SENTENCE, InputError, ending
from emseg.settings import CellMethod

if TYPE_CHECKING:
    from emseg.data.sources import Progress


class _Commands(TyperGroup):
    """Commands that Ctrl-C ends with one line."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command that was asked for."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            print(f"emseg: {STOPPED_SENTENCE}", file=sys.stderr)
            raise typer.Exit(STOPPED) from None


app = typer.Typer(
    cls=_Commands,
    help="Benchmark platform for segmenting neuronal membranes in electron-microscopy sections.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)
data_app = typer.Typer(help="Bring labelled sections in, and check them.", no_args_is_help=True)
app.add_typer(data_app, name="data")

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for a script to read.")]
Wide = Annotated[bool, typer.Option("--wide", help="Every column, whatever the width of the terminal.")]


def main() -> None:
    """Run the command; bad input becomes one sentence and exit code 2, work that failed one and exit code 1."""
    try:
        app()
    except Exception as error:
        if (known := ending(error)) is None:
            raise
        print(f"emseg: {known[0]}", file=sys.stderr)
        sys.exit(known[1])


@data_app.command("add")
def data_add(
    name: Annotated[str, typer.Argument(help="isbi2012, synthetic, or a name for your own sections.")],
    origin: Annotated[Path | None, typer.Option("--from", help="Folder with images and labels.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace other sections of that name.")] = False,
) -> None:
    """Bring in sections with labels, checked, into data/sources/NAME.

    A folder holds images.tif and labels.tif (multi-page), or folders images/ and labels/ of single-page TIFF or
    PNG files. 8 or 16 bit; labels are 0 for membrane and 1 or 255 for cell interior. A test stack is test-volume
    with test-labels.

    Examples:

        emseg data add isbi2012                       download the challenge's archive

        emseg data add isbi2012 --from ~/isbi2012     take a local copy

        emseg data add cortex --from ~/cortex         your own sections
    """
    from emseg.data.sources import add_source

    with _download_bar() as progress:
        folder = add_source(name, origin, progress=progress, warn=_warn, overwrite=overwrite)
    print(f"{folder} is ready; set data.source: {name} in params.yaml, or run `make benchmark DATA={name}`")


@data_app.command("check")
def data_check(
    folder: Annotated[Path, typer.Argument(help="Folder with images and labels.")],
    as_json: AsJson = False,
) -> None:
    """Report what is in a folder of labelled sections, and what is wrong with it. Exit code 2 if anything is.

    Example:

        emseg data check ~/cortex
    """
    from emseg.data.check import check_stacks
    from emseg.data.labelled import read_labelled

    found = read_labelled(folder, _warn)
    report = check_stacks(found.images, found.labels, found.test_images, found.test_labels)
    if as_json:
        print(json.dumps({"facts": report.facts, "problems": report.problems}, indent=2))
    else:
        for name, fact in report.facts.items():
            print(f"{name}: {fact}")
    for problem in report.problems:
        print(f"problem: {problem}", file=sys.stderr)
    if report.problems:
        raise typer.Exit(2)
    if not as_json:
        print("no problems found")


@app.command()
def train(
    model: Annotated[str, typer.Argument(help="A name under `models` in params.yaml.")],
    fold: Annotated[int, typer.Option(help="Fold of the protocol.")] = 0,
    seed: Annotated[int, typer.Option(help="Of initial weights, batches and dropout.")] = 0,
    change: Annotated[list[str] | None, typer.Option("--set", help="Change a setting for this run: KEY=VALUE.")] = None,
    settings_file: Annotated[Path, typer.Option("--settings", help="Settings to use.")] = Path("params.yaml"),
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
    from emseg.tracking.publish import live_mirror
    from emseg.training.plan import RunPlan
    from emseg.training.run import train_model

    budget = [] if budget_minutes is None else [f"models.{model}.training.budget_minutes={budget_minutes}"]
    settings = load_settings(settings_file, [*(change or []), *budget])
    settings.recipe(model)
    plan = RunPlan(model, fold, seed, settings, load_source(settings.data.source), maximum_steps)
    for note in plan.notes:
        _warn(note)
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
    from emseg.data.sources import load_source
    from emseg.evaluation.calibrate import calibrate as learn
    from emseg.training.plan import parts_of_run
    from emseg.training.record import RunRecord

    run = RunRecord.open(record)
    parts = parts_of_run(run, load_source(run.read()["dataset"]))
    found = learn(run, parts.training, parts.validation, cells)
    print(f"{run.name}: cells by {found.cells} at {found.thresholds.v_rand}; score it with `emseg evaluate {record}`")


@app.command()
def evaluate(
    record: Annotated[Path, typer.Argument(help="Run folder.")],
    as_json: AsJson = False,
) -> None:
    """Score a calibrated run on its test sections: scores.csv, metrics.json and pictures in its evaluation folder.

    Example:

        emseg evaluate runs/single/unet2-fold0-seed0
    """
    from emseg.data.sources import load_source
    from emseg.evaluation.evaluate import evaluate as score
    from emseg.evaluation.evaluate import evaluation_folder
    from emseg.metrics.scoring import ALL_METRICS
    from emseg.reporting.evaluation_figures import draw_evaluation
    from emseg.training.plan import parts_of_run
    from emseg.training.record import RunRecord

    run = RunRecord.open(record)
    metrics = score(run, parts_of_run(run, load_source(run.read()["dataset"])).test, draw_evaluation)
    if as_json:
        print(json.dumps(metrics, indent=2))
        return
    print(f"{run.name}, protocol {metrics['protocol']}{' (leaks)' if metrics['leaks'] else ''}")
    print(f"  cells by {metrics['cells']} at {metrics['threshold']}, pixels at {metrics['pixel_threshold']}")
    for name in [name for name in ALL_METRICS if name in metrics]:
        print(f"  {name:20} {metrics[name]['mean']:.4f}  [{metrics[name]['low']:.4f}, {metrics[name]['high']:.4f}]")
    print(f"in {evaluation_folder(run)}")


@app.command()
def leaderboard(
    folder: Annotated[Path, typer.Argument(help="Where to look for evaluated runs.")] = Path("runs"),
    csv: Annotated[Path | None, typer.Option(help="Also write CSV.")] = None,
    markdown: Annotated[Path | None, typer.Option(help="Also write Markdown.")] = None,
    wide: Wide = False,
    as_json: AsJson = False,
) -> None:
    """Rank evaluated runs: one table per data and protocol, on the challenge's sections beside the study's rows.

    Runs that are damaged, or whose scores belong to other weights, are named and passed by; exit code 1 then.

    Examples:

        emseg leaderboard

        emseg leaderboard workspaces/isbi2012-quick --markdown isbi2012.md
    """
    from emseg.files import write_text
    from emseg.reporting.leaderboard import as_csv, as_markdown, as_numbers, make_boards, sound_evaluations

    evaluations, damaged = sound_evaluations(folder)
    for sentence in damaged:
        _warn(f"passed by: {sentence}")
    boards = make_boards(evaluations)
    if csv:
        write_text(csv, as_csv(as_numbers(boards)))
    if markdown:
        write_text(markdown, as_markdown(boards))
    if as_json:
        print(as_numbers(boards).to_json(orient="records", indent=2))
    else:
        from emseg.reporting.terminal import print_boards

        print_boards(boards, wide)
    if damaged:
        raise typer.Exit(1)


@app.command()
def leak(
    model: Annotated[str, typer.Argument(help="A name under `models` in params.yaml.")],
    seeds: Annotated[int, typer.Option(help="How many seeds to train with.", min=1)] = 1,
    change: Annotated[list[str] | None, typer.Option("--set", help="Change a setting: KEY=VALUE.")] = None,
    settings_file: Annotated[Path, typer.Option("--settings", help="Settings to use.")] = Path("params.yaml"),
    reports: Annotated[Path, typer.Option(help="Where the report goes.")] = Path("reports"),
) -> None:
    """Train a model under the leaking protocol `paper` and under `heldout`, same budget, and report the gap.

    Example:

        emseg leak unet2 --seeds 3 --settings workspaces/isbi2012-quick/params.yaml
    """
    from emseg.data.sources import load_source
    from emseg.reporting.leak import measure_leak, write_leak_report
    from emseg.settings import load_settings
    from emseg.tracking.publish import live_mirror

    settings = load_settings(settings_file, change)
    settings.recipe(model)
    source = load_source(settings.data.source)
    with live_mirror() as mirror:
        measured = measure_leak(model, settings, source, list(range(seeds)), Path("runs/leak") / source.name, mirror)
    print(write_leak_report(measured, reports, shlex.join(["emseg", *sys.argv[1:]])))


@app.command()
def publish(
    records: Annotated[
        list[Path] | None, typer.Argument(help="Run folders, or zip files packed elsewhere; default: all below runs.")
    ] = None,
    again: Annotated[
        bool, typer.Option("--again", help="Replace the versions of these runs, whose files are damaged.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Deliver run records to MLflow. A record becomes one MLflow run, however often it is published.

    Finished, evaluated runs become versions of the registered model emseg-membrane; folds and seeds of one recipe
    fold under a parent run with their mean.

    Examples:

        MLFLOW_TRACKING_URI=http://mlflow.lab:5000 emseg publish runs/single/unet2-fold0-seed0

        emseg publish packed/*.zip         runs of `python -m pipelines.jobs` on another machine

        emseg publish runs/single/unet2-fold0-seed0 --again
    """
    from dataclasses import asdict

    from emseg.reporting.imported import import_run
    from emseg.tracking.store import connect, store_name
    from emseg.tracking.summary import publish_records
    from emseg.training.record import RunRecord

    if again and not records:
        raise InputError("--again needs the run folders whose versions are to be replaced")
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
    published = publish_records(connect(), runs, again)
    if as_json:
        print(json.dumps({"store": store_name(), **asdict(published)}, indent=2))
    else:
        for folder, run_id in published.runs.items():
            version = published.versions.get(folder)
            print(
                f"{folder}: MLflow run {run_id}, "
                + (f"version {version} of emseg-membrane" if version else "no version: it is not evaluated yet")
            )
        for model, run_id in published.parents.items():
            print(f"{model}: mean over its folds and seeds in run {run_id}")
    for sentence in [*failed, *published.failed.values()]:
        print(f"emseg: not published: {sentence}", file=sys.stderr)
    if failed or published.failed:
        raise typer.Exit(1)


@app.command()
def tune(
    name: Annotated[str | None, typer.Option(help="Of the study; default DATA-MODEL.")] = None,
    storage: Annotated[
        str | None, typer.Option(help="Database for workers on many machines; default: a journal on this one.")
    ] = None,
    trials: Annotated[
        int | None, typer.Option(help="Until the study has so many; default: as params.yaml says.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of sampler and trainings.")] = 0,
    change: Annotated[list[str] | None, typer.Option("--set", help="Change a setting: KEY=VALUE.")] = None,
    settings_file: Annotated[Path, typer.Option("--settings", help="Settings to use.")] = Path("params.yaml"),
    apply: Annotated[bool, typer.Option("--apply", help="Write the best trial to the settings as `tuned`.")] = False,
    trial: Annotated[int | None, typer.Option(help="With --apply: this trial instead, such as a cheaper one.")] = None,
    report: Annotated[Path | None, typer.Option(help="Write what the study found to this folder.")] = None,
    as_json: AsJson = False,
) -> None:
    """Search what `tuning` in params.yaml names, on sections that are never tested on.

    Started again it goes on; started several times, here or elsewhere on one --storage, the workers share the study.
    --apply and --report train nothing: one writes the best trial into params.yaml, for `dvc repro` to train beside the
    others, the other writes tables and figures.

    Examples:

        emseg tune --set data.source=isbi2012 --set training.epochs=6

        emseg tune --name cortex --storage postgresql+psycopg://lab@db/optuna

        emseg tune --name cortex --apply && dvc repro
    """
    import tempfile

    from emseg.data.sources import load_source
    from emseg.reporting.terminal import print_table
    from emseg.settings import check_seed, load_settings
    from emseg.tracking.tuning import StudyMirror
    from emseg.tuning.figures import draw_study
    from emseg.tuning.progress import TrialLines
    from emseg.tuning.report import write_study_report
    from emseg.tuning.result import apply_best, as_text, trials_table
    from emseg.tuning.study import POINT, Events, best_of, open_study, run_worker

    check_seed(seed)
    if trial is not None and not apply:
        raise InputError("--trial goes with --apply")
    limit = [] if trials is None else [f"tuning.trials={trials}"]
    settings = load_settings(settings_file, [*(change or []), *limit])
    source = load_source(settings.data.source)
    tuning = settings.tuning
    name = name or f"{source.name}-{tuning.model}"
    study = open_study(settings, source, name, storage)
    if apply:
        print(apply_best(study, settings, settings_file, trial), end="")
        return
    if report:
        print(write_study_report(study, settings, source, report))
        return
    objectives = [tuning.metric, *([tuning.cost] if tuning.cost else [])]
    described = tuning.model_dump(mode="json") | {"data_digest": source.digest}
    mirror = StudyMirror(name, source.name, settings.protocol.name, objectives, described)
    lines = TrialLines(tuning.trials, tuning.metric)

    def ended(study: Any, trial: Any) -> None:
        mirror.ended(study, trial)
        lines.ended(study, trial)

    run_worker(study, settings, source, Events(mirror.began, mirror.epoch, ended), seed)
    best = best_of(study)
    with tempfile.TemporaryDirectory() as folder:
        mirror.finish(best, draw_study(study, Path(folder), tuning))
    table = trials_table(study)
    if as_json:
        found = {"trial": best.number, "value": best.values[0], "point": best.user_attrs[POINT]} if best else None
        trials_as_rows = json.loads(table.to_json(orient="records"))
        print(json.dumps({"study": name, "metric": tuning.metric, "best": found, "trials": trials_as_rows}, indent=2))
        return
    print_table(f"study {name}, {tuning.metric} on validation sections", as_text(table))
    if best:
        print(f"best {tuning.metric} {best.values[0]:.4f}: {best.user_attrs[POINT]}")
        print(f"`emseg tune --name {name} --apply` writes it to {settings_file}")


@app.command()
def registry(wide: Wide = False, as_json: AsJson = False) -> None:
    """List the registered versions and their paired difference to the champion.

    Versions scored on other data, another protocol or another fold stand apart: they do not rank.

    Example:

        emseg registry
    """
    from emseg.reporting.terminal import print_table
    from emseg.tracking.registry import versions
    from emseg.tracking.standing import as_tables, standings
    from emseg.tracking.store import asking, connect

    client = connect()
    with asking("read the registry"):
        groups = standings(versions(client))
    if as_json:
        print(json.dumps(groups, indent=2))
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
    settings_file: Annotated[Path, typer.Option("--settings", help="Settings with the rule.")] = Path("params.yaml"),
    as_json: AsJson = False,
) -> None:
    """Judge a version by the rule in params.yaml and, if it holds, make it champion. Exit code 1 if it does not.

    Examples:

        emseg promote --dry-run

        emseg promote 7 --force "the champion was trained on mislabelled sections"
    """
    from dataclasses import asdict

    from emseg.settings import load_settings
    from emseg.tracking.promotion import promote as judge_and_promote
    from emseg.tracking.store import connect

    if force is not None and not force.strip():
        raise InputError("--force needs a reason, which is recorded with the version")
    rule = load_settings(settings_file).promotion
    decision = judge_and_promote(connect(), rule, version, dry_run, force)
    if as_json:
        print(json.dumps(asdict(decision), indent=2))
    else:
        for condition in decision.conditions:
            print(f"{'yes' if condition.is_met else 'NO ':3}  {condition.name}: {condition.evidence}")
        becomes = "would become champion" if dry_run else "is champion"
        verdict = becomes if decision.promoted else "is not promoted"
        reason = f", by force: {decision.reason}" if decision.reason else ""
        before = f"version {decision.champion_before}" if decision.champion_before else "none"
        print(f"version {decision.version} {verdict}{reason}; champion before: {before}")
        if not decision.promoted:
            print(f"the limits are under promotion in {settings_file}; --force REASON promotes all the same")
    if not decision.promoted:
        raise typer.Exit(1)


@app.command()
def rollback(as_json: AsJson = False) -> None:
    """Make the champion before this one champion again; as often as there is history.

    Example:

        emseg rollback
    """
    from dataclasses import asdict

    from emseg.tracking.promotion import rollback as roll_back
    from emseg.tracking.store import connect

    decision = roll_back(connect())
    if as_json:
        print(json.dumps(asdict(decision), indent=2))
    else:
        print(f"version {decision.champion_after} is champion again; version {decision.champion_before} is not")


@app.command()
def lineage(
    model: Annotated[str, typer.Argument(help="models:/emseg-membrane@champion, or /NUMBER.")],
    settings: Annotated[Path | None, typer.Option(help="Write the run's params.yaml here instead.")] = None,
    as_json: AsJson = False,
) -> None:
    """Walk from a version to its run, commit, data and settings, and print the commands that make it again.

    Example:

        emseg lineage models:/emseg-membrane@champion
    """
    from emseg.tracking.provenance import lineage as find_lineage
    from emseg.tracking.provenance import write_settings
    from emseg.tracking.store import connect

    client = connect()
    if settings:
        write_settings(client, model, settings)
        print(f"{settings} holds the settings of {model}")
        return
    found = find_lineage(client, model)
    if as_json:
        print(json.dumps(found, indent=2))
        return
    data = found["data"]
    print(f"version     {found['version']}  {' '.join(found['aliases'])}")
    print(f"run         {found['run']['name']}  {found['run']['id']}")
    print(f"commit      {found['commit']}{'  with uncommitted changes' if found['uncommitted_changes'] else ''}")
    print(f"data        {data['name']}  digest {data['digest']}, augmented {data['augmented_digest']}")
    for path, md5 in data["dvc"].items():
        print(f"            {path}  {md5} (DVC)")
    print(f"protocol    {found['protocol']}")
    print(f"device      {found['device']}, torch {found['packages']['torch']}")
    print(f"weights     sha256 {found['weights_sha256']}")
    print("\nIn a clean clone, on the same kind of machine:\n")
    for command in found["commands"]:
        print(f"    {command}")


@app.command()
def predict(
    inputs: Annotated[list[Path], typer.Argument(help="TIFF stacks, folders of sections, images or Zarr arrays.")],
    output: Annotated[Path, typer.Argument(help="Result; for several inputs the folder that gets them.")],
    model: Annotated[str, typer.Option(help="Registry URI, MLflow run id or run folder.")] = (
        "models:/emseg-membrane@champion"
    ),
    kind: Annotated[str, typer.Option(help="probability, mask or cells.")] = "probability",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace results that exist.")] = False,
) -> None:
    """Segment sections with the champion. The same command goes on where a killed one stopped.

    The result is like the input: same axes, resolution and, unless it would change results, compression. Masks and
    cells are told apart as the model was scored. --overwrite replaces a folder only if it holds nothing but results.

    Examples:

        emseg predict cortex.tif cortex-probability.tif

        emseg predict cortex.zarr cells.zarr --kind cells --model runs/single/unet2-fold0-seed0

        emseg predict a.tif b.tif results/ --kind mask
    """
    from emseg.inference.segmenter import OUTPUTS
    from emseg.inference.volume import segment_file, targets_of
    from emseg.tracking.models import load_segmenter

    if kind not in OUTPUTS:
        raise InputError(f"--kind is one of {', '.join(OUTPUTS)}, not {kind}")
    targets = targets_of(inputs, output, overwrite)
    segmenter = load_segmenter(model)
    for source, target in zip(inputs, targets, strict=True):
        with _section_bar(source.name) as report:
            segment_file(segmenter, source, target, kind, overwrite, report, _warn)  # type: ignore[arg-type]
        print(f"{target}: {kind} by {segmenter.name}")


@app.command()
def serve(
    port: Annotated[int, typer.Option(help="Port.")] = 5110,
    host: Annotated[str, typer.Option(help="Address to bind to; loopback alone unless told otherwise.")] = "127.0.0.1",
    largest_megapixels: Annotated[float, typer.Option(help="Larger sections are refused.")] = 64.0,
    timeout: Annotated[float, typer.Option(help="Seconds before a request is given up.")] = 60.0,
) -> None:
    """Serve the champion over HTTP; a promotion is taken up without a dropped request.

    POST /segment takes the bytes of a TIFF or PNG and answers with those of the mask, probability or cells.

    Example:

        emseg serve & curl --data-binary @section.tif 'http://127.0.0.1:5110/segment?kind=mask' > mask.tif
    """
    from emseg.tracking.serving import run_server

    run_server(host, port, largest_megapixels, timeout)


@app.command()
def ui(port: Annotated[int, typer.Option(help="Port on loopback.")] = 5000) -> None:
    """Open the MLflow UI on the store, and print where the runs are.

    Example:

        emseg ui --port 5001
    """
    from emseg.tracking.ui import serve_ui

    raise typer.Exit(serve_ui(port))


def _warn(sentence: str) -> None:
    print(f"emseg: {sentence}", file=sys.stderr)


@contextmanager
def _section_bar(name: str) -> Iterator[Progress]:
    from rich.console import Console
    from rich.progress import MofNCompleteColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    console = Console(file=sys.stderr)
    bar = Bar(
        *Bar.get_default_columns()[:2],
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=console,
        disable=not console.is_terminal,
    )
    task = bar.add_task(name, total=None)
    with bar:
        yield lambda done, total: bar.update(task, completed=done, total=total)


@contextmanager
def _download_bar() -> Iterator[Progress]:
    from rich.console import Console
    from rich.progress import DownloadColumn, TransferSpeedColumn
    from rich.progress import Progress as Bar

    columns = (*Bar.get_default_columns(), DownloadColumn(), TransferSpeedColumn())
    bar = Bar(*columns, console=Console(file=sys.stderr))
    task = bar.add_task("download", total=None)

    def show(done: int, total: int) -> None:
        bar.start()
        bar.update(task, completed=done, total=total)

    try:
        yield show
    finally:
        if bar.live.is_started:
            bar.stop()


if __name__ == "__main__":
    main()
