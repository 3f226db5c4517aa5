"""What label files mean: cell interior, cells by number, and pixels to ignore.

Masks of either polarity, cells by number, classes of which some are membrane: `read_meaning` turns each into `Labels`,
and says what it did.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
from pydantic import Field, model_validator

from emseg.data.cell_numbers import draw_membranes, number_parts, parts_of
from emseg.data.contrast import CLEAR_CONTRAST, blank_borders, contrasts, find_membrane
from emseg.errors import InputError
from emseg.settings.base import SettingsPart

LabelKind = Literal["interior", "cells", "classes"]
_MEMBRANE_WIDTH = 2
"""Pixels: one of each of two cells that touch."""
_RESERVED = 2**64 - 3
"""From here on CREMI's tools keep numbers of 64 bits for background."""
_MOST_PARTS = 2.0
"""Per cell and section, on average; classes and grey levels lie in many more."""
_LOOKED_AT = 5
"""Sections that are looked at to find out whether numbers are of cells."""


class LabelReading(SettingsPart):
    """How labels are to be read; what is None is found out, or refused where it is unclear."""

    kind: LabelKind | None = None
    """Interior: two values. Cells: a number for each, 0 on membrane. Classes: `membrane_values` tell the membrane."""
    membrane: Literal["white", "black"] | None = None
    """Of two values, whether the higher one is membrane (white) or the lower one (black), in the label file."""
    membrane_values: Annotated[tuple[int, ...], Field(strict=False)] = ()
    """The values that are membrane; all others are cell interior."""
    ignore_value: int | None = None
    """Pixels of this value neither train nor score."""
    ignore_borders: bool = False
    """Whether exactly black or white borders of the images, as alignment leaves them, neither train nor score."""
    membrane_width: float | None = Field(default=None, gt=0)
    """Of the membrane that is drawn where two cells touch; None: 2 pixels."""
    membrane_width_unit: Literal["pixels", "nm"] = "pixels"
    pixel_nm: float | None = Field(default=None, gt=0)
    """Side of a pixel in nm, where it is known."""

    @model_validator(mode="after")
    def _options_go_together(self) -> LabelReading:
        if self.membrane_values and (self.membrane or self.kind in ("interior", "cells")):
            raise ValueError("membrane_values are of classes: without membrane, and with no other kind than classes")
        if self.kind == "classes" and not self.membrane_values:
            raise ValueError("classes need membrane_values, such as 0,64")
        if self.kind == "cells" and self.membrane:
            raise ValueError("membrane is of two values, not of cells by number, whose membrane is 0")
        return self

    @property
    def width_in_pixels(self) -> int:
        """Of a membrane that is drawn: even, the half of it of either cell.

        Raises:
            InputError: it is said in nm, and the size of a pixel is not known.
        """
        if self.membrane_width is None:
            return _MEMBRANE_WIDTH
        if self.membrane_width_unit == "pixels":
            return 2 * max(1, int(self.membrane_width / 2))
        if self.pixel_nm is None:
            raise InputError(
                "the width of the membrane is given in nm, but neither files nor card say the size of a pixel; "
                "give it in pixels, or write voxel_size_nm into card.yaml"
            )
        return 2 * max(1, int(self.membrane_width / self.pixel_nm / 2))


@dataclass(frozen=True)
class Labels:
    """Labels that say what they mean.

    Attributes:
        interior: of cells, bool (Z, Y, X); False where a value of the labels is to be ignored.
        cells: uint32 (Z, Y, X), the number of each cell, 0 on membrane, each in one piece in its section; also where a
            membrane was drawn. None where labels are masks.
        ignore: bool (Z, Y, X), True where pixels neither train nor score; None: all of them do.
        membrane_width: pixels, of what was drawn between cells that touch; None: nothing was.
    """

    interior: np.ndarray
    cells: np.ndarray | None = None
    ignore: np.ndarray | None = None
    membrane_width: int | None = None


def read_meaning(
    labels: np.ndarray,
    images: np.ndarray,
    reading: LabelReading | None = None,
    ignore: np.ndarray | None = None,
    name: str = "labels",
) -> tuple[Labels, list[str]]:
    """Turn labels as they are in a file into what they mean.

    Args:
        labels: (Z, Y, X), bool, integers, or whole numbers of a floating type.
        images: (Z, Y, X), which tell which of two values is membrane.
        reading: what is known of the labels.
        ignore: (Z, Y, X), a mask that is not 0 where pixels neither train nor score.
        name: of the labels, in sentences.

    Returns:
        What the labels mean, and sentences that say what was done; none where a mask is 0 on membrane and 1 or 255 in
        cells, and membranes are darker.

    Raises:
        InputError: labels that do not fit the images, or whose meaning is unclear; the sentence names the option.
    """
    reading = reading or LabelReading()
    labels = _whole_numbers(np.asarray(labels), name)
    if labels.shape != images.shape or labels.ndim != 3 or not labels.size:
        raise InputError(f"{name} have shape {labels.shape} but images {images.shape}; they must agree")
    borders = blank_borders(images)
    left_out, notes = _ignored(labels, borders, reading, ignore, name)
    unlabelled = None if reading.ignore_value is None else labels == reading.ignore_value
    values = _values(labels if unlabelled is None else labels[~unlabelled][None, None])
    cells, width = None, None
    kind = reading.kind or _find_kind(labels, unlabelled, values, reading, name)
    if kind == "cells":
        cells, interior, width, said = _cells(labels, unlabelled, reading, name)
    elif kind == "classes":
        interior, said = _classes(labels, values, reading, name)
    else:
        counted = ~borders if left_out is None else ~(borders | left_out)
        interior, said = _mask(labels, values, images, counted, reading, name)
    if unlabelled is not None:
        interior = interior & ~unlabelled
    return Labels(interior, cells, left_out, width), notes + said


def as_interior(label: np.ndarray, name: str = "label") -> np.ndarray:
    """Cell interior as bool, same shape, from bool, {0, 1} or {0, 255} labels of any dtype.

    Raises:
        InputError: a value is neither, or the array is not numeric.
    """
    label = np.asarray(label)
    if label.dtype == bool:
        return label
    if label.dtype.kind not in "uif":
        raise InputError(f"{name} has dtype {label.dtype}; expected bool, {{0, 1}} or {{0, 255}}")
    values = np.unique(label)
    if not (set(values.tolist()) <= {0, 1} or set(values.tolist()) <= {0, 255}):
        raise InputError(
            f"{name} has values {_shown(values)}; expected 0 for membrane and 1 or 255 for cell interior, nothing else"
        )
    return label > 0


def _whole_numbers(labels: np.ndarray, name: str) -> np.ndarray:
    if labels.dtype == bool:
        return labels.astype(np.uint8)
    if labels.dtype.kind in "ui":
        return labels
    if labels.dtype.kind == "f" and np.isfinite(labels).all() and (labels == np.rint(labels)).all():
        return labels.astype(np.int64)
    raise InputError(f"{name} are {labels.dtype} and not whole numbers; expected a mask, cells by number or classes")


def _ignored(
    labels: np.ndarray, borders: np.ndarray, reading: LabelReading, ignore: np.ndarray | None, name: str
) -> tuple[np.ndarray | None, list[str]]:
    """What neither trains nor scores, bool (Z, Y, X) or None, and what there is to say of it."""
    left_out, notes = np.zeros(labels.shape, bool), []
    if reading.ignore_value is not None:
        left_out |= labels == reading.ignore_value
        share = f"{left_out.mean():.1%} of the pixels" if left_out.any() else "no pixel"
        notes.append(f"{name}: {reading.ignore_value} means not labelled; {share} neither train nor score")
    if ignore is not None:
        if ignore.shape != labels.shape:
            raise InputError(f"the mask of what to ignore has shape {ignore.shape} but {name} {labels.shape}")
        left_out |= ignore != 0
        notes.append(f"{name}: by a mask, {np.mean(ignore != 0):.1%} of the pixels neither train nor score")
    if borders.any():
        where = f"{int(borders.any(axis=(1, 2)).sum())} of {len(labels)} images"
        extent = f"{where} have a black or white border ({borders.mean():.1%} of all pixels)"
        if reading.ignore_borders:
            left_out |= borders
            notes.append(f"{extent}, which neither trains nor scores")
        else:
            notes.append(f"{extent}, which trains and scores as it is labelled; --ignore-borders leaves it out")
    if (whole := np.flatnonzero(left_out.all(axis=(1, 2)))).size:
        raise InputError(f"{name}: every pixel of section {whole[0]} is to be ignored; leave the section out")
    return (left_out if left_out.any() else None), notes


def _values(labels: np.ndarray) -> np.ndarray:
    return np.unique(np.concatenate([np.unique(section) for section in labels]))


def _find_kind(
    labels: np.ndarray, unlabelled: np.ndarray | None, values: np.ndarray, reading: LabelReading, name: str
) -> LabelKind:
    if reading.membrane_values:
        return "classes"
    if len(values) <= 2:
        return "interior"
    looked_at = labels[:: -(-len(labels) // _LOOKED_AT)]
    if unlabelled is not None:
        looked_at = np.where(unlabelled[:: -(-len(labels) // _LOOKED_AT)], 0, looked_at)
    numbers = sum(np.count_nonzero(np.unique(section)) for section in looked_at)
    parts = sum(parts_of(section)[1] for section in looked_at)
    if not reading.membrane and np.count_nonzero(values) > 2 and parts <= _MOST_PARTS * numbers:
        return "cells"
    raise InputError(
        f"{name} have values {_shown(values)}, and what {len(values)} values mean is unclear: say --membrane-values "
        "0,64 for classes of which these are membrane, --ignore-value VALUE for what is not labelled, --cells for a "
        "number per cell; a mask has two values"
    )


def _mask(
    labels: np.ndarray,
    values: np.ndarray,
    images: np.ndarray,
    counted: np.ndarray,
    reading: LabelReading,
    name: str,
) -> tuple[np.ndarray, list[str]]:
    if len(values) != 2:
        what = f"the value {_shown(values)} alone" if len(values) < 2 else f"{len(values)} values, {_shown(values)}"
        raise InputError(
            f"{name} have {what}; a mask of cell interior has two (--cells for a number per cell, "
            "--membrane-values for classes, --ignore-value VALUE for what is not labelled)"
        )
    low, high = values.tolist()
    white = labels == high
    own = contrasts(images, white, counted=counted)[:, 0]
    contrast = 0.0 if np.isnan(own).all() else float(np.nanmean(own))
    membrane = reading.membrane or find_membrane(white, counted, contrast)
    measured = (
        f"in the images {low} is {abs(contrast):.2f} standard deviations {'darker' if contrast < 0 else 'brighter'}"
    )
    if membrane is None:
        raise InputError(
            f"{name} have the values {low} and {high}, and it is unclear which is membrane: neither is clearly both "
            f"thinner and darker ({measured}); say --membrane white if {high} is membrane, --membrane black if {low} is"
        )
    is_bright = contrast * (-1 if membrane == "white" else 1) > CLEAR_CONTRAST
    if membrane == "black" and not is_bright and (low, high) in ((0, 1), (0, 255)):
        return white, []
    value, other = (high, low) if membrane == "white" else (low, high)
    why = f"as --membrane {membrane} says" if reading.membrane else f"as its {'width' if is_bright else 'look'} shows"
    note = f"{name}: {value} is membrane and {other} is cell interior, {why}; {measured}"
    if is_bright:
        note += ", so membranes are brighter than cells, as in some stains"
    if not reading.membrane:
        note += f"; --membrane {'black' if membrane == 'white' else 'white'} reads it the other way round"
    return white if membrane == "black" else ~white, [note]


def _classes(labels: np.ndarray, values: np.ndarray, reading: LabelReading, name: str) -> tuple[np.ndarray, list[str]]:
    membrane = sorted(set(reading.membrane_values))
    there = np.isin(values, membrane)
    if not there.any() or there.all():
        part = "none" if not there.any() else "all"
        raise InputError(
            f"{name} have the values {_shown(values)}, and {part} of them is in --membrane-values "
            f"{','.join(map(str, membrane))}; name those that are membrane"
        )
    said = [
        f"{_shown(part)} {'is' if len(part) == 1 else 'are'} {what}"
        for part, what in ((values[there], "membrane"), (values[~there], "cell interior"))
    ]
    return ~np.isin(labels, membrane), [f"{name}: {', '.join(said)}"]


def _cells(
    labels: np.ndarray, unlabelled: np.ndarray | None, reading: LabelReading, name: str
) -> tuple[np.ndarray, np.ndarray, int | None, list[str]]:
    numbers = labels if unlabelled is None else np.where(unlabelled, labels.dtype.type(0), labels)
    zero = ", 0 is membrane" if reading.ignore_value != 0 and not numbers.all() else ""
    notes = [f"{name}: every number is a cell{zero}"]
    if numbers.min() < 0:
        raise InputError(
            f"{name} have the number {numbers.min()}; cells are numbered from 1, and 0 is membrane: say "
            f"--ignore-value {numbers.min()} if it means not labelled"
        )
    if numbers.dtype == np.uint64 and numbers.max() >= _RESERVED:
        notes.append(f"{name}: {numbers.max()} is a reserved number and read as membrane")
        numbers = np.where(numbers >= _RESERVED, np.uint64(0), numbers)
    if not numbers.any():
        raise InputError(f"{name} have no cell: every pixel is 0 or to be ignored")
    cells, apart = number_parts(numbers)
    if apart:
        notes.append(
            f"{name}: {apart} parts of cells lie apart from the rest in their section; each is a cell of its own there"
        )
    width = reading.width_in_pixels
    interior, touched = draw_membranes(cells, width)
    if not touched:
        return cells, interior, None, notes
    nm = f" ({width * reading.pixel_nm:g} nm)" if reading.pixel_nm else ""
    notes.append(
        f"{name}: cells touch in {touched} of {len(cells)} sections; a membrane of {width} pixels{nm} is drawn "
        "between them, which pixel metrics depend on"
    )
    return cells, interior, width, notes


def _shown(values: np.ndarray) -> str:
    return ", ".join(f"{value}" for value in values[:6].tolist()) + (", ..." if len(values) > 6 else "")
