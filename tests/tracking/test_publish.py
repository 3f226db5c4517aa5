import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from emseg.data.io.stack import write_stack
from emseg.data.sources import Source
from emseg.data.synthetic import make_synthetic
from emseg.errors import InputError
from emseg.evaluation.evaluate import calibrate_and_evaluate
from emseg.evaluation.transfer import evaluate_transfer
from emseg.metrics.scoring import ALL_METRICS, THRESHOLDED_METRICS
from emseg.records.evaluation import read_evaluated
from emseg.records.record import RunRecord
from emseg.registry.deliver import publish_records
from emseg.reporting.evaluation_figures import draw_evaluation
from emseg.tracking.delivery import RECORD_TAG
from emseg.tracking.live import live_mirror
from emseg.tracking.publish import EVALUATION_TAG, publish_record
from emseg.training.plan import RunPlan
from emseg.training.run import train_model
from emseg.training.trainer import TrainingDiverged


@pytest.fixture
def trained(tmp_path, tiny_settings, source):

    def train(model="weighted_unet", seed=0, **options):
        folder = tmp_path / "runs" / f"{model}-{seed}" / "training"
        return train_model(
            RunPlan(model, 0, seed, tiny_settings, source), folder, device=torch.device("cpu"), **options
        )

    return train


def all_runs(client):
    return client.search_runs([e.experiment_id for e in client.search_experiments()])


def steps(client, run_id, metric):
    return [entry.step for entry in client.get_metric_history(run_id, metric)]


def test_a_run_is_live_while_it_trains(trained, store):
    seen = []
    with live_mirror() as mirror:

        def watch(record):
            mirror(record)
            (run,) = all_runs(store)
            seen.append((run.info.status, len(steps(store, run.info.run_id, "train/loss"))))

        trained(after_epoch=watch)
    assert seen == [("RUNNING", 0), ("RUNNING", 1), ("RUNNING", 2), ("RUNNING", 3), ("FINISHED", 3)]


def test_everything_of_a_run_arrives_once(trained, source, store):
    record = trained()
    calibrate_and_evaluate(record, source, draw=draw_evaluation)
    run_id = publish_record(store, record)
    assert publish_record(store, record) == run_id
    (run,) = all_runs(store)
    assert run.info.status == "FINISHED"
    assert run.info.run_name == "weighted_unet-fold0-seed0"
    assert store.get_experiment(run.info.experiment_id).name == "cortex-heldout"
    assert steps(store, run_id, "train/loss") == [1, 2, 3]
    assert steps(store, run_id, "validation/dice") == [1, 2, 3]
    assert len(steps(store, run_id, "dice")) == 1

    evaluated = read_evaluated(record.evaluation_folder)
    metrics, table = evaluated.evaluation.metrics, evaluated.table
    assert not set(THRESHOLDED_METRICS) & set(run.data.metrics)
    for name in set(ALL_METRICS) - set(THRESHOLDED_METRICS):
        assert run.data.metrics[name] == pytest.approx(metrics[name].mean)
        assert run.data.metrics[name] == pytest.approx(table[name].mean(), abs=1e-6)
    assert run.data.params["weight_map.sigma"] == "5.0"
    assert run.data.params["training.learning_rate"] == "0.004"
    tags = run.data.tags
    assert tags[RECORD_TAG] == record.read().id
    assert tags["data.digest"] == source.digest
    assert (tags["protocol"], tags["leaks"], tags["model"]) == ("heldout", "false", "weighted_unet")
    assert {"git.dirty", "code.digest", "collapsed", EVALUATION_TAG} <= set(tags)

    (dataset,) = {(entry.dataset.name, entry.dataset.digest) for entry in run.inputs.dataset_inputs}
    assert dataset == ("cortex", source.digest)
    artifacts = {file.path for file in store.list_artifacts(run_id)}
    assert {"record", "panels", "overlays", "images"} <= artifacts
    assert {"scores.csv", "scores.json", "baselines.csv", "curves.png", "thresholds.png"} <= artifacts
    assert len(store.list_artifacts(run_id, "panels")) == 2
    weights = {file.path for file in store.list_artifacts(run_id, "record")}
    assert "record/weights.safetensors" in weights


def test_scores_on_other_data_stand_beside_those_at_home(trained, source, store, capsys):
    record = trained("residual_unet")
    calibrate_and_evaluate(record, source)
    before = store.get_run(publish_record(store, record)).data.metrics
    others = [
        Source(name, images, labels > 0, images[:0], labels[:0] > 0)
        for name, (images, labels) in {"other": make_synthetic(2, 64, 8), "second": make_synthetic(2, 64, 9)}.items()
    ]
    found = evaluate_transfer(record, others[0])
    run_id = publish_record(store, record)
    assert publish_record(store, record) == run_id
    run = store.get_run(run_id)
    for name, interval in found.metrics.items():
        assert run.data.metrics[f"transfer/other/{name}"] == interval.mean
        assert run.data.metrics[f"transfer/other/interval/{name}_low"] == interval.low
    assert {key: value for key, value in run.data.metrics.items() if not key.startswith("transfer/")} == before
    assert len(steps(store, run_id, "transfer/other/v_rand")) == 1
    folder = record.transfers_folder / "other"
    artifacts = {Path(file.path).name for file in store.list_artifacts(run_id, "transfer/other")}
    assert artifacts == {file.name for file in folder.iterdir()}
    inputs = [(i.dataset.name, i.dataset.digest, [tag.value for tag in i.tags]) for i in run.inputs.dataset_inputs]
    assert sorted(inputs) == [
        ("cortex", record.read().data_digest, ["training, testing"]),
        ("other", others[0].digest, ["transfer"]),
    ]
    # What does not belong to the run is passed by, and the rest arrives.
    (folder / "scores.csv").write_text("section\n1\n")
    evaluate_transfer(record, others[1])
    capsys.readouterr()
    publish_record(store, record)
    assert "passed by" in capsys.readouterr().err
    assert "transfer/second/v_rand" in store.get_run(run_id).data.metrics


def test_several_seeds_fold_under_a_parent_with_their_mean(trained, source, store):
    records = [trained(seed=seed) for seed in (0, 1)]
    tables = []
    for record in records:
        calibrate_and_evaluate(record, source)
        tables.append(read_evaluated(record.evaluation_folder).table)
    first = publish_records(store, records[:1])
    assert first.parents == {}
    published = publish_records(store, records)
    assert publish_records(store, records) == published
    assert len(all_runs(store)) == 3
    assert sorted(published.versions.values()) == [1, 2]
    parent = store.get_run(published.parents["weighted_unet"])
    assert parent.info.run_name == "weighted_unet over 2 runs"
    for run_id in published.runs.values():
        assert store.get_run(run_id).data.tags["mlflow.parentRunId"] == parent.info.run_id
    for metric in ("v_rand", "dice"):
        mean = np.mean([table[metric].mean() for table in tables])
        assert parent.data.metrics[metric] == pytest.approx(mean, abs=1e-6)


def test_a_record_made_without_a_store_is_delivered_later(trained, store, monkeypatch, capsys):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    with live_mirror() as mirror:
        record = trained(after_epoch=mirror)
    message = capsys.readouterr().err
    assert message.count("training goes on") == 1
    assert "emseg publish" in message
    assert record.read().status == "finished"
    assert not all_runs(store)
    publish_record(store, record)
    (run,) = all_runs(store)
    assert steps(store, run.info.run_id, "train/loss") == [1, 2, 3]


def test_killed_training_reads_as_failed_and_goes_on_as_the_same_run(trained, store):
    class Killed(BaseException):
        pass

    def kill(record):
        if len(record.history()) == 2:
            raise Killed

    with pytest.raises(Killed):
        trained(after_epoch=kill)
    folder = next(Path("runs").glob("*/training"))
    publish_record(store, RunRecord(folder))
    (run,) = all_runs(store)
    assert run.info.status == "FAILED"
    assert "interrupted" in run.data.tags["emseg.message"]
    with live_mirror() as mirror:
        trained(after_epoch=mirror)
    (run,) = all_runs(store)
    assert run.info.status == "FINISHED"
    assert steps(store, run.info.run_id, "train/loss") == [1, 2, 3]


def test_divergence_reads_as_failed_with_its_reason(trained, store, monkeypatch):
    import emseg.training.run as run_module

    monkeypatch.setattr(run_module, "make_loss", lambda *_: lambda logits, *rest: logits.mean() * float("nan"))
    with pytest.raises(TrainingDiverged), live_mirror() as mirror:
        trained(after_epoch=mirror)
    (run,) = all_runs(store)
    assert run.info.status == "FAILED"
    assert "not finite" in run.data.tags["emseg.message"] or "nan" in run.data.tags["emseg.message"]


def test_every_byte_of_the_data_is_in_the_digest(tmp_path, source, stack):
    from emseg.data.sources import read_source

    images = stack[0].copy()
    images[-1, -1, -1] ^= 1
    write_stack(tmp_path / "other" / "images.tif", images)
    write_stack(tmp_path / "other" / "labels.tif", stack[1])
    assert read_source(tmp_path / "other", "cortex").digest != source.digest


def test_workers_that_start_together_on_no_store_all_succeed(tmp_path):
    code = "from emseg.tracking.store import connect; connect().search_experiments()"
    environment = os.environ | {"MLFLOW_TRACKING_URI": f"sqlite:///{tmp_path / 'new.db'}"}
    workers = [
        subprocess.Popen([sys.executable, "-c", code], env=environment, cwd=tmp_path, stderr=subprocess.PIPE)
        for _ in range(3)
    ]
    for worker in workers:
        _, error = worker.communicate(timeout=180)
        assert worker.returncode == 0, error.decode()


def test_panels_show_the_section(trained, source):
    from skimage.io import imread

    record = trained("unet2")
    evaluation = calibrate_and_evaluate(record, source, draw=draw_evaluation)
    assert evaluation.sections == 2
    panels = sorted((record.folder.parent / "evaluation" / "panels").glob("*.png"))
    assert [panel.name for panel in panels] == ["section-007.png", "section-008.png"]
    assert np.std(imread(panels[0])) > 10


def test_a_copy_with_damaged_or_without_weights_does_not_touch_those_of_the_run(trained, store, tmp_path):
    record = trained()
    run_id = publish_record(store, record)
    tags = store.get_run(run_id).data.tags
    whole = record.weights_file.read_bytes()
    record.weights_file.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(InputError, match="SHA-256 is not the record's"):
        publish_record(store, record)
    record.weights_file.unlink()
    assert publish_record(store, record) == run_id
    assert store.get_run(run_id).data.tags["weights.sha256"] == tags["weights.sha256"]
    kept = store.download_artifacts(run_id, "record/weights.safetensors", str(tmp_path))
    assert Path(kept).read_bytes() == whole


def test_a_run_whose_delivery_was_cut_short_gets_the_rest(trained, store, monkeypatch):
    from mlflow import MlflowClient

    record = trained()

    def killed(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(MlflowClient, "log_batch", killed)
        with pytest.raises(KeyboardInterrupt):
            publish_record(store, record)
    run = store.get_run(publish_record(store, record))
    assert len(all_runs(store)) == 1
    assert run.data.params["training.learning_rate"] == "0.004"
    assert run.inputs.dataset_inputs
