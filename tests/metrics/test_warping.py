import doctest

import numpy as np
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import ndimage

import emseg.metrics.warping
from emseg.metrics.warping import warp_label, warping_error

EIGHT = np.ones((3, 3))


def topology(section):
    """Cells (4-connected) and membranes (8-connected) of a section in a frame of membrane, by scipy alone."""
    framed = np.pad(section, 1)
    return ndimage.label(framed)[1], ndimage.label(~framed, EIGHT)[1]


def is_simple(section, row, column):
    """By definition on a small neighbourhood: flipping keeps the number of cells and membranes in it."""
    patch = np.pad(section, 1)[row : row + 3, column : column + 3].copy()
    ring = patch.copy()
    ring[1, 1] = False
    labels = ndimage.label(ring)[0]
    edge_cells = {labels[0, 1], labels[1, 0], labels[1, 2], labels[2, 1]} - {0}
    membrane = ~patch
    membrane[1, 1] = False
    any_membranes = ndimage.label(membrane, EIGHT)[1]
    return len(edge_cells) == 1 and any_membranes == 1


def exhaustive(label, proposal):
    """Least disagreement over every order of simple flips where the two disagree."""
    seen, frontier = {label.tobytes()}, [label]
    best = label.size
    while frontier:
        section = frontier.pop()
        differing = list(zip(*np.nonzero(section != proposal), strict=True))
        best = min(best, len(differing))
        for row, column in differing:
            if is_simple(section, row, column):
                flipped = section.copy()
                flipped[row, column] ^= True
                if flipped.tobytes() not in seen:
                    seen.add(flipped.tobytes())
                    frontier.append(flipped)
    return best


tiny = st.tuples(arrays(bool, (3, 4)), arrays(bool, (3, 4)))


@settings(max_examples=60, deadline=None, phases=[Phase.explicit, Phase.generate])
@given(tiny)
def test_never_below_the_exhaustive_minimum(pair):
    label, proposal = pair
    assert exhaustive(label, proposal) <= warping_error(proposal, label).value * label.size + 1e-9


def test_equals_exhaustive_search_nearly_always():
    random = np.random.default_rng(0)
    agree = 0
    for _ in range(120):
        label = random.random((4, 4)) < 0.7
        proposal = label ^ (random.random((4, 4)) < 0.3)
        agree += round(warping_error(proposal, label).value * 16) == exhaustive(label, proposal)
    assert agree >= 114


@settings(max_examples=100, deadline=None)
@given(arrays(bool, (9, 11)), arrays(bool, (9, 11)))
def test_the_warp_keeps_topology_and_goes_only_towards_the_proposal(label, proposal):
    warped = warp_label(label, proposal)
    assert topology(warped) == topology(label)
    assert not ((warped != label) & (warped != proposal)).any()
    assert 0 <= warping_error(proposal, label).value <= np.mean(label != proposal)


@given(arrays(bool, (5, 6)))
def test_perfect_is_zero(label):
    error = warping_error(label, label)
    assert (error.value, error.splits, error.merges) == (0, 0, 0)


def drawn(text):
    return np.array([[character == "#" for character in line] for line in text.split()])


TWO_CELLS = drawn(".......... .####.###. .####.###. .####.###. ..........")


@pytest.mark.parametrize(
    ("name", "proposal", "pixels", "counts"),
    [
        # A border that moved by one pixel is no error.
        ("shifted border", drawn(".......... .###.####. .###.####. .###.####. .........."), 0, (0, 0, 0, 0)),
        # One gap in the membrane joins the cells: one pixel closes it.
        ("merge", drawn(".......... .####.###. .########. .####.###. .........."), 1, (0, 1, 0, 0)),
        # One line through a cell; the warp follows it but for one pixel, which keeps the cell whole.
        ("split", drawn(".......... .##.#.###. .##.#.###. .##.#.###. .........."), 1, (1, 0, 0, 0)),
        # A cell that is not there shrinks to one pixel.
        ("missing cell", drawn(".......... .####..... .####..... .####..... .........."), 1, (0, 0, 0, 1)),
        # Membrane inside a cell.
        ("hole", drawn(".......... .####.###. .####.#.#. .####.###. .........."), 1, (0, 0, 1, 0)),
    ],
)
def test_by_hand(name, proposal, pixels, counts):
    error = warping_error(proposal, TWO_CELLS)
    assert error.value == pytest.approx(pixels / TWO_CELLS.size)
    assert (error.splits, error.merges, error.false_positives, error.false_negatives) == counts


def test_a_new_cell_counts_once():
    label = drawn("....... ....... .......")
    error = warping_error(drawn("....... ..###.. ......."), label)
    assert (error.false_positives, error.splits, error.merges, error.false_negatives) == (1, 0, 0, 0)


def test_stack_is_the_mean_of_its_sections():
    random = np.random.default_rng(1)
    label, proposal = random.random((3, 20, 20)) < 0.8, random.random((3, 20, 20))
    stack = warping_error(proposal, label)
    single = [warping_error(p, t).value for p, t in zip(proposal, label, strict=True)]
    np.testing.assert_allclose(stack.per_section, single)
    assert stack.value == pytest.approx(np.mean(single))


def test_border_taste_costs_nothing_on_the_real_labels(isbi2012):
    cross = ndimage.generate_binary_structure(2, 1)
    label = isbi2012.labels[5]
    thicker = ndimage.binary_erosion(label, cross, border_value=1)
    assert np.mean(thicker != label) > 0.04
    # What remains is thin cells that a pixel of membrane on either side cuts or removes.
    assert warping_error(thicker, label).value < 0.003


def test_examples_in_docstrings():
    result = doctest.testmod(emseg.metrics.warping, extraglobs={"np": np})
    assert result.attempted
    assert not result.failed
