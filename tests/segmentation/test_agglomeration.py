"""Agglomeration: the merge levels against brute force, the rule against another library, the cells against labels."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from imperfect import imperfect_probability
from scipy import ndimage
from skimage.segmentation import watershed
from sklearn.linear_model import LogisticRegression

from emseg.data import make_synthetic
from emseg.metrics import v_info, v_rand
from emseg.records.calibration import MergeRules
from emseg.segmentation.agglomeration import (
    MERGE_THRESHOLD,
    Agglomeration,
    ClosedStack,
    LogisticRule,
    MergeRound,
    learn_agglomeration,
)
from emseg.segmentation.regions import FEATURES, Regions, find_borders, find_regions, flood


def round_of(feature: str, down_to: float = MERGE_THRESHOLD) -> MergeRound:
    """Judges by the sigmoid of one feature."""
    weights = [float(name == feature) for name in FEATURES]
    return MergeRound(down_to, LogisticRule([0.0] * len(weights), [1.0] * len(weights), weights, 0.0), None)


def three_cells() -> np.ndarray:
    """Three cells in a row, sure inside, with 0.7 on the border between the first two and 0.2 on the other."""
    probability = np.full((8, 23), 0.99, np.float32)
    probability[:, 7] = 0.7
    probability[:, 15] = 0.2
    return probability


def random_probability(seed: int) -> np.ndarray:
    random = np.random.default_rng(seed)
    smooth = ndimage.gaussian_filter(random.normal(size=(40, 40)), 2.5)
    return ndimage.gaussian_filter(1 / (1 + np.exp(-40 * np.abs(smooth) + 2)), 0.5).astype(np.float32)


def test_a_border_is_as_likely_as_its_rule_says():
    regions = find_regions(three_cells())
    assert regions.count == 3
    closed = round_of("mean probability").close(regions, find_borders(regions))
    # The mean over the border is of its darker pixels, and the logistic function undoes the logit.
    assert closed[:, 7] == pytest.approx(0.7, abs=1e-6)
    assert closed[:, 15] == pytest.approx(0.2, abs=1e-6)
    assert (np.delete(closed, [7, 15], axis=1) == 1).all()
    assert [ndimage.label(closed > threshold)[1] for threshold in (0.1, 0.5, 0.8)] == [1, 2, 3]


def test_features_are_measured_on_the_border_and_its_two_regions():
    probability = three_cells()
    probability[0, 15] = 0.4
    probability[:4, 16:] = 0.9
    labels = np.repeat([1, 2, 3], [8, 8, 7]).astype(np.int32)
    first, second = find_borders(Regions(probability, np.tile(labels, (8, 1)), 3)).features
    sure, faint, dark, less_dark, less_sure = (np.log(p / (1 - p)) for p in (0.99, 0.7, 0.2, 0.4, 0.9))
    middle = (56 * sure + 7 * dark + less_dark) / 64
    np.testing.assert_allclose(
        first, [*[faint] * 5, np.log(8), np.log(57), np.log(65), middle, (56 * sure + 8 * faint) / 64], rtol=1e-5
    )
    mean = np.log(1.8 / 6.2)
    np.testing.assert_allclose(
        second,
        [mean, dark, dark, dark, less_dark, np.log(8), np.log(57), np.log(57), (sure + less_sure) / 2, middle],
        rtol=1e-5,
    )


def test_a_rule_of_another_version_is_refused():
    rules = Agglomeration((round_of("length"),)).as_rules()
    with pytest.raises(ValueError, match="judges borders otherwise"):
        Agglomeration.from_rules(rules.model_copy(update={"features": rules.features[1:]}))


@pytest.mark.parametrize("odd", [float("nan"), float("inf"), "text", None, [1]])
@pytest.mark.parametrize("key", ["weights", "mean", "scale", "bias", "down_to"])
def test_an_agglomeration_with_odd_numbers_is_refused(key, odd):
    values = Agglomeration((round_of("length"),)).as_rules().model_dump()
    step = values["rounds"][0]
    if key in ("bias", "down_to"):
        (step if key == "down_to" else step["alone"])[key] = odd
    else:
        step["alone"][key][1] = odd
    with pytest.raises(ValueError, match=key):
        MergeRules.model_validate(values)


@pytest.mark.parametrize("damage", ["no rounds", "short", "scale of 0", "rising"])
def test_a_damaged_agglomeration_is_refused(damage):
    values = Agglomeration((round_of("length"),)).as_rules().model_dump()
    if damage == "no rounds":
        values["rounds"] = []
    elif damage == "short":
        values["rounds"][0]["alone"]["weights"].pop()
    elif damage == "scale of 0":
        values["rounds"][0]["alone"]["scale"][0] = 0
    else:
        values["rounds"] = [values["rounds"][0] | {"down_to": end} for end in (0.5, 0.8)]
    with pytest.raises(ValueError, match="its agglomeration is damaged"):
        Agglomeration.from_rules(MergeRules.model_validate(values))


@given(st.integers(0, 2**32 - 1), st.floats(0.3, 0.95), st.booleans())
def test_flooding_is_the_watershed_of_all_markers(seed, level, whole):
    probability = random_probability(seed)
    markers = ndimage.label(probability > level)[0]
    # Markers that touch each other, and some that lie outside the mask.
    markers[:, 20:] += np.where(markers[:, 20:] > 0, markers.max(), 0)
    mask = np.ones_like(probability, bool) if whole else np.random.default_rng(seed).random(probability.shape) < 0.9
    expected = watershed(-probability, markers, mask=mask)
    np.testing.assert_array_equal(flood(probability, markers, True if whole else mask), expected)


def brute_force_groups(borders, likely, threshold):
    """Regions merged while any two have a mean over their pixel edges above the threshold, the highest first."""
    group = np.arange(borders.pairs.max() + 1)
    values = likely[borders.edges]
    while True:
        ends = group[borders.pairs[borders.edges]]
        means = {}
        for a, b in {tuple(sorted(pair)) for pair in ends.tolist() if pair[0] != pair[1]}:
            between = (ends == (a, b)).all(axis=1) | (ends == (b, a)).all(axis=1)
            means[a, b] = values[between].mean()
        if not means or max(means.values()) <= threshold:
            return group
        a, b = max(means, key=lambda pair: means[pair])
        group[group == b] = a


def merged_of(regions, merged):
    """The one merged region that each region became part of."""
    found = [np.unique(merged.labels[regions.labels == region]) for region in range(1, regions.count + 1)]
    return np.array(found)[:, 0]


@given(seed=st.integers(0, 10_000), threshold=st.floats(0.05, 0.95))
def test_components_above_a_threshold_are_the_regions_that_mean_linkage_merges(seed, threshold):
    regions = find_regions(random_probability(seed))
    borders = find_borders(regions)
    if not len(borders.pairs):
        return
    # Means have no ties, which leave the order of merging open.
    by_probability = round_of("mean probability", threshold)
    closed = by_probability.close(regions, borders)
    group = brute_force_groups(borders, by_probability.alone(borders.features), threshold)
    components, _ = ndimage.label(closed > threshold)
    expected = np.where(components > 0, group[regions.labels - 1] + 1, 0)
    # A component lies in one group; a group is several only where a region is a pixel wide.
    for number in range(1, components.max() + 1):
        assert len(np.unique(expected[components == number])) == 1
    first, second = borders.pairs.T
    level = np.full(len(borders.pairs), np.inf)
    np.minimum.at(level, borders.edges, closed.ravel()[borders.pixels])
    apart = group[first] != group[second]
    assert (level[apart] <= threshold).all()
    merged = by_probability.merge(regions, borders)
    assert merged.count == len(np.unique(group))
    np.testing.assert_array_equal(apart, np.diff(merged_of(regions, merged)[borders.pairs])[:, 0] != 0)


def test_overlap_is_the_shared_part_of_what_two_regions_lie_over():
    probability = three_cells()
    # The surer cell takes the faint border, so the watershed has no choice.
    probability[:, 8:15] = 0.995
    here = find_regions(probability)
    before = np.full((8, 23), 0.99, np.float32)
    # Of the first cell 6 of 7 columns lie over one region, of the second 8 of 8 over the other.
    before[:, 6] = 0.1
    neighbour = find_regions(before)
    overlap = find_borders(here, [neighbour]).features[:, -1]
    np.testing.assert_allclose(overlap, [0, 1])
    np.testing.assert_allclose(find_borders(here, [neighbour, here]).features[:, -1], [0, 1])
    np.testing.assert_allclose(find_borders(here, [here]).features[:, -1], [0, 0])


@pytest.fixture(scope="module")
def faint():
    _, labels = make_synthetic(12, 160, seed=3)
    labels = labels > 0
    return imperfect_probability(labels), labels


def test_cells_are_better_than_at_any_threshold(faint):
    probability, labels = faint
    agglomeration = learn_agglomeration([(probability[:8], labels[:8])])
    closed = agglomeration.close_stack(probability[8:])
    for metric in (v_rand, v_info):
        oracle = metric(probability[8:], labels[8:], np.linspace(0, 1, 21))
        assert metric(closed, labels[8:], MERGE_THRESHOLD).value > oracle.value
    again = Agglomeration.from_rules(MergeRules.model_validate_json(agglomeration.as_rules().model_dump_json()))
    np.testing.assert_array_equal(again.close_stack(probability[8:]), closed)


def test_the_rule_is_the_logistic_regression_of_its_features(faint):
    probability, labels = faint
    agglomeration = learn_agglomeration([(probability[:4], labels[:4]), (probability[5:6], labels[5:6])])
    features, one_cell = [], []
    for block in (range(4), range(5, 6)):
        for z in block:
            regions = find_regions(probability[z])
            borders = find_borders(regions)
            truth, _ = ndimage.label(labels[z])
            for pair, row in zip(borders.pairs, borders.features, strict=True):
                counts = [np.bincount(truth[regions.labels == region + 1])[1:] for region in pair]
                if all(count.any() for count in counts):
                    features.append(row)
                    one_cell.append(counts[0].argmax() == counts[1].argmax())
    features = np.array(features)
    standard = (features - features.mean(axis=0)) / features.std(axis=0)
    reference = LogisticRegression(C=1 / 3, tol=1e-8, max_iter=1000).fit(standard, one_cell)
    first = agglomeration.rounds[0]
    np.testing.assert_allclose(first.alone(features), reference.predict_proba(standard)[:, 1], atol=1e-3)
    # The single section has no neighbours to learn from, and needs none.
    assert first.among_neighbours is not None
    assert learn_agglomeration([(probability[:1], labels[:1])]).rounds[0].among_neighbours is None


def test_each_round_begins_with_what_the_one_before_has_merged(faint):
    probability, labels = faint
    agglomeration = learn_agglomeration([(probability[:8], labels[:8])])
    assert [step.down_to for step in agglomeration.rounds] == [0.95, 0.8, 0.5]
    cut = stack = [find_regions(section) for section in probability[8:]]
    for step in agglomeration.rounds:
        borders = [find_borders(here, stack[max(z - 1, 0) : z] + stack[z + 1 : z + 2]) for z, here in enumerate(stack)]
        closed = [step.close(*each) for each in zip(stack, borders, strict=True)]
        stack = [step.merge(*each) for each in zip(stack, borders, strict=True)]
    assert sum(regions.count for regions in stack) < sum(regions.count for regions in cut)
    np.testing.assert_array_equal(agglomeration.close_stack(probability[8:]), closed)
    # Sections are asked for in rising order, with or without gaps.
    for wanted in (range(4), [2, 3], [0, 3]):
        asked = []
        lazy = ClosedStack(agglomeration, lambda z, asked=asked: (asked.append(z), probability[8 + z])[1], 4)
        for z in wanted:
            found, cells = lazy.section(z)
            np.testing.assert_array_equal(found, probability[8 + z])
            np.testing.assert_array_equal(cells, closed[z])
        assert wanted == [0, 3] or sorted(asked) == [0, 1, 2, 3], "predicted twice"


def test_rounds_end_where_nothing_is_left_to_merge():
    labels = np.zeros((2, 8, 23), bool)
    labels[:, :, :15], labels[:, :, 16:] = True, True
    probability = np.stack([three_cells()] * 2)
    agglomeration = learn_agglomeration([(probability, labels)])
    assert [step.down_to for step in agglomeration.rounds] == [0.95, MERGE_THRESHOLD]
    assert [ndimage.label(section > MERGE_THRESHOLD)[1] for section in agglomeration.close_stack(probability)] == [2, 2]


def test_nothing_to_learn_from_is_an_error_and_nothing_to_close_is_not():
    blank = np.full((2, 16, 16), 0.5, np.float32)
    with pytest.raises(ValueError, match="no border inside a cell"):
        learn_agglomeration([(blank, blank > 0)])
    agglomeration = Agglomeration((round_of("mean probability", 0.8), round_of("mean probability")))
    assert (agglomeration.close_stack(blank) == 0).all()
    assert (agglomeration.close_stack(np.ones((1, 16, 16), np.float32)) == 1).all()
