import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import ndimage

from emseg.data import separation_distance, weight_map
from emseg.data.separation import separation_distances
from emseg.errors import InputError


def direct_distance(label):
    """One full-image distance transform per cell: the definition."""
    cells, count = ndimage.label(label)
    if count < 2:
        return None
    distances = np.sort([ndimage.distance_transform_edt(cells != cell) for cell in range(1, count + 1)], axis=0)
    return distances[0] + distances[1]


def direct_weight_map(label, w0, sigma):
    share = label.mean()
    return np.where(label, 1 - share, share) + w0 * np.exp(-(direct_distance(label) ** 2) / (2 * sigma**2))


@settings(deadline=None)
@given(arrays(bool, st.tuples(st.integers(3, 14), st.integers(3, 14))), st.floats(1, 30))
def test_equals_the_definition_up_to_the_limit(label, limit):
    found = separation_distance(label, limit)
    assert found.dtype == np.float32
    truth = direct_distance(label)
    expected = np.full(label.shape, limit) if truth is None else np.minimum(truth, limit)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("w0", "sigma"), [(10, 5), (2, 3), (25, 9), (0, 5)])
def test_weight_map_equals_the_direct_definition(stack, w0, sigma):
    label = stack[1][0] > 0
    np.testing.assert_allclose(weight_map(label, w0, sigma), direct_weight_map(label, w0, sigma), atol=1e-3)


def test_weight_map_on_a_real_section(isbi2012):
    label = isbi2012.labels[7]
    np.testing.assert_allclose(weight_map(label), direct_weight_map(label, 10, 5), atol=1e-3)


def test_by_hand():
    # Two cells, three membrane pixels between them: the middle one is 2 from each.
    label = np.array([[1, 0, 0, 0, 1]], bool)
    np.testing.assert_array_equal(separation_distance(label, 10), [[4, 4, 4, 4, 4]])
    weights = weight_map(label, w0=10, sigma=5)
    border = 10 * np.exp(-16 / 50)
    np.testing.assert_allclose(weights, [[0.6 + border, *[0.4 + border] * 3, 0.6 + border]], rtol=1e-6)


@settings(deadline=None)
@given(arrays(np.int64, (7, 8), elements=st.integers(0, 4)), st.floats(1, 30))
def test_cells_by_number_touching_or_in_parts(numbers, limit):
    wide = np.where(numbers, numbers.astype(np.uint64) + np.uint64(2**40), 0)
    found = separation_distance(wide, limit, cells=True)
    names = sorted(set(numbers.ravel().tolist()) - {0})
    expected = np.full(numbers.shape, limit)
    if len(names) > 1:
        distances = np.sort([ndimage.distance_transform_edt(numbers != name) for name in names], axis=0)
        expected = np.minimum(distances[0] + distances[1], limit)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


def test_separate_cells_are_as_far_apart_by_number_as_by_mask(stack):
    label = stack[1][0] > 0
    numbers = 7 * ndimage.label(label)[0]
    np.testing.assert_array_equal(separation_distance(numbers, 24, cells=True), separation_distance(label, 24))
    # Numbers count in the interior alone.
    stacked = separation_distances(label[None], np.where(label, numbers, 3)[None], 24)
    np.testing.assert_array_equal(stacked[0], separation_distance(label, 24))


def test_bad_input():
    with pytest.raises(InputError, match="non-negative integers"):
        separation_distance(np.array([[0, -1, 2]]), 10, cells=True)
    with pytest.raises(InputError, match="values 0, 1, 2"):
        separation_distance(np.array([[0, 1, 2]]), 10)
    with pytest.raises(ValueError, match="one section"):
        separation_distance(np.zeros((2, 3, 3)), 10)
    with pytest.raises(ValueError, match="sigma > 0"):
        weight_map(np.zeros((3, 3)), sigma=0)
