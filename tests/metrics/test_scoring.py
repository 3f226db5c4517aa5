import doctest

import numpy as np
import pandas as pd
import pytest

import emseg.metrics.overlap
import emseg.metrics.rand
from emseg import metrics
from emseg.metrics.scoring import (
    ALL_METRICS,
    LOWER_IS_BETTER,
    MEANINGS,
    PIXEL_METRICS,
    SEGMENT_METRICS,
    Scores,
    is_collapsed,
    score_stack,
    summarise,
)


def test_a_row_per_section_agrees_with_the_metric_of_that_section():
    random = np.random.default_rng(1)
    probability, label = random.random((3, 20, 30)), random.random((3, 20, 30)) > 0.3
    table = score_stack(probability, label, threshold=0.6)
    assert list(table.columns) == ["section", *PIXEL_METRICS, *SEGMENT_METRICS]
    for section in range(3):
        pair = probability[section], label[section]
        for name in (*PIXEL_METRICS, "adapted_rand_error"):
            assert table[name][section] == getattr(metrics, name)(*pair, 0.6)
        for name in ("v_rand", "v_info"):
            score = getattr(metrics, name)(*pair, 0.6)
            parts = [table[name + part][section] for part in ("", "_split", "_merge")]
            assert parts == [score.value, score.split, score.merge]
        assert (table["vi_split"][section], table["vi_merge"][section]) == metrics.variation_of_information(*pair, 0.6)
        assert table["warping_error"][section] == metrics.warping_error(*pair, 0.6).value


@pytest.mark.parametrize("module", [emseg.metrics.overlap, emseg.metrics.rand])
def test_examples_in_docstrings(module):
    result = doctest.testmod(module, extraglobs={"np": np})
    assert result.attempted
    assert not result.failed


def test_interval_covers_the_mean_as_often_as_it_says():
    random = np.random.default_rng(0)
    covered = 0
    for trial in range(200):
        summary = summarise(random.normal(0.9, 0.02, 24), seed=trial)
        assert summary.low <= summary.mean <= summary.high
        covered += summary.low <= 0.9 <= summary.high
    assert 0.87 <= covered / 200 <= 0.99


def test_a_score_cannot_be_made_without_protocol_or_data():
    table = pd.DataFrame({"section": [0], "dice": [0.9]})
    with pytest.raises(ValueError, match="needs a protocol"):
        Scores("", "digest", table)
    with pytest.raises(ValueError, match="needs a protocol"):
        Scores("random", "digest", table)
    with pytest.raises(ValueError, match="digest"):
        Scores("heldout", "", table)
    assert Scores("paper", "digest", table).leaks
    assert not Scores("heldout", "digest", table).leaks


def test_collapse():
    assert is_collapsed(np.full((2, 4, 4), 0.78))
    assert is_collapsed(np.linspace(0.6, 0.9, 16).reshape(1, 4, 4))
    assert not is_collapsed(np.linspace(0.1, 0.9, 16).reshape(1, 4, 4))


def test_every_metric_says_what_it_means_and_is_best_where_it_is_said_to_be():
    assert MEANINGS.keys() == set(ALL_METRICS)
    label = np.zeros((1, 20, 30), bool)
    label[0, 2:9, 2:28] = label[0, 11:18, 2:28] = True
    perfect, wrong = score_stack(label, label).iloc[0], score_stack(np.ones_like(label), label).iloc[0]
    for name in (*PIXEL_METRICS, *SEGMENT_METRICS):
        assert perfect[name] == pytest.approx(0 if name in LOWER_IS_BETTER else 1)
        assert (wrong[name] >= perfect[name]) if name in LOWER_IS_BETTER else (wrong[name] <= perfect[name])
