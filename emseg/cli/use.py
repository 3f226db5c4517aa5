"""The champion at work, here and elsewhere, and the pages of MLflow."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from emseg.cli.app import Task, app, warn
from emseg.errors import InputError

if TYPE_CHECKING:
    from emseg.data.datasets.download import Progress


@app.command()
def predict(
    inputs: Annotated[list[Path], typer.Argument(help="TIFF stacks, folders of sections, images or Zarr arrays.")],
    output: Annotated[Path, typer.Argument(help="Result; for several inputs the folder that gets them.")],
    model: Annotated[
        str | None,
        typer.Option(
            help="models:/TASK@champion, models:/TASK/NUMBER, MLflow run id, run folder or exported folder; "
            "default: the champion."
        ),
    ] = None,
    task: Task = None,
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
    from emseg.registry.load import load_segmenter
    from emseg.segmentation.segmenter import OUTPUTS
    from emseg.segmentation.volume import segment_file, targets_of

    if kind not in OUTPUTS:
        raise InputError(f"--kind is one of {', '.join(OUTPUTS)}, not {kind}")
    targets = targets_of(inputs, output, overwrite)
    segmenter = load_segmenter(model, task)
    for source, target in zip(inputs, targets, strict=True):
        with _section_bar(source.name) as report:
            segment_file(segmenter, source, target, kind, overwrite, report, warn)  # type: ignore[arg-type]
        print(f"{target}: {kind} by {segmenter.name}")


@app.command()
def export(
    model: Annotated[
        str, typer.Argument(help="models:/TASK@champion, or models:/TASK/NUMBER; a run folder; or an exported folder.")
    ],
    to: Annotated[str, typer.Option(help="folder, onnx or bioimageio.")] = "folder",
    out: Annotated[Path | None, typer.Option(help="Where to; default: by the model's name in exports.")] = None,
    licence: Annotated[
        str | None, typer.Option(help="Of the BioImage.IO package, SPDX; default: that of the data.")
    ] = None,
    author: Annotated[
        list[str] | None, typer.Option(help="Of the BioImage.IO package, may be repeated; default: git's user.")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an export that exists.")] = False,
) -> None:
    """Take a model elsewhere: as a folder for emseg, as an ONNX file, or as a BioImage.IO package.

    Each is checked before it is there: the folder's files by digest, the others against what emseg predicts.
    --overwrite replaces a folder only if it holds nothing but an exported model.

    Examples:

        emseg export models:/isbi2012@champion --out champion

        emseg export runs/single/unet2-fold0-seed0 --to onnx --out unet2.onnx

        emseg export champion --to bioimageio --licence CC-BY-4.0 --author "Ada Lovelace"
    """
    from emseg.registry.export.write import write_export

    written = write_export(model, to, out, licence, author or [], overwrite)
    same = "" if written.difference is None else f", within {written.difference:.1g} of what emseg predicts"
    print(f"{written.path}: {written.name}, digest {written.digest[:12]}{same}")
    if written.needs:
        warn(written.needs)


@app.command()
def serve(
    port: Annotated[int, typer.Option(help="Port.")] = 5110,
    host: Annotated[str, typer.Option(help="Address to bind to; loopback alone unless told otherwise.")] = "127.0.0.1",
    largest_megapixels: Annotated[float, typer.Option(help="Larger sections are refused.")] = 64.0,
    timeout: Annotated[float, typer.Option(help="Seconds before a request is given up.", min=1)] = 60.0,
    token: Annotated[
        str | None, typer.Option(envvar="EMSEG_SERVE_TOKEN", help="Asked of every client; best set in the environment.")
    ] = None,
    task: Task = None,
) -> None:
    """Serve the champion over HTTP; a promotion is taken up without a dropped request.

    POST /segment takes the bytes of a TIFF or PNG and answers with those of the mask, probability or cells; GET
    /metrics is for Prometheus. Addresses are served in turn, and each has eight requests at once at most.

    Examples:

        emseg serve & curl --data-binary @section.tif 'http://127.0.0.1:5110/segment?kind=mask' > mask.tif

        EMSEG_SERVE_TOKEN=open-sesame emseg serve --host 0.0.0.0
    """
    from emseg.registry.serve import run_server

    if token is not None and not token.strip():
        raise InputError("the token is empty; give one, or none")
    if token is None and host not in ("127.0.0.1", "localhost", "::1"):
        warn(f"whoever reaches {host}:{port} can use this server; a token keeps others out (EMSEG_SERVE_TOKEN)")
    run_server(host, port, largest_megapixels, timeout, token, task)


@app.command()
def ui(port: Annotated[int, typer.Option(help="Port on loopback.")] = 5000) -> None:
    """Open the MLflow UI on the store, and print where the runs are.

    Example:

        emseg ui --port 5001
    """
    from emseg.tracking.ui import serve_ui

    raise typer.Exit(serve_ui(port))


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
