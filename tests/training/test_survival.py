"""Killed, cut off from the disk or from MLflow, or with a spoilt checkpoint: nothing is lost."""

import json
import os
import resource
import subprocess
import sys
import zipfile

import pytest
import torch
import yaml
from safetensors.torch import load_file

from emseg.data.sources import load_source
from emseg.errors import InputError, RunError
from emseg.records.record import RunRecord
from emseg.records.run import FINISHED
from emseg.settings import load_settings, merge, read_yaml
from emseg.training.plan import RunPlan
from emseg.training.run import train_model

# Children are forked from a process that has everything imported, so that a kill costs milliseconds, not seconds.
KILLED_AT_RANDOM = """
import os, random, signal, sys, time
from pathlib import Path
import torch, mlflow
from mlflow import MlflowClient
from emseg.data.sources import load_source
from emseg.settings import load_settings
from emseg.tracking.live import live_mirror
from emseg.training.plan import RunPlan
from emseg.training.run import train_model
torch.set_num_threads(1)
settings = load_settings(sys.argv[1])
source = load_source("cortex", Path(sys.argv[2]))
folder, kills = Path(sys.argv[3]), 0
random.seed(0)
for attempt in range(60):
    child = os.fork()
    if child == 0:
        with live_mirror() as mirror:
            train_model(RunPlan("weighted_unet", 0, 0, settings, source), folder, after_epoch=mirror)
        os._exit(0)
    patience = random.uniform(0.05, 1.3) if attempt < 50 else 60
    until = time.monotonic() + patience
    while time.monotonic() < until:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            assert status == 0, status
            print(kills)
            sys.exit(0)
        time.sleep(0.002)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    kills += 1
sys.exit("never finished")
"""


def with_changes(params, **training):
    values = read_yaml(params)
    merge(values, {"training": training})
    params.write_text(yaml.safe_dump(values, sort_keys=False))
    return load_settings(params)


def train(settings, source, folder, seed=0, **options):
    return train_model(RunPlan("weighted_unet", 0, seed, settings, source), folder, **options)


def assert_same_run(first, second):
    losses = [[(row["epoch"], row["train_loss"]) for row in record.history()] for record in (first, second)]
    assert losses[0] == losses[1]
    one, two = (load_file(record.weights_file) for record in (first, second))
    assert one.keys() == two.keys()
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_killed_at_random_moments_it_ends_with_the_same_weights(tmp_path, tiny_params, source_folder, store):
    settings = with_changes(
        tiny_params, epochs=16, images_per_epoch=24, augmentation="fresh", weight_average=0.9, select="best"
    )
    source = load_source("cortex", source_folder.parent)
    undisturbed = train(settings, source, tmp_path / "undisturbed")
    disturbed = RunRecord(tmp_path / "disturbed")
    done = subprocess.run(
        [sys.executable, "-c", KILLED_AT_RANDOM, tiny_params, source_folder.parent, disturbed.folder],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) >= 10
    assert disturbed.read().status == FINISHED
    assert_same_run(undisturbed, disturbed)
    # One MLflow run, every epoch once.
    experiment = store.get_experiment_by_name("cortex-heldout").experiment_id
    (run,) = store.search_runs([experiment], f"tags.`emseg.record_id` = '{disturbed.read().id}'")
    steps = [metric.step for metric in store.get_metric_history(run.info.run_id, "train/loss")]
    assert steps == list(range(1, 17))
    assert run.info.status == "FINISHED"


class Stop(Exception):  # noqa: N818
    pass


def stopped_after(epochs):
    def stop(record):
        if len(record.history()) == epochs:
            raise Stop

    return stop


@pytest.mark.parametrize("optimizer", ["adam", "muon"])
def test_a_stopped_run_goes_on_with_the_state_of_its_optimiser(tmp_path, tiny_params, source, optimizer):
    settings = with_changes(tiny_params, optimizer=optimizer)
    undisturbed = train(settings, source, tmp_path / "undisturbed")
    with pytest.raises(Stop):
        train(settings, source, tmp_path / "run", after_epoch=stopped_after(2))
    assert_same_run(undisturbed, train(settings, source, tmp_path / "run"))


@pytest.mark.parametrize("damage", ["truncated", "empty", "garbage", "missing", "flipped"])
def test_a_spoilt_checkpoint_falls_back_to_the_one_before(tmp_path, tiny_settings, source, capfd, damage):
    undisturbed = train(tiny_settings, source, tmp_path / "undisturbed")
    with pytest.raises(Stop):
        train(tiny_settings, source, tmp_path / "run", after_epoch=stopped_after(2))
    last = tmp_path / "run" / "checkpoint.pt"
    if damage == "missing":
        last.unlink()
    else:
        whole = last.read_bytes()
        with zipfile.ZipFile(last) as parts:
            # Of the largest tensor: its numbers stand in the file as they are.
            part = max(parts.infolist(), key=lambda part: part.file_size)
            bit = whole.index(parts.read(part)) + part.file_size // 2
        flipped = whole[:bit] + bytes([whole[bit] ^ 1]) + whole[bit + 1 :]
        cut, garbage = whole[: len(whole) // 2], b"x" * len(whole)
        last.write_bytes({"truncated": cut, "empty": b"", "garbage": garbage, "flipped": flipped}[damage])
    epochs = []
    disturbed = train(
        tiny_settings, source, tmp_path / "run", after_epoch=lambda record: epochs.append(len(record.history()))
    )
    assert epochs[0] == 1
    assert_same_run(undisturbed, disturbed)
    if damage != "missing":
        assert "checkpoint.pt cannot be read" in capfd.readouterr().err


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", None])
def test_a_run_whose_record_was_damaged_goes_on_from_its_checkpoint(tmp_path, tiny_settings, source, capfd, content):
    undisturbed = train(tiny_settings, source, tmp_path / "undisturbed")
    with pytest.raises(Stop):
        train(tiny_settings, source, tmp_path / "run", after_epoch=stopped_after(2))
    file = tmp_path / "run" / "record.json"
    before = file.read_bytes()
    file.write_bytes(before.replace(b'"seed": 0', b'"seed": 1') if content is None else content)
    (tmp_path / "run" / "history.csv").write_text("")
    epochs = []
    again = train(tiny_settings, source, tmp_path / "run", after_epoch=lambda record: epochs.append(record.history()))
    assert len(epochs[0]) == 2
    assert "written anew from the checkpoint of epoch 2" in capfd.readouterr().err
    assert json.loads(before)["id"] == again.read().id
    assert_same_run(undisturbed, again)


def test_a_finished_run_whose_record_was_damaged_is_not_trained_over(tmp_path, tiny_settings, source):
    record = train(tiny_settings, source, tmp_path / "run")
    weights = record.weights_file.read_bytes()
    (tmp_path / "run" / "record.json").write_text("")
    with pytest.raises(InputError, match=r"record.json is damaged .*; bring it back, or remove"):
        train(tiny_settings, source, tmp_path / "run")
    assert record.weights_file.read_bytes() == weights


def test_both_checkpoints_spoilt_begins_again(tmp_path, tiny_settings, source):
    undisturbed = train(tiny_settings, source, tmp_path / "undisturbed")
    with pytest.raises(Stop):
        train(tiny_settings, source, tmp_path / "run", after_epoch=stopped_after(2))
    for file in (tmp_path / "run").glob("checkpoint*.pt"):
        file.write_bytes(b"")
    assert_same_run(undisturbed, train(tiny_settings, source, tmp_path / "run"))


def test_a_finished_run_is_kept_without_its_augmented_set_being_made_again(
    tmp_path, tiny_settings, source, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "run"
    first = train_model(RunPlan("weighted_unet", 0, 0, tiny_settings, source), folder).read()

    def never(*_):
        raise AssertionError("the augmented set was made")

    monkeypatch.setattr("emseg.training.plan.make_augmented", never)
    assert train_model(RunPlan("weighted_unet", 0, 0, tiny_settings, source), folder).read() == first
    with pytest.raises(AssertionError, match="was made"):
        train_model(RunPlan("weighted_unet", 0, 1, tiny_settings, source), folder, replace_finished=True)
    (folder / "weights.safetensors").write_bytes(b"damaged")
    with pytest.raises(AssertionError, match="was made"):
        train_model(RunPlan("weighted_unet", 0, 0, tiny_settings, source), folder)


def test_an_unfinished_run_of_other_settings_is_replaced_with_a_word(tmp_path, tiny_settings, source, capfd):
    with pytest.raises(Stop):
        train(tiny_settings, source, tmp_path / "run", after_epoch=stopped_after(1))
    recipe = tiny_settings.training.model_copy(update={"learning_rate": 1e-3})
    train(tiny_settings.model_copy(update={"training": recipe}), source, tmp_path / "run", seed=1)
    said = capfd.readouterr().err
    assert "starting again; the unfinished run there, of 1 epoch(s), had another seed, training\n" in said


def test_a_full_disk_ends_in_a_sentence_and_the_run_goes_on_later(tmp_path, tiny_params, source_folder, train_script):
    settings = with_changes(tiny_params, epochs=3)
    source = load_source("cortex", source_folder.parent)
    undisturbed = train(settings, source, tmp_path / "undisturbed")
    with pytest.raises(Stop):
        train(settings, source, tmp_path / "run", after_epoch=stopped_after(1))
    record = RunRecord(tmp_path / "run")
    before = {file.name: file.read_bytes() for file in record.folder.iterdir() if file.name != "record.json"}
    # A limit on the size of files stands in for the full disk: writing a checkpoint fails in the middle.
    limit = len(before["checkpoint.pt"]) // 2
    done = subprocess.run(
        [sys.executable, train_script, tiny_params, source_folder.parent, record.folder],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
    )
    assert done.returncode != 0
    assert "cannot be written" in done.stderr
    assert "nothing is lost" in done.stderr
    assert (record.folder / "checkpoint.pt").read_bytes() == before["checkpoint.pt"]
    assert not list(record.folder.glob(".*tmp*"))
    assert_same_run(undisturbed, train(settings, source, record.folder))


def test_a_folder_that_cannot_be_written_is_refused_before_training(tmp_path, tiny_settings, source):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be written"):
        train(tiny_settings, source, tmp_path / "file" / "runs" / "run")


def test_a_store_that_dies_while_training_costs_nothing(tmp_path, tiny_settings, source, store, capfd):
    from emseg.tracking.live import live_mirror
    from emseg.tracking.publish import publish_record

    database = tmp_path / "mlflow.db"

    with live_mirror() as mirror:

        def after_epoch(record):
            if len(record.history()) == 1 and database.exists():
                database.rename(tmp_path / "gone")
                database.mkdir()
            mirror(record)

        mirror.client = store
        record = train(tiny_settings, source, tmp_path / "run", after_epoch=after_epoch)
    assert record.read().status == FINISHED
    assert "delivers the run later" in capfd.readouterr().err
    database.rmdir()
    (tmp_path / "gone").rename(database)
    run = publish_record(store, record)
    assert [m.step for m in store.get_metric_history(run, "train/loss")] == [1, 2, 3]
    assert os.environ["MLFLOW_TRACKING_URI"].endswith("mlflow.db")


def test_a_time_budget_ends_the_run_and_keeps_weights(tmp_path, tiny_settings, source):
    recipe = tiny_settings.training.model_copy(update={"epochs": 10_000, "budget_minutes": 1 / 60})
    settings = tiny_settings.model_copy(update={"training": recipe})
    record = train(settings, source, tmp_path / "run")
    history = record.history()
    assert record.read().status == FINISHED
    assert record.weights_file.is_file()
    assert 1 <= len(history) < 10_000
    # The schedule was fitted to the budget: it came down to its end.
    assert history[-1]["learning_rate"] < 0.5 * settings.training.learning_rate


def test_errors_of_a_run_are_not_errors_of_input():
    assert not issubclass(RunError, InputError)
