"""A contact sheet of labelled sections as they were read: thumbnails with their labels, and what was found."""

from __future__ import annotations

import base64
import html
import textwrap
from dataclasses import dataclass
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure, SubFigure
from matplotlib.patches import Patch

from emseg.data.check import Report
from emseg.data.labelled import Labelled
from emseg.data.labels import Labels
from emseg.data.normalization import Normalization
from emseg.files import write_text
from emseg.metrics.inputs import Truth
from emseg.reporting.figures import png_of, save_figure, show_picture
from emseg.reporting.section_pictures import HATCH, hatched, in_grey, outlines, sampled, shrunk
from emseg.text import plain

MOST_SECTIONS = 40
_COLUMNS, _SIDE, _INCHES = 5, 256, 2.5
_LINE, _LETTERS = 0.2, 145
"""Inches of a line of the header, and letters that go into it."""
_COVER = 0.3
"""How much of the image the colour of a cell covers."""
_GOLDEN = 0.618
"""Of the circle of hues, between cells that follow each other by number."""


@dataclass(frozen=True)
class _Stack:
    """A stack to show: what its sections are called, the images (Z, Y, X), and what the labels mean, where known."""

    name: str
    images: np.ndarray
    labels: Labels | None


def write_contact_sheet(path: Path, name: str, checked: dict[str, tuple[Labelled, Report]], report: Report) -> None:
    """Write a contact sheet as PNG, or as one HTML file that needs no other.

    Of many sections, `MOST_SECTIONS` are shown, at even distances. Labels that could not be read are not drawn.

    Args:
        path: of the file; .html gives HTML.
        name: of what is shown.
        checked: images and labels as they are in the files and the report on them, of each stack, by its name.
        report: on all of them.
    """
    stacks = []
    for call, (found, own) in checked.items():
        of_stack = f"{call}, " if len(checked) > 1 else ""
        stacks.append(_Stack(f"{of_stack}section", found.images, own.labels))
        if found.test_images is not None:
            stacks.append(_Stack(f"{of_stack}test section", found.test_images, own.test_labels))
    sections = [(stack, z) for stack in stacks for z in range(len(stack.images))]
    count = min(len(sections), MOST_SECTIONS)
    chosen = np.linspace(0, len(sections) - 1, count).round().astype(int)
    shown = f"{count} of {len(sections)} sections, at even distances" if count < len(sections) else "every section"
    if any(stack.labels is None for stack in stacks):
        shown += "; where labels are missing or could not be read, the image alone"
    rows = [("problem", problem) for problem in report.problems] + list(report.facts.items())
    rows += [("note", note) for note in report.notes] + [("shown", shown)]
    rows = [(plain(what), plain(text)) for what, text in rows]
    drawn = [sections[index] for index in chosen]
    if path.suffix.lower() == ".html":
        write_text(path, _page(plain(name), rows, png_of(_figure(drawn))))
    else:
        save_figure(_figure(drawn, plain(name), rows), path)


def _figure(drawn: list[tuple[_Stack, int]], name: str = "", rows: list[tuple[str, str]] | None = None) -> Figure:
    """Sections as thumbnails, under a header of what was found where `rows` are given."""
    lines = [line for what, text in rows or [] for line in _header_lines(what, text)]
    count = -(-len(drawn) // _COLUMNS)
    tallest = max(stack.images.shape[1] / stack.images.shape[2] for stack, _ in drawn)
    height, header = count * (_INCHES * tallest + 0.3) + 0.4, _LINE * len(lines) + 0.6 * bool(lines)
    figure = Figure(figsize=(_INCHES * _COLUMNS, height + header), layout="constrained")
    body: Figure | SubFigure = figure
    if lines:
        top, body = figure.subfigures(2, 1, height_ratios=[header, height], squeeze=False).ravel()
        top.text(0.01, 1 - 0.1 / header, name, fontsize=13, va="top", weight="bold", parse_math=False)
        for index, (line, colour) in enumerate(lines):
            at = 1 - (0.45 + index * _LINE) / header
            top.text(0.01, at, line, fontsize=9, va="top", color=colour, parse_math=False)
    for index, (stack, z) in enumerate(drawn):
        show_picture(body.add_subplot(count, _COLUMNS, index + 1), _picture(stack, z), f"{stack.name} {z}")
    patches = [
        Patch(facecolor="0.6", edgecolor="0.15", label="membrane: no colour"),
        Patch(facecolor=(0.5, 0.7, 0.6), label="cells: a colour and an outline each"),
    ]
    if any(stack.labels is not None and stack.labels.ignore is not None for stack, _ in drawn):
        patches.append(Patch(facecolor=HATCH, hatch="///", label="hatched: neither trains nor scores"))
    body.legend(handles=patches, loc="outside lower left", ncols=3, frameon=False, fontsize=9)
    return figure


def _header_lines(what: str, text: str) -> list[tuple[str, str]]:
    """What was found in lines, each with its colour."""
    lines = textwrap.wrap(f"{what}: {text}", _LETTERS, subsequent_indent="    ")
    return [(line, "tab:red" if what == "problem" else "0.15") for line in lines]


def _picture(stack: _Stack, z: int) -> np.ndarray:
    """RGB (Y, X, 3) of a section: its image, its cells coloured and outlined, and what is ignored hatched."""
    image = stack.images[z].astype(np.uint8) * 255 if stack.images.dtype == bool else stack.images[z]
    picture = in_grey(shrunk(Normalization.of(image).grey(image), _SIDE))
    labels = stack.labels
    if labels is None:
        return picture
    interior = labels.interior[z]
    # A cell by number keeps its colour from section to section.
    cells = Truth(interior).segments()[0] if labels.cells is None else np.where(interior, labels.cells[z], 0)
    small = sampled(cells, _SIDE)
    colours = mpl.colormaps["hsv"](small * _GOLDEN % 1)[..., :3]
    inside = small > 0
    border = inside & shrunk(outlines(cells), _SIDE)
    for pixels, cover in ((inside, _COVER), (border, 2 * _COVER)):
        picture[pixels] = (1 - cover) * picture[pixels] + cover * colours[pixels]
    if labels.ignore is not None:
        picture[hatched(shrunk(labels.ignore[z], _SIDE))] = HATCH
    return picture


def _page(name: str, rows: list[tuple[str, str]], picture: bytes) -> str:
    """An HTML page with what was found as a table, and the picture in it."""
    table = "\n".join(
        f"<tr{' class=problem' * (what == 'problem')}><th>{html.escape(what)}</th><td>{html.escape(text)}</td></tr>"
        for what, text in rows
    )
    title = html.escape(name)
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<title>{title}</title>
<style>
body {{ font: 15px/1.4 sans-serif; margin: 2em; color: #222; }}
th {{ text-align: left; vertical-align: top; padding-right: 1.5em; white-space: nowrap; }}
.problem {{ color: #c00; }}
img {{ max-width: 100%; }}
</style>
</head>
<body>
<h1>{title}</h1>
<table>
{table}
</table>
<p><img alt="sections with their labels" src="data:image/png;base64,{base64.b64encode(picture).decode()}"></p>
</body>
</html>
"""
