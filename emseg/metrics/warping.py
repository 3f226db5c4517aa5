"""Warping error: how much of the disagreement no shift of borders explains.

Jain et al. 2010 (CVPR, "Boundary learning by optimization with topological constraints"). The label is warped
towards the proposal by flipping simple points, pixels whose flip changes no topology; what then still
disagrees is an error of topology. Cells are 4-connected, membranes 8-connected.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from emseg.metrics.inputs import Truth, binarise, prepare

# Neighbours in a circle, from the upper left: (row, column).
_RING = ((-1, -1), (-1, 0), (-1, 1), (0, 1), (1, 1), (1, 0), (1, -1), (0, -1))


@dataclass(frozen=True)
class WarpingError:
    """Warping error of a stack.

    Attributes:
        value: share of pixels that disagree after warping, mean over sections; in [0, 1], lower is better.
        per_section: value of each section, float64 (Z,).
        splits: groups of such pixels that cut a cell apart.
        merges: groups that join cells.
        false_positives: cells, and islands of membrane within cells, that the proposal adds.
        false_negatives: cells, and islands of membrane within cells, that the proposal lacks.
    """

    value: float
    per_section: np.ndarray
    splits: int
    merges: int
    false_positives: int
    false_negatives: int


def warping_error(
    probability: np.ndarray,
    label: np.ndarray,
    threshold: float = 0.5,
    *,
    cells: bool = False,
    ignore: np.ndarray | None = None,
) -> WarpingError:
    """Pixel disagreement after a topology-preserving warp of the label towards the proposal.

    The warp flips simple points greedily until none that disagrees is left, which is how the challenge computed
    it; the true minimum over all warps is at most this. The order is fixed: pixels farthest inside the
    disagreement come last, ties by position.

    Args:
        probability: of interior; one section (Y, X) or a stack (Z, Y, X); float in [0, 1] or bool.
        label: same shape; bool, {0, 1} or {0, 255}.
        threshold: interior is probability > threshold.
        cells: whether `label` holds cells by number, 0 on membrane. It is their mask that is warped, so cells that
            touch are one: draw membranes between them first.
        ignore: same shape, bool. There the proposal is taken to be as labelled: these pixels take part in topology but
            never flip, and the share is of the others.

    Raises:
        ValueError: bad input as for the pixel metrics.

    >>> label = np.array([[0, 0, 0, 0, 0], [0, 1, 1, 1, 0], [0, 0, 0, 0, 0]])
    >>> shifted = np.array([[0, 0, 0, 0, 0], [0, 0, 1, 1, 0], [0, 0, 0, 0, 0]], bool)
    >>> warping_error(shifted, label).value
    0.0
    >>> cut = np.array([[0, 0, 0, 0, 0], [0, 1, 0, 1, 0], [0, 0, 0, 0, 0]], bool)
    >>> warping_error(cut, label).splits
    1
    """
    sections, truths = prepare(probability, label, cells, ignore)
    values, counts = [], np.zeros(4, int)
    for section, truth in zip(sections, truths, strict=True):
        value, groups = section_warping_error(binarise(section, threshold), truth)
        values.append(value)
        counts += groups
    per_section = np.array(values)
    return WarpingError(float(per_section.mean()), per_section, *map(int, counts))


def section_warping_error(predicted: np.ndarray, truth: Truth) -> tuple[float, np.ndarray]:
    """The value of `warping_error` of one bool section, and how many splits, merges, false positives and negatives."""
    proposal = truth.filled(predicted)
    warped = warp_label(truth.interior, proposal)
    return np.count_nonzero(warped != proposal) / truth.pixels, _classify(warped, proposal)


def warp_label(label: np.ndarray, proposal: np.ndarray) -> np.ndarray:
    """The bool section `label` (Y, X) warped towards `proposal` by flipping simple points where they disagree.

    The result has the topology of `label`: as many cells and membranes, nested in the same way.
    """
    # What lies outside counts as membrane: it takes part in topology but never flips.
    warped, wanted = np.pad(label, 1), np.pad(proposal, 1)
    disagreement = warped != wanted
    depth = ndimage.distance_transform_cdt(disagreement, "taxicab")
    offsets = [row * warped.shape[1] + column for row, column in _RING]
    positions = np.flatnonzero(disagreement)
    pixels, target = bytearray(warped.tobytes()), wanted.tobytes()
    queue = deque(positions[np.lexsort((positions, depth.ravel()[positions]))].tolist())
    while queue:
        position = queue.popleft()
        if pixels[position] == target[position] or not _IS_SIMPLE[_ring_code(pixels, position, offsets)]:
            continue
        pixels[position] = target[position]
        # Only a flip next door can make a pixel simple.
        queue.extend(position + offset for offset in offsets if pixels[position + offset] != target[position + offset])
    return np.frombuffer(bytes(pixels), bool).reshape(warped.shape)[1:-1, 1:-1]


def _classify(warped: np.ndarray, proposal: np.ndarray) -> np.ndarray:
    """Groups of pixels that still disagree: splits, merges, false positives, false negatives."""
    around, wanted = np.pad(warped, 1), np.pad(proposal, 1)
    cells = ndimage.label(around)[0]
    membranes = ndimage.label(~around, np.ones((3, 3)))[0]
    kinds = np.zeros(around.shape, np.uint8)
    for row, column in zip(*np.nonzero(around != wanted), strict=True):
        beside = {int(cells[row + y, column + x]) for y, x in _RING[1::2]} - {0}
        borders = {int(membranes[row + y, column + x]) for y, x in _RING} - {0}
        if around[row, column]:
            # Flipping to membrane: the cell vanishes, falls apart, gets a hole, or a hole in it opens.
            kinds[row, column] = 4 if not beside or len(borders) > 1 else 1 if borders else 3
        else:
            # Flipping to interior: a new cell, two cells joined, a ring closed, or membrane filled.
            kinds[row, column] = 3 if not beside else 2 if len(beside) > 1 else 3 if borders else 4
    return np.array([ndimage.label(kinds == kind, np.ones((3, 3)))[1] for kind in (1, 2, 3, 4)])


def _ring_code(pixels: bytearray, position: int, offsets: list[int]) -> int:
    code = 0
    for bit, offset in enumerate(offsets):
        code |= pixels[position + offset] << bit
    return code


def _is_simple(code: int) -> bool:
    """Whether a pixel with these eight neighbours can flip without changing topology.

    That is so if exactly one 4-connected group of interior touches it along an edge, and exactly one 8-connected
    group of membrane touches it at all (Kong and Rosenfeld 1989).
    """
    interior = [bool(code >> bit & 1) for bit in range(8)]
    cells = _groups([bit for bit in range(8) if interior[bit]], (1,))
    membranes = _groups([bit for bit in range(8) if not interior[bit]], (1, 2))
    return sum(any(bit % 2 for bit in group) for group in cells) == 1 and len(membranes) == 1


def _groups(bits: list[int], reach: tuple[int, ...]) -> list[set[int]]:
    """Connected groups of ring positions; `reach` 2 joins edge neighbours across a corner, too."""
    groups: list[set[int]] = []
    for bit in bits:
        linked = {(bit + sign * step) % 8 for step in reach if step == 1 or bit % 2 for sign in (1, -1)}
        touching = [group for group in groups if group & linked]
        groups = [group for group in groups if not group & linked] + [{bit}.union(*touching)]
    return groups


_IS_SIMPLE = [_is_simple(code) for code in range(256)]
