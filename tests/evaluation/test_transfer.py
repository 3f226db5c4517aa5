"""A run on another dataset: what is scored, with what, and that nothing takes it for a score at home."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from evaluated import write_values

from emseg.data.datasets.card import Card, Noted
from emseg.data.sources import Source, write_source
from emseg.data.synthetic import make_synthetic
from emseg.errors import InputError
from emseg.evaluation.evaluate import evaluate
from emseg.evaluation.transfer import evaluate_transfer
from emseg.files import write_text
from emseg.inference import predict
from emseg.inference.trained import load_network
from emseg.metrics import pixel_error, v_info, v_rand
from emseg.records.calibration import CELLS_FILE, read_calibration
from emseg.records.evaluation import read_evaluated
from emseg.records.transfer import read_transferred, transfers_of
from emseg.registry.package import write_package
from emseg.reporting.leaderboard import as_markdown, as_numbers, find_evaluations, make_boards
from emseg.reporting.runs import read_runs
from emseg.reporting.terminal import evaluation_text
from emseg.training.plan import parts_of_run


def dataset(name, images, labels, **parts):
    return Source(name, images, labels > 0, images[:0], labels[:0] > 0, **parts)


@pytest.fixture
def other(stack):
    """Sections 0 (turned) and 5 trained and calibrated the run, section 8 tested it; the others are new."""
    images, labels = make_synthetic(sections=3, side=64, seed=8)
    images = np.concatenate([np.rot90(stack[0][:1], axes=(1, 2)), images, stack[0][[5, 8]]])
    labels = np.concatenate([np.rot90(stack[1][:1], axes=(1, 2)), labels, stack[1][[5, 8]]])
    return dataset("other", images, labels)


def test_sections_that_the_run_did_not_see_are_scored_with_its_own_thresholds(evaluated, other):
    record = evaluated()
    calibrated = (record.folder.parent / CELLS_FILE).read_bytes()
    said = []
    transfer = evaluate_transfer(record, other, warn=said.append)
    assert (record.folder.parent / CELLS_FILE).read_bytes() == calibrated
    assert (transfer.protocol, transfer.dataset, transfer.data_digest) == ("transfer", "other", other.digest)
    assert (transfer.home.dataset, transfer.home.protocol) == ("cortex", "heldout")
    assert transfer.home.data_digest == record.read().data_digest
    assert (transfer.left_out, said, transfer.unlike_training) == ([0, 4], [], None)
    table = pd.read_csv(record.folder.parent / "transfer" / "other" / "scores.csv")
    scored = [1, 2, 3, 5]
    assert table["section"].tolist() == scored
    network, normalization = load_network(record)
    probability = predict(network, other.images[scored], normalization=normalization)
    thresholds = read_calibration(record.folder.parent, record.read())[0].thresholds
    expected = {
        "v_rand": v_rand(probability, other.labels[scored], thresholds.v_rand).per_section,
        "v_info": v_info(probability, other.labels[scored], thresholds.v_info).per_section,
    }
    for name, values in expected.items():
        np.testing.assert_allclose(table[name], values, atol=1e-5)
    assert transfer.metrics["pixel_error"].mean == pytest.approx(pixel_error(probability, other.labels[scored]))
    # Written again, it is the same.
    before = (record.folder.parent / "transfer" / "other" / "metrics.json").read_bytes()
    evaluate_transfer(record, other)
    assert (record.folder.parent / "transfer" / "other" / "metrics.json").read_bytes() == before


def test_a_labelled_test_stack_counts_too(evaluated):
    images, labels = make_synthetic(sections=3, side=64, seed=8)
    numbered = np.where(labels > 0, 7, 0).astype(np.uint32)
    both = Source("both", images[:1], labels[:1] > 0, images[1:], labels[1:] > 0, test_cells=numbered[1:])
    record = evaluated()
    evaluate_transfer(record, both)
    table = read_transferred(record, transfers_of(record)[0]).table
    assert table["section"].tolist() == [0, 2, 3]
    masks = dataset("masks", images, labels)
    evaluate_transfer(record, masks)
    plain = pd.read_csv(record.folder.parent / "transfer" / "masks" / "scores.csv")
    assert table["v_rand"][0] == plain["v_rand"][0]
    assert table["pixel_error"].tolist() == plain["pixel_error"].tolist()
    smaller = Source("smaller", images, labels > 0, images[:1, :32], labels[:1, :32] > 0)
    said = []
    assert evaluate_transfer(record, smaller, warn=said.append).sections == 3
    assert "its test stack has sections of another size" in said[0]


def test_what_can_say_nothing_is_refused_and_leaves_nothing(evaluated, source, stack, other):
    record = evaluated()
    sixteen = dataset("sixteen", other.images.astype(np.uint16) * 200, other.labels)
    seen = dataset("seen", stack[0][:3, ::-1], stack[1][:3, ::-1])
    for own, said in (
        (source, "scores it on its test sections"),
        (seen, "nothing is left"),
        (sixteen, "8-bit"),
        (replace(other, name="../other"), "cannot name a source"),
    ):
        with pytest.raises(InputError, match=said):
            evaluate_transfer(record, own)
    record.update(section_digests=None)
    with pytest.raises(InputError, match="does not say which sections it was trained on"):
        evaluate_transfer(record, other)
    assert not (record.folder.parent / "transfer").exists()


def test_grey_levels_unlike_those_trained_on_are_told_of_as_predict_does(evaluated, other):
    said = []
    bright = dataset("bright", 255 - other.images // 16, other.labels)
    transfer = evaluate_transfer(evaluated(), bright, warn=said.append)
    assert said == [f"bright is unlike the training data: {transfer.unlike_training}; expect a poor result"]
    assert "the median grey level is" in transfer.unlike_training
    ignore = np.zeros(other.labels.shape, bool)
    ignore[:, :40] = True
    bordered = other.images.copy()
    bordered[:, :40] = 0
    assert evaluate_transfer(evaluated(1), dataset("black", bordered, other.labels)).unlike_training
    assert not evaluate_transfer(evaluated(2), dataset("black", bordered, other.labels, ignore=ignore)).unlike_training


def test_scores_on_other_data_are_never_taken_for_those_at_home(evaluated, other, tmp_path):
    record = evaluated()
    run = record.folder.parent
    board = as_numbers(make_boards(find_evaluations(tmp_path)))
    write_package(record, tmp_path / "before")
    # Whatever the other dataset is called.
    for name in ("evaluation", "training", "other"):
        evaluate_transfer(record, dataset(name, other.images, other.labels))
    assert len(transfers_of(record)) == 3
    assert find_evaluations(tmp_path) == [record.evaluation_folder]
    pd.testing.assert_frame_equal(as_numbers(make_boards(find_evaluations(tmp_path))), board)
    assert [each.evaluation.protocol for each in read_runs(tmp_path / "runs")] == ["heldout"]
    write_package(record, tmp_path / "after")
    assert (tmp_path / "after/metrics.json").read_bytes() == (tmp_path / "before/metrics.json").read_bytes()
    home = (run / "evaluation", run / "kept")
    shutil.copytree(*home)
    for file in ("metrics.json", "scores.csv", "baselines.csv"):
        shutil.copy(run / "transfer/other" / file, run / "evaluation" / file)
    with pytest.raises(InputError, match=r"metrics.json is damaged \(protocol"):
        read_evaluated(run / "evaluation")
    shutil.copytree(home[1], run / "transfer/other", dirs_exist_ok=True)
    with pytest.raises(InputError, match=r"metrics.json is damaged \(protocol"):
        read_transferred(record, run / "transfer/other")


def test_the_width_of_drawn_membranes_stands_beside_the_scores(evaluated, other, source):
    record = evaluated()
    told = "Membranes between touching cells drawn 2 pixels wide (8 nm): pixel metrics depend on it."
    noted = Noted(
        name="cortex", title="cortex", voxel_size_nm=[50.0, 4.0, 4.0], drawn_membrane_pixels=2, recognised=None
    )
    assert told not in make_boards([record.evaluation_folder])[0].facts
    record.update(dataset_card=noted)
    here = evaluate(record, parts_of_run(record, source).test)
    card = Card(name="other", title="other", drawn_membrane_pixels=4)
    there = evaluate_transfer(record, replace(other, own_card=card))
    assert told in evaluation_text("run", here).splitlines()
    assert "drawn 4 pixels wide: pixel" in evaluation_text("run", there)
    assert here.shown()["drawn_membranes"] == {"pixels": 2, "nm": 8.0}
    assert read_evaluated(record.evaluation_folder).evaluation == here
    assert told in as_markdown(make_boards([record.evaluation_folder]))


def test_scores_of_other_weights_or_thresholds_are_not_believed(evaluated, other):
    first, second = evaluated(), evaluated(1)
    evaluate_transfer(first, other)
    shutil.copytree(first.transfers_folder, second.transfers_folder)
    with pytest.raises(InputError, match=r"scores of another run .*emseg evaluate .*seed1 --data other"):
        read_transferred(second, transfers_of(second)[0])
    shutil.copytree(first.transfers_folder / "other", first.transfers_folder / "renamed")
    with pytest.raises(InputError, match="dataset differ"):
        read_transferred(first, first.transfers_folder / "renamed")
    cells = first.folder.parent / CELLS_FILE
    values = json.loads(cells.read_text())
    write_values(cells, values | {"thresholds": {"v_rand": 0.3, "v_info": 0.3}})
    with pytest.raises(InputError, match=r"scores of another calibration .*--data other"):
        read_transferred(first, first.transfers_folder / "other")


@pytest.fixture
def project(evaluated, source, other, tmp_path, monkeypatch):
    """A run of `cortex`, and both datasets in data/sources."""
    for each in (source, other):
        (tmp_path / "data/sources" / each.name).mkdir(parents=True)
        write_source(tmp_path / "data/sources" / each.name, each)
    monkeypatch.chdir(tmp_path)
    evaluated()
    return tmp_path


def test_the_command_writes_what_plain_evaluate_writes_and_the_matrix_shows_it(project, emseg, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{project / 'none.db'}")
    # Drawing is tested elsewhere, and takes long.
    monkeypatch.setattr("emseg.reporting.figures.save_figure", lambda _, file: write_text(file, ""))
    run, columns = "runs/seed0", ["model", "dataset", "protocol"]
    assert emseg("evaluate", run)[0] == 0
    code, out, _ = emseg("leaderboard", "--transfer")
    assert code == 0
    assert "emseg evaluate runs/seed0 --data other" in out
    assert not (project / "none.db").exists()
    code, out, _ = emseg("evaluate", run, "--data", "other")
    assert code == 0
    for sentence in (
        "trained on cortex (heldout), scored on other",
        "Nothing was learned from other",
        "sections 0, 4.",
    ):
        assert sentence in out
    places = [project / run / "evaluation", project / run / "transfer/other"]
    names = [{file.name for file in place.iterdir()} for place in places]
    assert names[0] == names[1]
    found = [json.loads((place / "metrics.json").read_text()) for place in places]
    rows = json.loads(emseg("leaderboard", "--transfer", "--json")[1])
    assert [[row[key] for key in columns] for row in rows] == [
        ["residual_unet", "cortex", "heldout"],
        ["residual_unet", "other", "transfer"],
    ]
    for row, scores in zip(rows, found, strict=True):
        assert [row["v_rand"], row["v_rand_low"]] == pytest.approx(
            [scores["v_rand"][end] for end in ("mean", "low")], abs=1e-6
        )
    code, out, _ = emseg("leaderboard", "--transfer", "runs", "--metric", "v_info", "--wide", "--markdown", "matrix.md")
    assert code == 0
    assert "Not scored yet" not in out
    cells = [cell.strip() for cell in (project / "matrix.md").read_text().splitlines()[2].split("|")[1:-1]]
    home, elsewhere = (f"{scores['v_info']['mean']:.4f} [" for scores in found)
    assert cells[:2] == ["residual_unet", "cortex, heldout"]
    assert cells[2].startswith(home)
    assert cells[3] == "home"
    assert cells[4].startswith(elsewhere)
    assert emseg("leaderboard", "--transfer", "--metric", "vrand")[0] == 2
    assert emseg("leaderboard", "--transfer", "nowhere")[0] == 2
    (project / run / "transfer/other/scores.csv").write_text("section\n1\n")
    code, _, err = emseg("leaderboard", "--transfer")
    assert code == 1
    assert "passed by" in err
    code, out, err = emseg("evaluate", run, "--data", "cortex")
    assert (code, out, err.count("\n")) == (2, "", 1)
