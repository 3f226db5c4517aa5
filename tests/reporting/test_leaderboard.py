import io
import re
import unicodedata

import numpy as np
import pandas as pd
import pytest
from evaluated import make_run, rewrite, run_facts
from rich.console import Console

from emseg.errors import InputError
from emseg.evaluation.baselines import fit_threshold, threshold_prediction
from emseg.records.record import RunRecord
from emseg.reporting.leaderboard import (
    as_csv,
    as_markdown,
    as_numbers,
    as_table,
    find_evaluations,
    make_boards,
)
from emseg.reporting.terminal import print_boards
from emseg.text import plain


def evaluation(
    folder, model, seed=0, protocol="heldout", digest="a" * 32, error=0.05, fold=0, dataset="cortex", name=""
):
    place = f"{model}-{protocol}-fold{fold}-seed{seed}"
    facts = {"data_digest": digest, "fold": fold, "seconds_per_epoch": 2.0 + seed, "dataset": dataset}
    return make_run(folder, place, error, protocol, seed, name or model, **facts)


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
    assert [row.model for row in board.rows] == ["unet2", "dmcn", "baseline: threshold"]
    best = board.rows[0]
    assert best.trained.runs == 3
    assert best.trained.seconds_per_epoch == 3.0
    assert best.difference is None
    assert board.rows[1].difference.mean < 0
    mean = pd.concat(tables).groupby("section")["dice"].mean()
    assert best.metrics["dice"].mean == pytest.approx(mean.mean(), abs=1e-9)
    assert best.metrics["dice"].low <= best.metrics["dice"].mean <= best.metrics["dice"].high


def recipe(folder, name, error=0.05, seed=0, profile="", variation="", **training):
    settings = run_facts(folder)["settings"]
    settings["training"] |= training
    make_run(folder, name, error, seed=seed, profile=profile, variation=variation, settings=settings)


def names_of(folder):
    (board,) = make_boards(find_evaluations(folder))
    return {row.model: row.trained.runs for row in board.trained}


def test_recipes_of_one_model_are_told_apart_by_what_differs(tmp_path):
    recipe(tmp_path, "short", epochs=8)
    recipe(tmp_path, "again", seed=1, epochs=8)
    assert names_of(tmp_path) == {"unet2": 2}
    recipe(tmp_path, "long", epochs=20)
    assert names_of(tmp_path) == {"unet2 (epochs 8)": 2, "unet2 (epochs 20)": 1}
    recipe(tmp_path, "other", epochs=20, batch=2, learning_rate=0.1)
    names = names_of(tmp_path)
    assert sorted(names.values()) == [1, 1, 2]
    assert all(re.fullmatch(r"unet2 \(recipe [0-9a-f]{6}\)", name) for name in names)
    for profile, variation in (("best", ""), ("best", "family/no average")):
        recipe(tmp_path / "jobs", f"{profile}{len(variation)}", profile=profile, variation=variation, batch=1)
    assert names_of(tmp_path / "jobs") == {"unet2 (best)": 1, "unet2 (best, family/no average)": 1}


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
    assert all([row.model for row in board.rows][1:] == ["baseline: threshold"] for board in boards)
    assert sum("LEAKS" in board.title for board in boards) == 1


CHALLENGE = "0face5632f7b1d4238256f4a18cafd98"
"""Data digest of the real stack, with its test sections; test_cards.py finds it from the pixels."""


def test_table_shows_the_references_rows_and_its_leak(tmp_path):
    evaluation(tmp_path, "unet2", digest=CHALLENGE)
    boards = make_boards(find_evaluations(tmp_path))
    table = as_table(boards[0]).set_index("model")
    assert table.loc["reference: weighted_unet", "iou_thresholded"] == "0.9020"
    assert table.loc["reference: weighted_unet", "protocol"] == "paper (leaks)"
    assert table.loc["unet2", "protocol"] == "heldout"
    assert "[" in table.loc["unet2", "dice"]
    assert table.loc["unet2", "parameters"] == "1,234"
    numbers = as_numbers(boards).set_index("model")
    assert numbers.loc["reference: dmcn", "rand_error"] == 0.1355
    assert bool(numbers.loc["reference: dmcn", "leaks"])
    markdown = as_markdown(boards)
    assert "| unet2 | heldout |" in markdown
    assert boards[0].data_digest in markdown
    assert "Rows marked reference" in markdown


def test_the_references_rows_stand_beside_its_own_sections_alone_whatever_they_are_called(tmp_path):
    evaluation(tmp_path, "unet2", protocol="paper", dataset="isbi2012")
    boards = make_boards(find_evaluations(tmp_path))
    assert not as_table(boards[0])["model"].str.startswith("reference").any()
    assert not as_numbers(boards)["model"].str.startswith("reference").any()
    assert "reference" not in as_markdown(boards)


def test_sections_that_were_recognised_when_they_were_trained_on_have_the_references_rows(tmp_path):
    # With the labels of its test stack the challenge's data have a digest that nobody here has seen.
    evaluation(tmp_path, "unet2")
    noted = {"recognised": "isbi2012", "name": "isbi2012", "title": "ISBI 2012 challenge"}
    RunRecord.open(tmp_path / "unet2-heldout-fold0-seed0").update(dataset_card=noted)
    (board,) = make_boards(find_evaluations(tmp_path))
    assert as_table(board)["model"].str.startswith("reference").sum() == 4


def numbers_of(row):
    return [f"{row.metrics[metric].mean:.4f}" for metric in ("v_rand", "v_info", "pixel_error")]


def intervals_of(row):
    return [f"[{row.metrics[m].low:.4f}, {row.metrics[m].high:.4f}]" for m in ("v_rand", "v_info", "pixel_error")]


def on_a_terminal(monkeypatch, capsys, width, boards, **options):
    def terminal():
        return Console(width=width, force_terminal=True, no_color=True, color_system=None, highlight=False)

    monkeypatch.setattr("emseg.reporting.terminal._console", terminal)
    print_boards(boards, **options)
    return capsys.readouterr().out


@pytest.mark.parametrize("width", [80, 120, 240])
def test_a_terminal_shows_whole_numbers_and_says_what_it_leaves_out(tmp_path, monkeypatch, capsys, width):
    for model in ("unet2", "deeply_supervised_unet", "a_model_of_my_own_with_a_long_name"):
        evaluation(tmp_path, model, error=0.03)
    boards = make_boards(find_evaluations(tmp_path))
    printed = on_a_terminal(monkeypatch, capsys, width, boards)
    lines = printed.splitlines()
    assert max(map(len, lines)) <= width
    for row in boards[0].rows:
        assert any(all(number in line for number in numbers_of(row)) for line in lines)
        assert any(all(interval in line for interval in intervals_of(row)) for line in lines)
    assert "…" not in printed
    # Every column is either there or named as left out.
    heading, (_, _, left_out) = lines[1], printed.partition("Left out for lack of room:")
    for column in as_table(boards[0]).columns:
        assert (column.replace("_", " ") in heading) != (
            column.replace("_", " ") in " ".join(left_out.split(";")[0].split())
        )


@pytest.mark.parametrize("wide", [True, None])
def test_with_wide_and_in_a_pipe_a_row_is_a_line_with_every_column(tmp_path, monkeypatch, capsys, wide):
    evaluation(tmp_path, "unet2")
    boards = make_boards(find_evaluations(tmp_path))
    if wide:
        printed = on_a_terminal(monkeypatch, capsys, 80, boards, wide=True)
    else:
        print_boards(boards)
        printed = capsys.readouterr().out
    (line,) = [line for line in printed.splitlines() if line.startswith("unet2")]
    for cell in as_table(boards[0]).iloc[0]:
        assert str(cell) in line
    assert "\x1b" not in printed or wide
    assert "Left out" not in printed


def test_names_from_elsewhere_are_inert_wherever_they_are_shown(tmp_path, monkeypatch, capsys):
    names = ["=HYPERLINK(1)", "a|b<b>", "[red]x[/red]", "e\x1b[31m\x07\nf", "[t](http://x.y)", "+1", "@b", "-c", "*d*"]
    for index, name in enumerate(names):
        evaluation(tmp_path, f"model{index}", name=name)
    boards = make_boards(find_evaluations(tmp_path))
    printed = on_a_terminal(monkeypatch, capsys, 100, boards)
    for name in names:
        assert plain(name) in printed
    assert not {c for c in printed if unicodedata.category(c) == "Cc"} - {"\n", "\x1b"}
    assert "\x1b[31m" not in printed
    table = pd.read_csv(io.StringIO(as_csv(as_numbers(boards))))
    assert not [name for name in table["model"] if name[0] in "=+-@"]
    text = as_markdown(boards)
    assert "<b>" not in text
    assert "](http" not in text
    assert "http://" not in text
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert len({len(re.findall(r"(?<!\\)\|", line)) for line in rows}) == 1


def test_nothing_to_rank(tmp_path):
    with pytest.raises(InputError, match="no evaluated runs"):
        make_boards(find_evaluations(tmp_path))


def test_threshold_baseline_is_the_best_grey_level(source):
    images, labels = source.images[:3], source.labels[:3]
    sigma, level = fit_threshold(images, labels)
    errors = {
        (s, t): float(np.mean((threshold_prediction(images, s, t)) != labels))
        for s in (0.0, 1.0, 2.0)
        for t in range(0, 256, 1 if s == sigma else 4)
    }
    assert errors[sigma, level] == min(errors.values())
    assert errors[sigma, level] < np.mean(~labels)
