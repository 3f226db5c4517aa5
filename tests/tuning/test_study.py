"""Studies: what is drawn, honest objectives, workers that share and die, and the way back to params.yaml."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import optuna
import pytest
import yaml

from emseg.data.augmented import fold_data
from emseg.errors import InputError
from emseg.metrics import v_rand
from emseg.settings import load_settings, merge, read_yaml
from emseg.training.run import load_or_make_augmented, split_of
from emseg.tuning.result import apply_best, trials_table
from emseg.tuning.space import apply_point, starting_points, suggest
from emseg.tuning.study import Events, open_study, run_worker, score_validation

SPACE = {
    "base_channels": {"low": 2, "high": 4, "step": 2},
    "dropout": ["off", "study", 0.1],
    "loss": ["bce", "weighted_bce"],
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


def test_w0_and_sigma_are_drawn_where_the_loss_has_a_weight_map_alone(settings):
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    points = [suggest(study.ask(), settings.tuning.space) for _ in range(30)]
    for point in points:
        assert ("w0" in point) == ("sigma" in point) == (point["loss"] == "weighted_bce")
        own = apply_point(settings, point)
        entry = own.models["residual_unet"]
        assert entry.loss == point["loss"]
        assert entry.network.base_channels == point["base_channels"]
        assert own.recipe("residual_unet").learning_rate == point["learning_rate"]
        assert entry.network.dropout == {"off": 0.0, "study": None, 0.1: 0.1}[point["dropout"]]
        if point["loss"] == "weighted_bce":
            assert (entry.weight_map.w0, entry.weight_map.sigma) == (point["w0"], point["sigma"])
    assert {point["loss"] for point in points} == {"bce", "weighted_bce"}


def test_the_current_settings_and_the_studys_come_first(settings):
    points = starting_points(settings)
    assert points[0]["loss"] == "bce"
    assert points[0]["base_channels"] == 2
    assert {"w0": 10.0, "sigma": 5.0}.items() <= next(p for p in points if p["loss"] == "weighted_bce").items()
    assert len(points) == len({json.dumps(point, sort_keys=True) for point in points})


def test_the_objective_uses_for_each_half_the_threshold_of_the_other(settings, source):
    data = fold_data(
        source,
        split_of(settings, source, 0),
        load_or_make_augmented(settings, source, split_of(settings, source, 0)),
        0,
    )
    random = np.random.default_rng(0)

    class Guess:
        def stream(self, images):
            for label in data.validation_labels:
                yield np.clip(label * 0.6 + random.random(label.shape) * 0.4, 0, 1).astype(np.float32)

    guess = Guess()
    probability = np.stack(list(guess.stream(None)))
    random = np.random.default_rng(0)
    value = score_validation(guess, data, "v_rand")
    # Two validation sections: each half is one of them.
    sections = [(probability[[z]], data.validation_labels[[z]]) for z in (0, 1)]
    thresholds = [v_rand(*section).threshold for section in sections]
    expected = [v_rand(*sections[0], thresholds[1]).value, v_rand(*sections[1], thresholds[0]).value]
    assert value == pytest.approx(np.mean(expected))


def test_a_study_runs_resumes_and_is_seen_in_mlflow(params, store, emseg):
    def tune(*arguments):
        return emseg("tune", "--settings", params, *arguments)

    code, out, err = tune("--json", "--trials", "3")
    assert code == 0, err
    first = json.loads(out)
    assert len(first["trials"]) >= 3
    assert first["trials"][0]["base_channels"] == 2
    values = [trial["value"] for trial in first["trials"] if trial["value"] is not None]
    assert first["best"]["value"] == pytest.approx(max(values))
    assert "best" in err
    second = json.loads(tune("--json", "--trials", "5")[1])
    assert [t for t in second["trials"] if t["trial"] < 3] == [t for t in first["trials"] if t["trial"] < 3]
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
    code, out, _ = tune("--apply", "--trials", "5")
    assert code == 0
    assert out.startswith("---")
    after = load_settings(params)
    tuned = after.models["tuned"]
    assert tuned.architecture == "residual_unet"
    assert tuned.network.base_channels == second["best"]["point"]["base_channels"]
    assert after.benchmark[-1] == "tuned"
    assert len(params.read_text().splitlines()) > len(before.splitlines())
    assert emseg("train", "tuned", "--settings", params)[0] == 0
    from emseg.training.record import RunRecord

    assert RunRecord.open("runs/single/tuned-fold0-seed0").load_network()


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
    removed = [line for line in diff.splitlines() if line.startswith("-") and not line.startswith("---")]
    assert not [line for line in removed if "tuned" in line]
    assert load_settings(params).models["tuned"].architecture == "residual_unet"
    assert not list(params.parent.glob(".params*"))


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
        ({"space": {"loss": ["bce"]}}, "need weighted_bce"),
        ({"space": {"base_channels": {"low": 2.5, "high": 4.0}}}, "whole numbers"),
        ({"space": {"augmentation_strength": {"low": 0.5, "high": 2.0}}}, "fresh"),
    ],
)
def test_bad_studies_are_one_sentence_and_leave_nothing(params, source, tuning, sentence):
    with pytest.raises(InputError, match=sentence):
        open_study(changed(params, **tuning), source, "bad")
    assert not (params.parent / "runs").exists()


def test_a_storage_that_cannot_be_reached_is_one_sentence(params, settings, source):
    from emseg.errors import RunError

    with pytest.raises(RunError, match="cannot be used"):
        open_study(settings, source, "away", "sqlite:////nowhere/at/all.db")


def test_trials_that_diverge_or_are_too_large_do_not_end_the_study(params, source, monkeypatch):
    import emseg.tuning.study as study_module
    from emseg.training.trainer import TrainingDiverged

    settings = changed(params, largest_gflop=1e-9)
    study = open_study(settings, source, "large")
    run_worker(study, settings, source, Events())
    assert {trial.state.name for trial in study.trials[:4]} == {"PRUNED"}
    assert "too large" in study.trials[0].user_attrs["status"]

    def diverges(*_, **__):
        raise TrainingDiverged("step 3: loss nan")

    monkeypatch.setattr(study_module, "train_model", diverges)
    settings = changed(params, largest_gflop=None)
    study = open_study(settings, source, "wild")
    run_worker(study, settings, source, Events())
    finished = [trial for trial in study.trials if trial.state.is_finished()]
    assert {trial.state.name for trial in finished} == {"FAIL"}
    assert finished[0].user_attrs["status"] == "diverged"
    assert set(trials_table(study)["status"]) >= {"diverged"}
    with pytest.raises(InputError, match="no complete trial"):
        apply_best(study, settings, params)


WORKER = """
import sys, torch
torch.set_num_threads(1)
from emseg.cli import main
sys.argv = ["emseg", "tune", "--settings", sys.argv[1], "--name", "shared", "--json"]
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
    assert len(finished) >= 8
    assert "RUNNING" not in states
    assert len({trial.user_attrs["worker"]["process"] for trial in finished}) == 3
    (dead,) = [trial for trial in finished if trial.user_attrs["worker"]["process"] == victim.pid]
    assert dead.state.name == "FAIL"
    again = [trial for trial in study.trials if trial.user_attrs.get("again") == dead.number]
    assert len(again) == 1
    assert again[0].user_attrs["point"] == dead.user_attrs["point"]
    assert json.loads(outputs[0])["study"] == "shared"
    assert os.environ["MLFLOW_TRACKING_URI"]
