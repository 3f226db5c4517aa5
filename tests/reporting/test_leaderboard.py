import numpy as np
import pandas as pd
import pytest
from evaluated import make_run, rewrite

from emseg.data.sources import load_source
from emseg.errors import InputError
from emseg.reporting.baselines import fit_threshold, threshold_prediction
from emseg.reporting.leaderboard import (
    as_markdown,
    as_numbers,
    as_table,
    find_evaluations,
    make_boards,
)
from emseg.reporting.terminal import print_boards


def evaluation(folder, model, seed=0, protocol="heldout", digest="a" * 32, error=0.05, fold=0):
    name = f"{model}-{protocol}-fold{fold}-seed{seed}"
    facts = {"data_digest": digest, "fold": fold, "seconds_per_epoch": 2.0 + seed}
    return make_run(folder, name, error, protocol, seed, model, **facts)


def test_seeds_that_were_scored_differently_are_not_pooled(tmp_path):
    evaluation(tmp_path, "unet2", 0)
    evaluation(tmp_path, "unet2", 1)
    rewrite(tmp_path / "unet2-heldout-fold0-seed1", cells="agglomeration")
    with pytest.raises(InputError, match="runs of unet2 were scored with cells by agglomeration and by threshold"):
        make_boards(find_evaluations(tmp_path))


def test_models_are_ranked_and_seeds_averaged_per_section(tmp_path):
    tables = [evaluation(tmp_path, "unet2", seed, error=0.03) for seed in range(3)]
    evaluation(tmp_path, "dmcn", error=0.1)
    (board,) = make_boards(find_evaluations(tmp_path))
    assert [row["model"] for row in board.rows] == ["unet2", "dmcn", "baseline: threshold"]
    best = board.rows[0]
    assert best["runs"] == 3
    assert best["seconds_per_epoch"] == 3.0
    assert best["difference"] is None
    assert board.rows[1]["difference"]["mean"] < 0
    mean = pd.concat(tables).groupby("section")["dice"].mean()
    assert best["dice"]["mean"] == pytest.approx(mean.mean(), abs=1e-9)
    assert best["dice"]["low"] <= best["dice"]["mean"] <= best["dice"]["high"]


def test_folds_are_joined(tmp_path):
    for fold in range(3):
        evaluation(tmp_path, "unet2", protocol="kfold", fold=fold)
    (board,) = make_boards(find_evaluations(tmp_path))
    assert board.sections == 15


def test_other_protocols_and_other_data_are_never_ranked_together(tmp_path):
    evaluation(tmp_path, "unet2")
    evaluation(tmp_path, "dmcn", protocol="paper")
    evaluation(tmp_path, "unet1", digest="b" * 32)
    boards = make_boards(find_evaluations(tmp_path))
    assert len(boards) == 3
    assert all([row["model"] for row in board.rows][1:] == ["baseline: threshold"] for board in boards)
    assert sum("LEAKS" in board.title for board in boards) == 1


def test_table_shows_the_studys_rows_and_its_leak(tmp_path):
    evaluation(tmp_path, "unet2")
    boards = make_boards(find_evaluations(tmp_path))
    table = as_table(boards[0]).set_index("model")
    assert table.loc["study: weighted_unet", "iou_thresholded"] == "0.9020"
    assert table.loc["study: weighted_unet", "protocol"] == "paper (leaks)"
    assert table.loc["unet2", "protocol"] == "heldout"
    assert "[" in table.loc["unet2", "dice"]
    assert table.loc["unet2", "parameters"] == "1,234"
    numbers = as_numbers(boards).set_index("model")
    assert numbers.loc["study: dmcn", "rand_error"] == 0.1355
    assert bool(numbers.loc["study: dmcn", "leaks"])
    markdown = as_markdown(boards)
    assert "| unet2 | heldout |" in markdown
    assert boards[0].data_digest in markdown


def test_printed_table(tmp_path, capsys):
    evaluation(tmp_path, "unet2")
    boards = make_boards(find_evaluations(tmp_path))
    print_boards(boards)
    printed = capsys.readouterr().out
    assert "unet2" in printed
    assert f"{boards[0].rows[0]['dice']['mean']:.4f}" in printed
    assert "[0." in printed


def test_nothing_to_rank(tmp_path):
    with pytest.raises(InputError, match="no evaluated runs"):
        make_boards(find_evaluations(tmp_path))


def test_threshold_baseline_is_the_best_grey_level():
    source = load_source("synthetic")
    images, labels = source.images[:3], source.labels[:3]
    sigma, level = fit_threshold(images, labels)
    errors = {
        (s, t): float(np.mean((threshold_prediction(images, s, t)) != labels))
        for s in (0.0, 1.0, 2.0)
        for t in range(0, 256, 1 if s == sigma else 4)
    }
    assert errors[sigma, level] == min(errors.values())
    assert errors[sigma, level] < np.mean(~labels)
