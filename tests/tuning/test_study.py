"""Studies: what is drawn, honest objectives, workers that share and die, and the way back to params.yaml."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import optuna
import pandas as pd
import pytest
import yaml

from emseg.errors import InputError
from emseg.inference.trained import load_network
from emseg.records.record import RunRecord
from emseg.settings import load_settings, merge, read_yaml
from emseg.tracking.study_mirror import StudyMirror
from emseg.training.plan import split_of
from emseg.tuning.result import apply_best, trials_table
from emseg.tuning.run import tune
from emseg.tuning.space import apply_point, gflop, starting_points, suggest
from emseg.tuning.study import count_trials, open_study
from emseg.tuning.worker import Events, run_worker

SPACE = {
    "base_channels": {"low": 2, "high": 4, "step": 2},
    "dropout": ["without", "reference", 0.1],
    "loss": ["bce", "weighted_bce", "bce_dice"],
    "dice_weight": {"low": 0.1, "high": 4.0, "log": True},
    "w0": {"low": 1.0, "high": 20.0, "log": True},
    "sigma": {"low": 2.0, "high": 10.0},
    "learning_rate": {"low": 0.001, "high": 0.01, "log": True},
}


@pytest.fixture
def params(tiny_params, source_folder, store):
    """params.yaml of a small study of residual_unet, in a folder that has the data and is the current one."""
    values = read_yaml(tiny_params)
    tuning = {
        "model": "residual_unet",
        "metric": "dice",
        "trials": 4,
        "cost": None,
        "resource": "epochs",
        "minimum_resource": 1,
        "largest_gflop": None,
    }
    values["tuning"] = tuning | {"space": SPACE}
    merge(values, {"data": {"source": "cortex"}, "training": {"epochs": 2, "images_per_epoch": 4}})
    tiny_params.write_text(yaml.safe_dump(values, sort_keys=False))
    shutil.copytree(source_folder, tiny_params.parent / "data" / "sources" / "cortex")
    return tiny_params


@pytest.fixture
def settings(params):
    return load_settings(params)


def changed(params, **tuning):
    values = read_yaml(params)
    merge(values, {"tuning": tuning})
    params.write_text(yaml.safe_dump(values, sort_keys=False))
    return load_settings(params)


def test_what_belongs_to_one_loss_is_drawn_with_it_alone(settings):
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    points = [suggest(study.ask(), settings.tuning.space) for _ in range(30)]
    for point in points:
        assert ("w0" in point) == ("sigma" in point) == (point["loss"] == "weighted_bce")
        assert ("dice_weight" in point) == (point["loss"] == "bce_dice")
        own = apply_point(settings, point)
        if point["loss"] == "bce_dice":
            assert own.models["residual_unet"].dice_weight == point["dice_weight"]
        entry = own.models["residual_unet"]
        assert entry.loss == point["loss"]
        assert entry.network.base_channels == point["base_channels"]
        assert own.recipe("residual_unet").learning_rate == point["learning_rate"]
        assert entry.network.dropout == {"without": 0.0, "reference": None, 0.1: 0.1}[point["dropout"]]
        if point["loss"] == "weighted_bce":
            assert (entry.weight_map.w0, entry.weight_map.sigma) == (point["w0"], point["sigma"])
    assert {point["loss"] for point in points} == {"bce", "weighted_bce", "bce_dice"}


def test_the_current_settings_and_the_references_come_first(settings):
    points = starting_points(settings)
    assert points[0]["loss"] == "bce"
    assert points[0]["base_channels"] == 2
    assert {"w0": 10.0, "sigma": 5.0}.items() <= next(p for p in points if p["loss"] == "weighted_bce").items()
    assert len(points) == len({json.dumps(point, sort_keys=True) for point in points})


def test_a_grid_holds_the_references_setting_in_spite_of_rounding(params):
    assert ((5.0 - 0.2) / 0.1) % 1 > 0.9
    settings = changed(params, space={"sigma": {"low": 0.2, "high": 10.0, "step": 0.1}})
    assert [p["sigma"] for p in starting_points(settings) if p["loss"] == "weighted_bce"] == [5.0]
    settings = changed(params, space={"sigma": {"low": 0.25, "high": 10.0, "step": 0.1}})
    assert not any("sigma" in point for point in starting_points(settings))


def test_a_study_runs_resumes_and_is_seen_in_mlflow(params, store, emseg):
    def run(*arguments):
        return emseg("tune", "run", "--settings", params, "--json", *arguments)

    code, out, err = run("--trials", "3")
    assert code == 0, err
    first = json.loads(out)
    assert len(first["trials"]) >= 3
    assert first["trials"][0]["base_channels"] == 2
    values = [trial["value"] for trial in first["trials"] if trial["value"] is not None]
    assert first["best"]["value"] == pytest.approx(max(values))
    assert "best" in err
    second = json.loads(run("--trials", "5")[1])

    def begun(found):
        known = [{key: value for key, value in trial.items() if value is not None} for trial in found["trials"]]
        return [trial for trial in known if trial["trial"] < 3]

    assert begun(second) == begun(first)
    assert sum(t["state"] in ("complete", "pruned", "fail") for t in second["trials"]) == 5
    experiment = store.get_experiment_by_name("cortex-heldout-tuning")
    runs = store.search_runs([experiment.experiment_id])
    (parent,) = [run for run in runs if "emseg.study" in run.data.tags]
    children = [run for run in runs if run.data.tags.get("mlflow.parentRunId") == parent.info.run_id]
    assert len(children) == 5
    assert {run.info.status for run in children} <= {"FINISHED", "KILLED"}
    assert {run.info.status for run in children if "dice" in run.data.metrics} == {"FINISHED"}
    assert parent.data.metrics["dice"] == pytest.approx(second["best"]["value"])
    figures = {file.path for file in store.list_artifacts(parent.info.run_id, "figures")}
    assert "figures/history.png" in figures
    before = params.read_text()
    code, out, _ = emseg("tune", "apply", "--settings", params)
    assert code == 0
    assert out.startswith("---")
    after = load_settings(params)
    tuned = after.models["tuned"]
    assert tuned.architecture == "residual_unet"
    assert tuned.network.base_channels == second["best"]["point"]["base_channels"]
    assert after.benchmark[-1] == "tuned"
    assert len(params.read_text().splitlines()) > len(before.splitlines())
    assert emseg("train", "tuned", "--settings", params)[0] == 0
    assert load_network(RunRecord.open("runs/single/tuned-fold0-seed0"))


def test_comments_and_order_of_params_survive(params, settings, source):
    study = optuna.create_study(direction="maximize")
    point = starting_points(settings)[0]
    study.add_trial(optuna.trial.create_trial(value=1.0, user_attrs={"point": point}, params={}, distributions={}))
    text = "# first\n" + params.read_text().replace("seeds:", "seeds:  # after the key\n", 1)
    params.write_text(text)
    diff = apply_best(study, settings, params)
    after = params.read_text()
    assert after.startswith("# first\n")
    assert "# after the key" in after
    assert after.count(": null") == text.count(": null")
    removed = [line for line in diff.splitlines() if line.startswith("-") and not line.startswith("---")]
    assert not [line for line in removed if "tuned" in line]
    assert load_settings(params).models["tuned"].architecture == "residual_unet"
    assert not list(params.parent.glob(".params*"))


def test_two_objectives_have_a_front_and_a_cheaper_trial_can_be_applied(params, settings, source, store, emseg):
    changed(params, metric="v_info", cost="gflop", trials=6)
    code, out, err = emseg("tune", "run", "--settings", params, "--json")
    assert code == 0, err
    found = json.loads(out)
    trials = [trial for trial in found["trials"] if trial["state"] == "complete"]
    assert len(trials) == 6  # two objectives are not pruned
    for trial in trials:
        beaten = [
            other
            for other in trials
            if other["value"] >= trial["value"]
            and other["cost"] <= trial["cost"]
            and (other["value"], other["cost"]) != (trial["value"], trial["cost"])
        ]
        assert trial["front"] == (not beaten)
        # Four times the arithmetic for twice the channels, but for the first and last convolution.
        smallest = min(t["cost"] for t in trials if t["base_channels"] == 2)
        assert trial["base_channels"] == 2 or 2 < trial["cost"] / smallest < 4
    assert found["best"]["value"] == pytest.approx(max(trial["value"] for trial in trials))
    experiment = store.get_experiment_by_name("cortex-heldout-tuning")
    runs = store.search_runs([experiment.experiment_id])
    (parent,) = [run for run in runs if "emseg.study" in run.data.tags]
    assert parent.data.metrics["v_info"] == pytest.approx(found["best"]["value"])
    assert all("gflop" in run.data.metrics for run in runs)
    assert "figures/pareto-front.png" in {file.path for file in store.list_artifacts(parent.info.run_id, "figures")}
    cheapest = min(trials, key=lambda trial: trial["cost"])
    code, _, err = emseg("tune", "apply", "--settings", params, "--trial", cheapest["trial"])
    assert code == 0, err
    assert load_settings(params).models["tuned"].network.base_channels == cheapest["base_channels"]
    code, _, err = emseg("tune", "apply", "--settings", params, "--trial", 99)
    assert code == 2
    assert "trial 99 of study cortex-residual_unet is not complete" in err


def test_the_searched_metric_is_what_pruning_and_the_kept_epoch_look_at(params, source):
    settings = changed(params, metric="v_rand", trials=1)
    study = open_study(settings, source, "judged")
    run_worker(study, settings, source, Events())
    record = RunRecord.open(Path("runs/tuning/judged/trial-0000"))
    history = {int(row["epoch"]): row["validation_v_rand"] for row in record.history()}
    assert study.trials[0].intermediate_values == history
    assert history[record.read().best_epoch] == max(history.values())
    assert study.trials[0].value == pytest.approx(max(history.values()))


def test_no_start_is_pruned_and_other_trials_are(params, source):
    settings = changed(params, metric="dice", trials=7)
    study = open_study(settings, source, "starts")
    starts = starting_points(settings)
    for channels in (2, 4, 2):
        study.enqueue_trial(starts[0] | {"base_channels": channels, "learning_rate": 0.001})
    study.pruner = optuna.pruners.ThresholdPruner(lower=2.0)  # wants every trial gone
    run_worker(study, settings, source, Events())
    states = [trial.state.name for trial in study.trials[:7]]
    assert states == ["COMPLETE"] * len(starts) + ["PRUNED"] * (7 - len(starts))
    assert [trial.user_attrs["epochs"] for trial in study.trials[:7]] == [2] * len(starts) + [1] * (7 - len(starts))


def test_the_report_counts_what_was_trained_and_what_pruning_saved(params, source, emseg, tmp_path):
    changed(params, metric="v_info", trials=6)
    assert emseg("tune", "run", "--settings", params)[0] == 0
    code, out, err = emseg("tune", "report", tmp_path / "report", "--settings", params)
    assert code == 0, err
    text = Path(out.strip()).read_text()
    trials = pd.read_csv(tmp_path / "report" / "trials.csv")
    best = trials[trials["state"] == "complete"]["value"].max()
    assert f"v_info {best:.4f}" in text
    assert "6 trials:" in text
    # Two channels cost a quarter of four, nearly: count by hand from the trials' epochs.
    settings = load_settings(params)
    cost = {c: gflop(apply_point(settings, {"base_channels": c}), source) for c in (2, 4)}
    spent = sum(cost[row.base_channels] * row.epochs for row in trials.itertuples())
    whole = sum(cost[row.base_channels] * 2 for row in trials.itertuples())
    assert f"pruning saved {1 - spent / whole:.0%}" in text
    for figure in re.findall(r"\((.+?\.png)\)", text):
        assert (tmp_path / "report" / figure).stat().st_size > 1000


def test_pruning_can_count_seconds(params, source):
    settings = changed(params, resource="seconds", minimum_resource=1, trials=1)
    study = open_study(settings, source, "seconds")
    run_worker(study, settings, source, Events())
    record = RunRecord.open(Path("runs/tuning/seconds/trial-0000"))
    seconds = np.cumsum([row["seconds"] for row in record.history()])
    assert set(study.trials[0].intermediate_values) == {round(second) for second in seconds}


def test_the_tested_sections_are_not_seen(settings, source):
    split = split_of(settings, source, 0)
    assert not set(split.validation) & set(split.test)
    study = open_study(settings, source, "honest")
    assert study.user_attrs["emseg.identity"]["protocol"]["name"] == "heldout"


def test_another_space_or_other_data_is_refused_with_what_changed(params, settings, source, stack):
    from dataclasses import replace

    open_study(settings, source, "mine")
    open_study(settings, source, "mine")
    with pytest.raises(InputError, match=r"another tuning.*mine-2"):
        open_study(changed(params, space={"sigma": {"high": 12.0}}), source, "mine")
    with pytest.raises(InputError, match="another data"):
        open_study(settings, replace(source, images=source.images // 2), "mine")
    # How many trials is not what it searches.
    open_study(
        settings.model_copy(update={"tuning": settings.tuning.model_copy(update={"trials": 99})}), source, "mine"
    )


@pytest.mark.parametrize(
    ("tuning", "sentence"),
    [
        ({"model": "nothing"}, "tuning.model is nothing"),
        ({"metric": "beauty"}, "tuning.metric"),
        ({"space": {"sigma": {"low": 9.0, "high": 2.0}}}, "low must be below high"),
        ({"space": {"widht": {"low": 1, "high": 2}}}, "widht is not a setting"),
        ({"space": {"loss": []}}, "tuning.space.loss"),
        ({"space": {"loss": ["bce"]}}, "w0 needs weighted_bce"),
        ({"space": {"base_channels": {"low": 2.5, "high": 4.0}}}, "whole numbers"),
        ({"space": {"augmentation_strength": {"low": 0.5, "high": 2.0}}}, "fresh"),
    ],
)
def test_bad_studies_are_one_sentence_and_leave_nothing(params, source, tuning, sentence):
    with pytest.raises(InputError, match=sentence):
        open_study(changed(params, **tuning), source, "bad")
    assert not (params.parent / "runs").exists()


@pytest.mark.parametrize("storage", ["sqlite:////nowhere/at/all.db", "postgresql+psycopg://lab@127.0.0.1:9/none", None])
def test_a_storage_that_cannot_be_used_is_one_sentence(params, emseg, storage):
    if storage is None:
        (params.parent / "runs").mkdir()
        (params.parent / "runs/tuning").write_text("in the way of the journal's folder")
    before = sorted(params.parent.rglob("*"))
    code, _, err = emseg("tune", "run", "--settings", params, *(["--storage", storage] if storage else []))
    assert code == 2
    assert "cannot be used" in err
    assert err.count("\n") == 1
    assert sorted(params.parent.rglob("*")) == before


def test_trials_that_diverge_or_are_too_large_do_not_end_the_study(params, source, monkeypatch):
    import emseg.tuning.worker as worker
    from emseg.training.trainer import TrainingDiverged

    settings = changed(params, largest_gflop=1e-9)
    study = open_study(settings, source, "large")
    run_worker(study, settings, source, Events())
    assert {trial.state.name for trial in study.trials[:4]} == {"PRUNED"}
    assert "too large" in study.trials[0].user_attrs["status"]

    def diverges(*_, **__):
        raise TrainingDiverged("step 3: loss nan")

    monkeypatch.setattr(worker, "train_model", diverges)
    settings = changed(params, largest_gflop=None)
    study = open_study(settings, source, "wild")
    run_worker(study, settings, source, Events())
    finished = [trial for trial in study.trials if trial.state.is_finished()]
    assert {trial.state.name for trial in finished} == {"FAIL"}
    assert finished[0].user_attrs["status"] == "diverged"
    assert set(trials_table(study)["status"]) >= {"diverged"}
    with pytest.raises(InputError, match="no complete trial"):
        apply_best(study, settings, params)


def test_a_journal_whose_last_line_was_cut_goes_on_without_it(params, settings, source, capsys):
    study = open_study(changed(params, trials=1), source, "cut")
    run_worker(study, changed(params, trials=1), source, Events())
    journal = Path("runs/tuning/cut/journal.log")
    whole = journal.read_bytes()
    for tail in (b'{"op_code":6,"wor', b"\x00" * 40, b'{"op_code":6}'):
        journal.write_bytes(whole + tail)
        again = open_study(changed(params, trials=2), source, "cut")
        assert "journal.log: the last line was cut short and is dropped" in capsys.readouterr().err
        assert again.trials[0].value == study.trials[0].value
    run_worker(again, changed(params, trials=2), source, Events())
    assert sum(trial.state.is_finished() for trial in again.trials) == 2
    journal.write_bytes(b"half a line\n" + journal.read_bytes())
    with pytest.raises(InputError, match=r"journal.log is damaged in line 1.*--name"):
        open_study(settings, source, "cut")


def test_a_trial_that_was_done_again_counts_once(params, source):
    settings = changed(params, trials=3)
    study = open_study(settings, source, "again")
    study.optimize(lambda trial: 0.5, n_trials=1)
    dead = study.ask()
    dead.set_user_attr("worker", {"host": socket.gethostname(), "process": 2**22 + 1})
    run_worker(study, settings, source, Events())
    states = [trial.state.name for trial in study.trials]
    assert states[dead.number] == "FAIL"
    assert count_trials(study) == 3
    assert sum(state in ("COMPLETE", "PRUNED") for state in states) == 3


def test_a_study_that_ends_closes_the_mlflow_runs_of_trials_that_were_killed(params, source, store):
    settings = changed(params, trials=1)
    study = tune(settings, source)
    dead, alive = study.ask(), study.ask()
    for trial, process in ((dead, 2**22 + 1), (alive, os.getpid())):
        trial.set_user_attr("worker", {"host": socket.gethostname(), "process": process})
        StudyMirror(study.study_name, "cortex", "heldout", ["dice"], {}).began(trial, {})
    tune(settings, source)
    experiment = store.get_experiment_by_name("cortex-heldout-tuning")
    runs = store.search_runs([experiment.experiment_id])
    status = {run.data.tags.get("emseg.trial", "").rpartition("/")[2]: run.info.status for run in runs}
    assert status[str(dead.number)] == "FAILED"
    assert status[str(alive.number)] == "RUNNING"
    assert study.trials[dead.number].state.name == "FAIL"
    # The study has all its trials, so none is done again.
    assert not [trial for trial in study.trials if "again" in trial.user_attrs]


WORKER = """
import sys, torch
torch.set_num_threads(1)
from emseg.cli import main
sys.argv = ["emseg", "tune", "run", "--settings", sys.argv[1], "--name", "shared", "--json"]
main()
"""


def test_workers_share_a_study_and_a_killed_ones_trial_is_done_again(params, source, store):
    changed(params, trials=8)
    values = read_yaml(params)
    values["training"] |= {"epochs": 6, "images_per_epoch": 16}
    params.write_text(yaml.safe_dump(values, sort_keys=False))
    settings = load_settings(params)
    command = [sys.executable, "-c", WORKER, params]
    victim = subprocess.Popen(command, cwd=params.parent, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    journal = params.parent / "runs/tuning/shared/journal.log"
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and not list(
        params.parent.glob("runs/tuning/shared/trial-*/training/history.csv")
    ):
        time.sleep(0.01)
    victim.send_signal(signal.SIGKILL)
    victim.wait()
    assert journal.is_file()
    workers = [subprocess.Popen(command, cwd=params.parent, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    outputs = [worker.communicate(timeout=240)[0] for worker in workers]
    assert [worker.returncode for worker in workers] == [0, 0]
    study = open_study(settings, source, "shared")
    states = [trial.state.name for trial in study.trials]
    finished = [trial for trial in study.trials if trial.state.is_finished()]
    # The dead one's trial counts when it is done again.
    assert len([state for state in states if state in ("COMPLETE", "PRUNED")]) >= 8
    assert "RUNNING" not in states
    assert len({trial.user_attrs["worker"]["process"] for trial in finished}) == 3
    (dead,) = [trial for trial in finished if trial.user_attrs["worker"]["process"] == victim.pid]
    assert dead.state.name == "FAIL"
    again = [trial for trial in study.trials if trial.user_attrs.get("again") == dead.number]
    assert len(again) == 1
    assert again[0].user_attrs["point"] == dead.user_attrs["point"]
    experiment = store.get_experiment_by_name("cortex-heldout-tuning")
    runs = {run.data.tags.get("emseg.trial"): run for run in store.search_runs([experiment.experiment_id])}
    assert runs[f"shared/{dead.number}"].data.tags["emseg.message"] == "its worker was killed"
    expected = {"COMPLETE": "FINISHED", "PRUNED": "KILLED", "FAIL": "FAILED"}
    for trial in finished:
        assert runs[f"shared/{trial.number}"].info.status == expected[trial.state.name]
    assert json.loads(outputs[0])["study"] == "shared"
    assert os.environ["MLFLOW_TRACKING_URI"]
