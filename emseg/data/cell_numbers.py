"""Cells by number: parts that lie apart in a section, numbers of any size, and membranes between cells that touch."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

LARGEST_NUMBER = 2**32 - 1


def parts_of(numbers: np.ndarray) -> tuple[np.ndarray, int]:
    """4-connected parts of equal numbers in a section (Y, X): int32 from 1, 0 where numbers are 0; and how many."""
    height, width = numbers.shape
    # Pixels at even places, and between two of them whether they belong together.
    grid = np.zeros((2 * height - 1, 2 * width - 1), bool)
    inside = numbers != 0
    grid[::2, ::2] = inside
    grid[1::2, ::2] = (numbers[1:] == numbers[:-1]) & inside[1:]
    grid[::2, 1::2] = (numbers[:, 1:] == numbers[:, :-1]) & inside[:, 1:]
    parts, count = ndimage.label(grid)
    return parts[::2, ::2].astype(np.int32), int(count)


def number_parts(numbers: np.ndarray) -> tuple[np.ndarray, int]:
    """Cells of a stack such that each is in one piece in its section.

    The largest piece of a cell in a section keeps its number, every other gets a new one: a section on its own cannot
    show that they are one cell.

    Args:
        numbers: non-negative integers (Z, Y, X), 0 on membrane. Those beyond 32 bits are all replaced by 1, 2 ...

    Returns:
        uint32 (Z, Y, X), and how many pieces got new numbers.
    """
    highest = int(numbers.max(initial=0))
    known: np.ndarray | None = None
    # The new numbers must fit, too; there are fewer pieces than pixels.
    if highest > LARGEST_NUMBER - numbers.size:
        known = np.unique(np.concatenate([np.unique(section) for section in numbers]))
        known = known[known > 0]
        highest = len(known)
    cells = np.zeros(numbers.shape, np.uint32)
    given = highest
    for cell, section in zip(cells, numbers, strict=True):
        parts, count = parts_of(section)
        if not count:
            continue
        sizes = np.bincount(parts.ravel(), minlength=count + 1)[1:]
        names = np.zeros(count + 1, section.dtype)
        names[parts.ravel()] = section.ravel()
        of_part = names[1:]
        # By name, the largest first; of each name the first keeps it.
        order = np.lexsort((-sizes, of_part))
        is_first = np.append(True, of_part[order][1:] != of_part[order][:-1])
        new = np.zeros(count + 1, np.uint32)
        kept = of_part[order[is_first]]
        new[1 + order[is_first]] = kept if known is None else np.searchsorted(known, kept) + 1
        apart = order[~is_first]
        new[1 + np.sort(apart)] = highest + 1 + np.arange(len(apart))
        highest += len(apart)
        cell[:] = new[parts]
    return cells, highest - given


def draw_membranes(cells: np.ndarray, width: int) -> tuple[np.ndarray, int]:
    """Interior of cells, with a membrane drawn where two of them touch.

    Of each of the two, `width` / 2 pixels become membrane, at least one. What is left of a cell too thin for that is
    its middle. Where membrane lies between cells nothing is drawn.

    Args:
        cells: by number (Z, Y, X), 0 on membrane.
        width: of the membrane, pixels.

    Returns:
        bool (Z, Y, X), and in how many sections cells touch.
    """
    interior = cells > 0
    touched = 0
    for inside, section in zip(interior, cells, strict=True):
        touching = touching_pixels(section)
        if not touching.any():
            continue
        touched += 1
        membrane = touching
        if width > 3:
            membrane = ndimage.distance_transform_edt(~touching) <= width // 2 - 1
        left = np.unique(section[inside & ~membrane])
        inside &= ~membrane
        too_thin, _ = parts_of(np.where(np.isin(section, left), 0, section))
        for part, box in enumerate(ndimage.find_objects(too_thin), start=1):
            depth = ndimage.distance_transform_edt(np.pad(too_thin[box] == part, 1))[1:-1, 1:-1]
            inside[box] |= depth == depth.max()
    return interior, touched


def touching_pixels(cells: np.ndarray) -> np.ndarray:
    """Pixels of a section (Y, X) that share an edge with a pixel of another cell, bool."""
    touching = np.zeros(cells.shape, bool)
    for first, second in ((np.s_[1:], np.s_[:-1]), (np.s_[:, 1:], np.s_[:, :-1])):
        meet = (cells[first] != cells[second]) & (cells[first] != 0) & (cells[second] != 0)
        touching[first] |= meet
        touching[second] |= meet
    return touching
