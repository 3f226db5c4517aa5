"""Labelled sections: bring them in, check them."""

from __future__ import annotations

import json
import sys
import textwrap
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from emseg.cli.app import AsJson, data_app, require_suffix, warn
from emseg.text import plain

if TYPE_CHECKING:
    from emseg.data.datasets.card import Provenance
    from emseg.data.datasets.download import Progress
    from emseg.data.incoming import Given
    from emseg.data.labels import LabelReading

_WIDTH = 80


@data_app.command("list")
def data_list(as_json: AsJson = False) -> None:
    """What can be brought in by name, on which terms, and what is in data/sources already.

    Example:

        emseg data list
    """
    from emseg.data.datasets.listing import listed_datasets

    datasets = listed_datasets()
    if as_json:
        print(json.dumps(datasets, indent=2))
        return
    for dataset in datasets:
        here = [name for name, is_here in dataset["sources"].items() if is_here]
        print(f"{dataset['name']:<{_WIDTH - 30}}{_aligned(here, dataset['sources'])}".rstrip())
        for name, text in _told(dataset):
            print(textwrap.fill(f"{name}: {text}" if name else text, _WIDTH, **_INDENT))
        print()


_INDENT: Any = {"initial_indent": "    ", "subsequent_indent": "        ", "break_on_hyphens": False}


def _aligned(here: list[str], sources: dict[str, bool]) -> str:
    shown = "not here" if not here else "here" if len(sources) == 1 else f"here: {', '.join(here)}"
    return shown.rjust(30)


def _told(dataset: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """What there is to say of a dataset: a heading, which may be empty, and a text."""
    what = [dataset["title"], dataset.get("specimen"), dataset.get("imaging")]
    yield "", ", ".join(part for part in what if part)
    sizes = [" x ".join(map(str, size)) for size in dataset["sizes"]]
    if sizes:
        yield "sections", ", ".join(f"{sizes.count(size)} of {size}" if len(sizes) > 1 else size for size in set(sizes))
    if voxel := dataset.get("voxel_size_nm"):
        yield "voxel", " x ".join(f"{side:g}" for side in voxel) + " nm (z, y, x)"
    yield "licence", dataset.get("licence", "unknown")
    cite = [each["text"] + (f", doi:{each['doi']}" if "doi" in each else "") for each in dataset.get("citations", [])]
    yield "cite", "; ".join(cite) or f"unknown; see {dataset['homepage']}" if "homepage" in dataset else "unknown"
    yield from (("note", remark) for remark in dataset["remarks"])


Membrane = Annotated[
    Literal["white", "black"] | None, typer.Option(help="How membranes look in the labels, where it is unclear.")
]
MembraneValues = Annotated[
    str | None, typer.Option(help="Values of the labels that are membrane, such as 0,64; all others are cells.")
]
NumberedCells = Annotated[bool, typer.Option("--cells", help="The labels number the cells; 0 is membrane.")]
MembraneWidth = Annotated[
    str | None, typer.Option(help="Of the membrane drawn where numbered cells touch: pixels, or such as 10nm.")
]
IgnoreValue = Annotated[int | None, typer.Option(help="Pixels of this value neither train nor score.")]
IgnoreBorders = Annotated[bool, typer.Option("--ignore-borders", help="Neither do blank borders of the images.")]
Images = Annotated[str | None, typer.Option(help="Which file or folder holds the images.")]
LabelsAt = Annotated[str | None, typer.Option("--labels", help="Which one holds the labels.")]


@data_app.command("add")
def data_add(
    name: Annotated[
        str | None, typer.Argument(help="Of a dataset (emseg data list), or a name for your own sections.")
    ] = None,
    origin: Annotated[
        Path | None, typer.Option("--from", help="Folder with images and labels, or a dataset's archive or HDF5 file.")
    ] = None,
    sample: Annotated[str | None, typer.Option(help="Which stack of a dataset that has several.")] = None,
    card_file: Annotated[Path | None, typer.Option("--card", help="Your own card of a dataset.")] = None,
    images: Images = None,
    labels: LabelsAt = None,
    membrane: Membrane = None,
    membrane_values: MembraneValues = None,
    cells: NumberedCells = False,
    membrane_width: MembraneWidth = None,
    ignore_value: IgnoreValue = None,
    ignore_borders: IgnoreBorders = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace other sections of that name.")] = False,
    append: Annotated[bool, typer.Option("--append", help="Add the sections to those of that name.")] = False,
    continues: Annotated[
        bool, typer.Option("--continues", help="Appended sections follow the last one there along z.")
    ] = False,
) -> None:
    """Bring in sections with labels, checked, into data/sources/NAME, with a card that says what they are.

    A folder holds images and labels, each as a stack (TIFF, HDF5, Zarr, MRC, NRRD, NumPy) or as a folder of single
    TIFF or PNG files; or it holds such a folder for each of several stacks. Labels are masks of membrane or of cells,
    or they number the cells. How they were read is said. A test stack is test-volume with test-labels. A card.yaml says
    what is known: title, licence, citations, voxel_size_nm.

    Examples:

        emseg data add isbi2012                       download the challenge's archive

        emseg data add isbi2012 --from ~/isbi2012     take a local copy

        emseg data add cremi --sample A               one of several stacks

        emseg data add cortex --from ~/cortex         your own sections

        emseg data add axons --from ~/axons --membrane white

        emseg data add cortex --from ~/cortex2 --append    more sections for it, as a stack of their own

        emseg data add --card ours.yaml               from the address in your own card
    """
    from emseg.data.adding import add_source
    from emseg.data.datasets.card import CARD_FILE, read_card
    from emseg.data.datasets.known import name_of_sample
    from emseg.data.incoming import Given
    from emseg.errors import InputError

    reading = _reading(membrane, membrane_values, cells, membrane_width, ignore_value, ignore_borders)
    if append:
        if name is None or origin is None or sample or card_file or overwrite:
            raise InputError(
                "--append adds sections of a folder to a source: emseg data add NAME --from FOLDER --append, without "
                "--sample, --card and --overwrite"
            )
        _append(name, origin, Given(None, reading, images, labels), continues)
        return
    if continues:
        raise InputError("--continues says where appended sections lie; give --append with it")
    card = read_card(card_file) if card_file else None
    if card and name:
        card = card.model_copy(update={"name": name})
    name = card.name if card else name
    if name is None:
        raise InputError("say which sections: a name of `emseg data list`, a name for your own, or --card FILE")
    name = name_of_sample(name, sample, card)
    given = Given(card, reading, images, labels)
    with _download_bar() as progress:
        folder = add_source(name, origin, progress=progress, warn=warn, overwrite=overwrite, given=given)
    print_terms(read_card(folder / CARD_FILE))
    print(f"{folder} is ready; `emseg set data.source={name}` makes a project train on it")


def _append(name: str, origin: Path, given: Given, continues: bool) -> None:
    from emseg.data.adding import append_sections

    before, after = append_sections(name, origin, warn=warn, continues=continues, given=given)
    added = len(after.images) - len(before.images)
    stacks = ", ".join(f"{stack} ({length})" for stack, length in after.stacks.items()) or "one"
    print(f"{name}: {len(after.images)} sections, {added} of them new")
    print(f"stacks: {stacks}")
    print(f"digest: {after.digest}, before {before.digest}")
    print("runs of before stay as they are and do not compare; `dvc repro` trains on all sections")


def _reading(
    membrane: str | None, values: str | None, cells: bool, width: str | None, ignore_value: int | None, borders: bool
) -> LabelReading | None:
    """How the options say that labels are to be read; None: they say nothing."""
    from emseg.data.labels import LabelReading
    from emseg.settings.base import validated

    said: dict[str, Any] = {"membrane": membrane} if membrane else {}
    if values is not None:
        said |= {
            "kind": "classes",
            "membrane_values": tuple(_number(value, "--membrane-values") for value in values.split(",")),
        }
    if cells:
        said["kind"] = "cells"
    if width is not None:
        unit = "nm" if width.endswith("nm") else "pixels"
        said |= {
            "membrane_width": float(_number(width.removesuffix("nm"), "--membrane-width", float)),
            "membrane_width_unit": unit,
        }
    if ignore_value is not None:
        said["ignore_value"] = ignore_value
    if borders:
        said["ignore_borders"] = True
    return validated(LabelReading, said, "labels: ") if said else None


def _number(text: str, option: str, kind: Callable[[str], float] = int) -> Any:
    from emseg.errors import InputError

    try:
        return kind(text.strip())
    except ValueError:
        raise InputError(f"{option}: {plain(text)} is no number; expected one such as 64") from None


def print_terms(known: Provenance) -> None:
    """Say what sections are, and on which terms they may be used."""
    print(plain(known.title))
    print(f"licence: {plain(known.licence or 'unknown')}")
    for citation in known.citations:
        print(f"cite: {plain(citation)}")
    if known.voxel_size_note:
        print(f"voxel: {plain(known.voxel_size_note)}")


@data_app.command("check")
def data_check(
    folder: Annotated[Path, typer.Argument(help="Folder with images and labels.")],
    images: Images = None,
    labels: LabelsAt = None,
    membrane: Membrane = None,
    membrane_values: MembraneValues = None,
    cells: NumberedCells = False,
    membrane_width: MembraneWidth = None,
    ignore_value: IgnoreValue = None,
    ignore_borders: IgnoreBorders = False,
    sheet: Annotated[
        Path | None, typer.Option(help="Draw the sections with their labels as they were read: FILE.png or FILE.html.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Report what is in a folder of labelled sections, how it is read, and what is wrong. Exit code 2 if anything is.

    Sections are read as `emseg data add` reads them, with the same options.

    Examples:

        emseg data check ~/cortex

        emseg data check ~/cortex --sheet cortex.html
    """
    from emseg.data.incoming import check_folder

    if sheet is not None:
        require_suffix(sheet, ".png", ".html")
    reading = _reading(membrane, membrane_values, cells, membrane_width, ignore_value, ignore_borders)
    incoming, report = check_folder(folder, reading, images, labels, warn)
    if sheet is not None:
        from emseg.reporting.contact_sheet import write_contact_sheet

        write_contact_sheet(sheet, str(folder), incoming.checked, report)
    if as_json:
        print(json.dumps({"facts": report.facts, "notes": report.notes, "problems": report.problems}, indent=2))
    else:
        for name, fact in report.facts.items():
            print(f"{name}: {fact}")
        for note in report.notes:
            print(note)
    for problem in report.problems:
        print(f"problem: {problem}", file=sys.stderr)
    if report.problems:
        raise typer.Exit(2)
    if not as_json:
        print("no problems found")


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
