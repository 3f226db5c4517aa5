"""Sections whose label changed: the outlines of cells before and after, over the image."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from emseg.data.difference import Pair
from emseg.data.normalization import Normalization
from emseg.reporting.difference import section_name
from emseg.reporting.figures import show_picture
from emseg.reporting.section_pictures import HATCH, hatched, in_grey, outlines, shrunk

MOST_SECTIONS = 12
_COLUMNS, _SIDE = 3, 480
_MARGIN, _SMALLEST = 24, 160
"""Pixels around what changed, and of the side of a picture at least."""
_BEFORE, _AFTER = (1.0, 0.5, 0.0), (0.1, 0.75, 1.0)
_LAYERS = {
    "became cell (orange veil)": (_BEFORE, 0.35),
    "became membrane (blue veil)": (_AFTER, 0.35),
    "outline in both": ((1.0, 1.0, 1.0), 0.45),
    "outline before alone": (_BEFORE, 1.0),
    "outline after alone": (_AFTER, 1.0),
    "ignored in both": ((0.6, 0.6, 0.6), 1.0),
    "ignored now": (HATCH, 1.0),
    "no longer ignored": ((0.9, 0.35, 0.9), 1.0),
}
"""What is drawn, each over those before it: its colour and how much it covers."""


def difference_figure(pairs: list[Pair]) -> Figure:
    """The sections that changed most, the most changed first, each cut out around what changed in it.

    Args:
        pairs: sections whose label changed.
    """
    shown = sorted(pairs, key=lambda pair: -_pixels(pair))[:MOST_SECTIONS]
    columns = min(_COLUMNS, len(shown))
    rows = -(-len(shown) // columns)
    figure = Figure(figsize=(max(4.4 * columns, 7), 4.9 * rows + 0.9), layout="constrained")
    more = f" (the {len(shown)} of {len(pairs)} that changed most)" if len(pairs) > len(shown) else ""
    figure.suptitle(f"sections whose label changed{more}", fontsize=11)
    there: set[str] = set()
    for index, pair in enumerate(shown):
        box = _box(pair)
        masks = {name: shrunk(mask[box], _SIDE) for name, mask in _masks(pair).items()}
        picture = in_grey(shrunk(Normalization.of(pair.after.image).grey(pair.after.image)[box], _SIDE))
        for name, (colour, cover) in _LAYERS.items():
            mask = hatched(masks[name]) if "ignored" in name else masks[name]
            picture[mask] = (1 - cover) * picture[mask] + cover * np.array(colour)
            there |= {name} if mask.any() else set()
        show_picture(figure.add_subplot(rows, columns, index + 1), picture, _title(pair, box))
    patches = [
        Patch(facecolor=(*colour, cover), edgecolor="0.3", label=name)
        for name, (colour, cover) in _LAYERS.items()
        if name in there
    ]
    figure.legend(handles=patches, loc="outside lower center", ncols=3, frameon=False, fontsize=9)
    return figure


def _masks(pair: Pair) -> dict[str, np.ndarray]:
    before, after = pair.before, pair.after
    old, new = outlines(before.segments()), outlines(after.segments())
    return {
        "became cell (orange veil)": (before.interior == 0) & (after.interior == 1),
        "became membrane (blue veil)": (before.interior == 1) & (after.interior == 0),
        "outline in both": old & new,
        "outline before alone": old & ~new,
        "outline after alone": new & ~old,
        "ignored in both": before.ignore & after.ignore,
        "ignored now": after.ignore & ~before.ignore,
        "no longer ignored": before.ignore & ~after.ignore,
    }


def _pixels(pair: Pair) -> int:
    return pair.change.pixels + pair.change.ignored + pair.change.counted


def _title(pair: Pair, box: tuple[slice, slice]) -> str:
    was = "" if pair.before.place == pair.after.place else f" (was {section_name(pair.before.place)})"
    cells = {name: getattr(pair.change, name) for name in ("split", "merged", "new", "gone", "redrawn")}
    counts = [f"{count} {name}" for name, count in cells.items() if count]
    said = f"cells: {', '.join(counts)}" if counts else "no cell differs"
    rows, columns = box
    where = f"x {columns.start} to {columns.stop - 1}, y {rows.start} to {rows.stop - 1}"
    return f"section {section_name(pair.after.place)}{was}: {_pixels(pair)} pixels, {where}\n{said}"


def _box(pair: Pair) -> tuple[slice, slice]:
    """Rows and columns around what changed, a square where there is room."""
    before, after = pair.before, pair.after
    changed = (before.interior != after.interior) | (before.ignore != after.ignore)
    if not changed.any():
        # Cells by number can change where no membrane does.
        changed = np.ones_like(changed)
    rows, columns = (np.flatnonzero(changed.any(axis=axis)) for axis in (1, 0))
    side = max(_SMALLEST, int(np.ptp(rows)) + 2 * _MARGIN, int(np.ptp(columns)) + 2 * _MARGIN)
    return _around(rows, side, changed.shape[0]), _around(columns, side, changed.shape[1])


def _around(changed: np.ndarray, side: int, whole: int) -> slice:
    start = max(0, min(int(changed[0] + changed[-1] + 1 - side) // 2, whole - side))
    return slice(start, min(whole, start + side))
