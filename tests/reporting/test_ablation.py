import pandas as pd
import pytest
from evaluated import make_run, rewrite

from emseg.reporting.ablation import ablations
from emseg.reporting.runs import read_runs


def test_the_effect_of_a_change_is_changed_minus_unchanged(tmp_path):
    base = [make_run(tmp_path, f"base{seed}", 0.05, seed=seed, variation="short") for seed in (0, 1)]
    worse = [make_run(tmp_path, f"worse{seed}", 0.10, seed=seed, variation="short/no average") for seed in (0, 1)]
    make_run(tmp_path, "other", 0.01, variation="", seed=7)
    table = ablations(read_runs(tmp_path))
    assert set(table["change"]) == {"no average"}
    assert set(table["runs"]) == {2}
    effect = table[table["metric"] == "pixel_error"].iloc[0]
    expected = pd.concat(worse)["pixel_error"].mean() - pd.concat(base)["pixel_error"].mean()
    assert effect["mean"] == pytest.approx(expected)
    assert effect["low"] > 0.03


def test_agglomeration_is_compared_with_thresholds_on_the_same_runs(tmp_path):
    tables = [make_run(tmp_path, f"run{seed}", 0.05, seed=seed) for seed in (0, 1)]
    for seed, table in enumerate(tables):
        table["v_rand_thresholded"] = table["v_rand"] - 0.01 * (1 + seed)
        table["v_info_thresholded"] = table["v_info"] + 0.02
        rewrite(tmp_path / f"run{seed}", table)
    table = ablations(read_runs(tmp_path)).set_index("metric")
    assert set(table["change"]) == {"cells by threshold"}
    assert table["mean"].to_dict() == pytest.approx({"v_rand": -0.015, "v_info": 0.02, "pixel_error": 0.0})


def test_another_way_to_score_is_told_for_all_models_together(tmp_path):
    lost = {"unet2": 0.01, "dmcn": 0.04}
    for model, loss in lost.items():
        table = make_run(tmp_path, model, 0.05, model=model)
        table["v_rand_thresholded"], table["v_info_thresholded"] = table["v_rand"] - loss, table["v_info"]
        rewrite(tmp_path / model, table)
        make_run(tmp_path, f"{model}-longer", 0.02, model=model, variation="/longer")
    table = ablations(read_runs(tmp_path))
    together = table[table["model"] == "all 2"].set_index(["change", "metric"])
    assert set(together["runs"]) == {2}
    assert together["mean"].to_dict() == pytest.approx(
        {
            ("cells by threshold", "v_rand"): -0.025,
            ("cells by threshold", "v_info"): 0,
            ("cells by threshold", "pixel_error"): 0,
        }
    )
    # Two networks are drawn from as well as their sections.
    assert together["low"].iloc[0] == pytest.approx(-0.04)
    assert together["high"].iloc[0] == pytest.approx(-0.01)


def test_a_change_is_compared_on_the_seeds_that_both_have(tmp_path):
    make_run(tmp_path, "base0", 0.05, seed=0, variation="short")
    make_run(tmp_path, "base1", 0.20, seed=1, variation="short")
    make_run(tmp_path, "same0", 0.05, seed=0, variation="short/nothing")
    table = ablations(read_runs(tmp_path))
    assert (table["mean"] == 0).all()
    assert (table["runs"] == 1).all()
