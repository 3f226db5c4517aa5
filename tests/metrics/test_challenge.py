import doctest

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import ndimage
from skimage.segmentation import watershed

import emseg.metrics.challenge
import emseg.metrics.segments
from emseg.data.synthetic import make_synthetic
from emseg.metrics import adapted_rand_error, cross_fitted, thin_borders, v_info, v_rand, variation_of_information
from emseg.metrics.challenge import ChallengeSweep, compare_segments

segmentations = st.tuples(
    arrays(np.int64, (4, 5), elements=st.integers(0, 4)), arrays(np.int64, (4, 5), elements=st.integers(0, 4))
).filter(lambda pair: (pair[1] > 0).any())


def by_pixel_pairs(proposal, truth):
    """Split, merge and F of V_rand from the definition over all ordered pairs of pixels, a pixel with itself too."""
    pixels = list(zip(proposal[truth > 0].tolist(), truth[truth > 0].tolist(), range(truth.size), strict=False))
    both = same_proposal = same_truth = 0
    for s1, t1, i in pixels:
        for s2, t2, j in pixels:
            together = i == j or (s1 == s2 and s1 != 0)
            both += together and t1 == t2
            same_proposal += together
            same_truth += t1 == t2
    split, merge = both / same_truth, both / same_proposal
    return split, merge, 2 * split * merge / (split + merge)


def entropies(proposal, truth):
    """H(S), H(T), I(S;T) from explicit distributions, each pixel of thinned border a segment of its own."""
    inside = truth > 0
    s = proposal[inside].astype(object)
    s[s == 0] = [f"alone {k}" for k in range(int((s == 0).sum()))]
    t = truth[inside]

    def entropy(items):
        shares = np.array([items.count(item) for item in set(items)]) / len(items)
        return float(-(shares * np.log(shares)).sum())

    h_s, h_t, joint = entropy(list(s)), entropy(list(t)), entropy(list(zip(s, t, strict=True)))
    return h_s, h_t, h_s + h_t - joint


@settings(deadline=None)
@given(segmentations)
def test_against_every_pair_of_pixels(pair):
    found = compare_segments(*pair)
    split, merge, value = by_pixel_pairs(*pair)
    assert (found.rand_split, found.rand_merge, found.rand) == pytest.approx((split, merge, value))


@settings(deadline=None)
@given(segmentations)
def test_information_against_explicit_distributions(pair):
    found = compare_segments(*pair)
    h_s, h_t, information = entropies(*pair)
    assert found.info == pytest.approx(2 * information / (h_s + h_t) if h_s + h_t > 1e-9 else 1, abs=1e-9)
    if h_s > 1e-9:
        assert found.info_split == pytest.approx(information / h_s, abs=1e-9)
    if h_t > 1e-9:
        assert found.info_merge == pytest.approx(information / h_t, abs=1e-9)


@given(segmentations, st.permutations(range(1, 5)))
def test_names_of_segments_mean_nothing(pair, order):
    names = np.array([0, *order])
    assert compare_segments(names[pair[0]], names[pair[1]]) == pytest.approx(compare_segments(*pair))


@given(arrays(np.int64, (4, 5), elements=st.integers(1, 4)), arrays(np.int64, (4, 5), elements=st.integers(1, 4)))
def test_split_and_merge_change_places_with_the_arguments(first, second):
    there, back = compare_segments(first, second), compare_segments(second, first)
    assert there.rand == pytest.approx(back.rand)
    assert there.info == pytest.approx(back.info)
    assert (there.rand_split, there.info_split) == pytest.approx((back.rand_merge, back.info_merge))


@given(segmentations)
def test_bounds_and_perfection(pair):
    assert all(0 <= value <= 1 + 1e-12 for value in compare_segments(*pair))
    assert compare_segments(pair[1], pair[1]) == pytest.approx([1] * 6)


def cells(random, shape=(24, 30)):
    """A label of packed cells with membranes of one or two pixels."""
    markers = np.zeros(shape, int)
    seeds = random.permutation(shape[0] * shape[1])[:9]
    markers.flat[seeds] = np.arange(1, 10)
    label = watershed(random.random(shape), markers, watershed_line=True) > 0
    return label & ~ndimage.binary_dilation(~label & (random.random(shape) < 0.3))


@given(segmentations, st.integers(1, 3))
def test_turning_mirroring_and_transposing_change_nothing(pair, turns):
    plain = compare_segments(*pair)
    turned = [np.rot90(array, turns) for array in pair]
    assert compare_segments(*turned) == pytest.approx(plain)
    assert compare_segments(*(array.T for array in pair)) == pytest.approx(plain)
    assert compare_segments(*(array[:, ::-1] for array in pair)) == pytest.approx(plain)


@pytest.mark.parametrize("metric", [v_rand, v_info])
def test_turning_a_section_moves_its_score_by_ties_alone(metric):
    label = make_synthetic(1, 128, 0)[1][0] > 0
    merged = ndimage.binary_dilation(label, iterations=1).astype(float)
    plain = metric(merged, label, 0.5).value
    for turns in (1, 2, 3):
        assert metric(np.rot90(merged, turns), np.rot90(label, turns), 0.5).value == pytest.approx(plain, abs=1e-2)


def touching(thinned):
    """Pairs of segments on either side of every pixel edge."""
    for first, second in ((thinned[1:], thinned[:-1]), (thinned[:, 1:], thinned[:, :-1])):
        yield from zip(first.ravel().tolist(), second.ravel().tolist(), strict=True)


@pytest.mark.parametrize("seed", range(5))
def test_thinning_leaves_borders_of_one_pixel(seed):
    random = np.random.default_rng(seed)
    binary = cells(random)
    thinned = thin_borders(binary)
    components, count = ndimage.label(binary)
    assert thinned.max() == count
    np.testing.assert_array_equal(thinned[binary], components[binary])
    assert all(a == b for a, b in touching(thinned) if a and b)
    framed = np.pad(thinned, 1)
    for row, column in zip(*np.nonzero(thinned == 0), strict=True):
        around = framed[[row, row + 1, row + 1, row + 2], [column + 1, column, column + 2, column + 1]]
        assert len(set(around.tolist()) - {0}) != 1


@pytest.mark.parametrize("seed", range(4))
def test_thinning_scores_as_the_watershed_does(seed):
    random = np.random.default_rng(seed)
    label = make_synthetic(1, 256, seed)[1][0] > 0
    truth = ndimage.label(label)[0]
    probability = ndimage.gaussian_filter(label + random.normal(0, 0.4, label.shape), 2)
    for threshold in (0.55, 0.65, 0.75):
        binary = probability > threshold
        flooded = watershed(~binary, ndimage.label(binary)[0], connectivity=1, watershed_line=True)
        found, expected = compare_segments(thin_borders(binary), truth), compare_segments(flooded, truth)
        np.testing.assert_allclose(found, expected, atol=2e-3)


def test_sweep_of_a_stack_agrees_with_the_watershed_closely():
    _, labels = make_synthetic(6, 256, 1)
    probability = ndimage.gaussian_filter(
        labels / 255 + np.random.default_rng(0).normal(0, 0.4, labels.shape), (0, 2, 2)
    )
    probability = np.clip(probability, 0, 1)
    score = v_rand(probability, labels)
    values = []
    for section, label in zip(probability > score.threshold, labels > 0, strict=True):
        flooded = watershed(~section, ndimage.label(section)[0], connectivity=1, watershed_line=True)
        values.append(compare_segments(flooded, ndimage.label(label)[0]).rand)
    assert score.value == pytest.approx(np.mean(values), abs=2e-4)


def test_thinning_of_nothing_and_of_everything():
    assert not thin_borders(np.zeros((4, 5), bool)).any()
    assert (thin_borders(np.ones((4, 5), bool)) == 1).all()
    np.testing.assert_array_equal(thin_borders(np.array([[0, 255, 0]])), thin_borders(np.array([[0, 1, 0]])))
    with pytest.raises(ValueError, match="one section"):
        thin_borders(np.zeros((2, 4, 5), bool))
    with pytest.raises(ValueError, match=r"\{0, 1\} or \{0, 255\}"):
        thin_borders(np.array([[0.3, 0.9]]))


def drawn(text):
    return np.array([[character == "#" for character in line] for line in text.split()])


LABEL = drawn("####.#### ####.#### ####.####")


def test_one_merge_by_hand():
    # Two cells of 12 pixels become one segment: sum p^2 = 1/2, s^2 = 1, t^2 = 1/2.
    merged = drawn("####.#### ######### ####.####").astype(float)
    score = v_rand(merged, LABEL, 0.5)
    assert (score.split, score.merge) == pytest.approx((1.0, 0.5))
    assert score.value == pytest.approx(2 / 3)
    assert v_info(merged, LABEL, 0.5).value == pytest.approx(0)


def test_one_split_by_hand():
    # The left cell of 12 is cut by a line of 3 singletons into 3 and 6.
    cut = drawn("#.##.#### #.##.#### #.##.####").astype(float)
    p2 = (3**2 + 6**2 + 12**2 + 3 * 1) / 24**2
    score = v_rand(cut, LABEL, 0.5)
    assert score.split == pytest.approx(p2 / (2 * 12**2 / 24**2))
    assert score.merge == pytest.approx(1.0)


def test_one_shifted_border_by_hand():
    # The border moved one pixel left: three pixels of the left cell are singletons, and three go to no cell.
    moved = drawn("###.##### ###.##### ###.#####").astype(float)
    p2 = s2 = (9**2 + 12**2 + 3) / 24**2
    score = v_rand(moved, LABEL, 0.5)
    assert score.split == pytest.approx(p2 / 0.5)
    assert score.merge == pytest.approx(p2 / s2)


def test_one_hole_by_hand():
    # A hole of membrane inside a cell is flooded by the thinning: no error.
    hole = drawn("####.#### #..#.#### ####.####").astype(float)
    assert v_rand(hole, LABEL, 0.5).value == pytest.approx(1.0)


def test_sweep_curve_and_honest_threshold():
    probability = np.where(LABEL, 0.9, 0.45)
    score = v_rand(probability, LABEL)
    assert score.is_oracle
    assert score.curve.shape == (11, 2)
    assert dict(score.curve)[0.4] == pytest.approx(2 / 3)
    assert dict(score.curve)[0.5] == 1.0
    assert (score.threshold, score.value) == (0.5, 1.0)
    honest = v_rand(probability, LABEL, 0.4)
    assert not honest.is_oracle
    assert honest.value == pytest.approx(2 / 3)
    # Nothing above 1.0: every pixel is a singleton.
    assert dict(score.curve)[1.0] == pytest.approx(2 * (1 / 24) * 1 / (1 / 24 + 0.5), rel=1)


def test_one_threshold_for_the_stack_and_streams():
    random = np.random.default_rng(0)
    label = np.stack([cells(random) for _ in range(4)])
    probability = np.clip(label * 0.6 + random.random(label.shape) * 0.4, 0, 1)
    sweep = ChallengeSweep()
    for section, truth in zip(probability, label, strict=True):
        sweep.add(section, truth)
    assert sweep.v_rand().value == v_rand(probability, label).value
    assert sweep.v_info().value == v_info(probability, label).value
    score = sweep.v_rand()
    single = [v_rand(p, t, score.threshold).value for p, t in zip(probability, label, strict=True)]
    np.testing.assert_allclose(score.per_section, single)
    assert score.value == pytest.approx(np.mean(single))
    free = np.mean([v_rand(p, t).value for p, t in zip(probability, label, strict=True)])
    assert free >= score.value


@pytest.mark.parametrize("metric", [v_rand, v_info])
def test_cross_fitted_scores_each_half_at_the_best_threshold_of_the_other(metric, stack):
    random = np.random.default_rng(0)
    labels = stack[1][:5]
    probability = np.clip(labels * 0.6 + random.random(labels.shape) * 0.4, 0, 1).astype(np.float32)
    even, odd = np.arange(0, 5, 2), np.arange(1, 5, 2)
    of_even = metric(probability[even], labels[even], metric(probability[odd], labels[odd]).threshold)
    of_odd = metric(probability[odd], labels[odd], metric(probability[even], labels[even]).threshold)
    expected = np.concatenate([of_even.per_section, of_odd.per_section]).mean()
    assert cross_fitted(probability, labels, metric.__name__) == pytest.approx(expected)
    single = metric(probability[:1], labels[:1])
    assert cross_fitted(probability[:1], labels[:1], metric.__name__) == pytest.approx(single.value)


def test_thicker_and_thinner_membranes_on_the_real_labels(isbi2012):
    cross = ndimage.generate_binary_structure(2, 1)
    for warp, options, rand, info, error in (
        (ndimage.binary_erosion, {"border_value": 1}, 0.9992, 0.9987, 0.0566),
        (ndimage.binary_dilation, {}, 0.9703, 0.9919, 0.0581),
    ):
        sweep = ChallengeSweep(0.5)
        wrong = 0.0
        for label in isbi2012.labels:
            proposal = warp(label, cross, **options)
            wrong += np.mean(proposal != label) / len(isbi2012.labels)
            sweep.add(proposal, label)
        assert wrong == pytest.approx(error, abs=5e-5)
        assert sweep.v_rand().value == pytest.approx(rand, abs=5e-4)
        assert sweep.v_info().value == pytest.approx(info, abs=5e-4)


BAD = {
    "8 bit": (np.full((4, 4), 255, np.uint8), np.ones((4, 4)), "divide 8-bit"),
    "NaN": (np.full((4, 4), np.nan), np.ones((4, 4)), "without NaN"),
    "no interior": (np.ones((4, 4)), np.zeros((4, 4)), "no cell interior"),
    "shapes": (np.ones((4, 4)), np.ones((4, 5)), "must agree"),
    "labels": (np.ones((4, 4)), np.full((4, 4), 7), "{0, 1} or {0, 255}"),
}


@pytest.mark.parametrize("metric", [v_rand, v_info, adapted_rand_error, variation_of_information])
@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_refused(metric, case):
    probability, label, message = BAD[case]
    with pytest.raises(ValueError, match=message):
        metric(probability, label)
    with pytest.raises(ValueError, match="thresholds"):
        v_rand(np.ones((4, 4)), np.ones((4, 4)), 1.5)


def test_a_section_of_one_cell_is_defined():
    label = np.ones((4, 4), bool)
    assert v_rand(label, label, 0.5).value == v_info(label, label, 0.5).value == 1
    assert adapted_rand_error(label, label) == 0
    assert variation_of_information(label, label) == (0, 0)


def snemi3d(segmentation, truth):
    """Adapted Rand error as the SNEMI3D script writes it, over a full contingency matrix."""
    a, b = truth.ravel(), segmentation.ravel()
    n = a.size
    p = np.zeros((a.max() + 1, b.max() + 1))
    for i, j in zip(a, b, strict=True):
        p[i, j] += 1
    rows, inner, alone = p[1:, :], p[1:, 1:], p[1:, 0].sum() / n
    pairs = (inner**2).sum() + alone
    precision, recall = pairs / ((inner.sum(axis=0) ** 2).sum() + alone), pairs / (rows.sum(axis=1) ** 2).sum()
    return 1 - 2 * precision * recall / (precision + recall)


@pytest.mark.parametrize("seed", range(5))
def test_adapted_rand_error_is_the_challenges(seed):
    random = np.random.default_rng(seed)
    label = cells(random)
    proposal = label ^ (random.random(label.shape) < 0.05)
    expected = snemi3d(ndimage.label(proposal)[0], ndimage.label(label)[0])
    assert adapted_rand_error(proposal, label) == pytest.approx(expected)
    assert adapted_rand_error(label, label) == 0


@pytest.mark.parametrize("seed", range(5))
def test_variation_of_information_by_counting(seed):
    random = np.random.default_rng(seed)
    label = cells(random, (8, 9))
    proposal = label ^ (random.random(label.shape) < 0.1)
    s, t = ndimage.label(proposal)[0][label], ndimage.label(label)[0][label]
    pairs = list(zip(s.tolist(), t.tolist(), strict=True))
    split = merge = 0.0
    for pair in set(pairs):
        share = pairs.count(pair) / len(pairs)
        split -= share * np.log(pairs.count(pair) / np.count_nonzero(t == pair[1]))
        merge -= share * np.log(pairs.count(pair) / np.count_nonzero(s == pair[0]))
    assert variation_of_information(proposal, label) == pytest.approx((split, merge))


@pytest.mark.parametrize("module", [emseg.metrics.challenge, emseg.metrics.segments])
def test_examples_in_docstrings(module):
    result = doctest.testmod(module, extraglobs={"np": np})
    assert result.attempted
    assert not result.failed


@pytest.mark.parametrize("kind", ["large, 16-bit probabilities", "2000 small sections", "no membrane", "all membrane"])
def test_unusual_stacks_score_or_are_refused(kind):
    random = np.random.default_rng(0)
    if kind == "large, 16-bit probabilities":
        label = make_synthetic(1, 512, 0)[1]
        label = np.tile(label, (2, 2, 2))
        probability = np.clip(label / 255 * 0.6 + random.random(label.shape) * 0.4, 0, 1).astype(np.float16)
        assert v_rand(probability, label, 0.5).per_section.shape == (2,)
        with pytest.raises(ValueError, match="expected float"):
            v_rand((probability.astype(np.float32) * 65535).astype(np.uint16), label)
    elif kind == "2000 small sections":
        label = np.tile(LABEL, (2000, 1, 1))
        assert v_rand(label.astype(np.float32), label).value == pytest.approx(1.0)
    elif kind == "no membrane":
        label = np.ones((2, 8, 9), bool)
        assert v_rand(label.astype(float), label, 0.5).value == 1
        assert v_rand(np.tile(LABEL, (2, 3, 1))[:, :8].astype(float), label, 0.5).value < 1
    else:
        with pytest.raises(ValueError, match="no cell interior"):
            v_rand(np.ones((2, 8, 9)), np.zeros((2, 8, 9)))
