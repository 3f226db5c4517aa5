import doctest

import numpy as np
import pandas as pd
import pytest
from scipy import stats

import emseg.evaluation.bootstrap
from emseg.evaluation.bootstrap import group_models, holm, paired_difference, rank
from emseg.metrics.scoring import Scores


def scores(values, protocol="heldout", digest="d", metric="v_rand"):
    """From values (seeds, sections)."""
    values = np.atleast_2d(values)
    rows = [
        {"seed": seed, "section": section, metric: value}
        for seed, row in enumerate(values)
        for section, value in enumerate(row)
    ]
    return Scores(protocol, digest, pd.DataFrame(rows))


def test_pairing_sees_what_section_to_section_variation_hides():
    random = np.random.default_rng(0)
    hard = random.normal(0.9, 0.05, 20)
    better = scores(hard + 0.01 + random.normal(0, 0.003, 20))
    found = paired_difference(better, scores(hard), "v_rand")
    assert found.low > 0
    assert found.p_value < 0.01
    assert found.wilcoxon_p < 0.01
    assert found.mean == pytest.approx(0.01, abs=0.003)
    assert stats.ttest_ind(better.per_section["v_rand"], hard).pvalue > 0.3


def test_a_difference_and_its_reverse_are_mirror_images():
    random = np.random.default_rng(1)
    a, b = scores(random.random((3, 12))), scores(random.random((2, 12)))
    there, back = paired_difference(a, b, "v_rand"), paired_difference(b, a, "v_rand")
    assert there.mean == pytest.approx(-back.mean)
    assert there.low == pytest.approx(-back.high, abs=0.05)


def test_equal_models_do_not_differ():
    values = np.random.default_rng(2).random((1, 10))
    found = paired_difference(scores(values), scores(values), "v_rand")
    assert found.mean == 0
    assert found.wilcoxon_p == 1
    assert found.p_value > 0.5


def test_seeds_widen_the_interval():
    random = np.random.default_rng(3)
    sections = random.normal(0.9, 0.001, 30)
    steady = scores(np.stack([sections] * 3))
    swinging = scores(np.stack([sections + 0.03, sections - 0.03, sections]))
    one = paired_difference(scores(sections + 1e-4), steady, "v_rand")
    many = paired_difference(swinging, steady, "v_rand")
    assert many.high - many.low > 0.01 > 10 * (one.high - one.low)


def test_what_a_seed_does_to_both_readings_of_a_network_is_no_difference():
    networks = np.random.default_rng(6).normal(0.9, 0.03, (3, 10))
    one, other = scores(networks + 0.01), scores(networks)
    found = paired_difference(one, other, "v_rand", same_networks=True)
    assert [found.mean, found.low, found.high] == pytest.approx([0.01] * 3)
    apart = paired_difference(one, other, "v_rand")
    assert apart.low < found.low < found.high < apart.high
    with pytest.raises(ValueError, match="different ones"):
        paired_difference(one, scores(networks[:2]), "v_rand", same_networks=True)


def test_false_alarms_are_as_rare_as_promised():
    random = np.random.default_rng(4)
    alarms = 0
    for _ in range(60):
        base = random.normal(0.9, 0.03, 30)
        a, b = (scores(base + random.normal(0, 0.01, 30)) for _ in range(2))
        alarms += paired_difference(a, b, "v_rand").p_value < 0.05
    assert alarms <= 9


def test_groups_hold_models_that_cannot_be_told_apart():
    random = np.random.default_rng(5)
    base = random.normal(0.9, 0.03, 24)
    swing = np.tile([0.004, -0.004], 12)
    models = {
        "good": scores(base + 0.0205),
        "as good": scores(base + 0.02 + swing),
        "worse": scores(base + swing),
        "threshold": scores(base - 0.3),
    }
    groups = group_models(models, "v_rand")
    assert groups["good"] == groups["as good"] == 1
    assert groups["worse"] == 2
    assert groups["threshold"] == 3


def test_rank_knows_which_way_is_better():
    models = {"a": scores([0.1, 0.2], metric="pixel_error"), "b": scores([0.3, 0.4], metric="pixel_error")}
    assert rank(models, "pixel_error") == ["a", "b"]


def test_what_does_not_compare_is_refused_with_what_differs():
    a = scores([0.9, 0.8])
    with pytest.raises(ValueError, match=r"differ in protocol \(heldout, paper\)"):
        rank({"a": a, "b": scores([0.9, 0.8], protocol="paper")}, "v_rand")
    with pytest.raises(ValueError, match=r"differ in data digest \(d, e\)"):
        paired_difference(a, scores([0.9, 0.8], digest="e"), "v_rand")
    with pytest.raises(ValueError, match="different sections"):
        paired_difference(a, scores([0.9, 0.8, 0.7]), "v_rand")


def test_holm_example():
    assert doctest.testmod(emseg.evaluation.bootstrap).failed == 0
    assert holm([]) == []
    assert holm([0.2]) == [0.2]
