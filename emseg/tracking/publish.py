"""Run record to MLflow run. Publishing is idempotent: a record is one run, however often it is published."""

from __future__ import annotations

import csv
import hashlib
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from emseg.records.evaluation import read_evaluation
from emseg.records.run import FAILED, FINISHED
from emseg.reporting.evaluation import evaluation_folder, metric_means
from emseg.settings import LEAKING_PROTOCOLS
from emseg.tracking.store import StoreUnreachableError, connect
from emseg.training.record import RunRecord

if TYPE_CHECKING:
    from mlflow import MlflowClient

RECORD_TAG = "emseg.record_id"
EVALUATION_TAG = "emseg.evaluation"
_THRESHOLDS = {
    "cells": "threshold",
    "v_info": "v_info_threshold",
    "oracle": "oracle_threshold",
}
_STATUS = {FINISHED: "FINISHED", FAILED: "FAILED"}


def publish_record(client: MlflowClient, record: RunRecord, is_training: bool = False) -> str:
    """Bring the MLflow run of a record up to date with it, and return the run's id.

    Args:
        client: of the store.
        record: running, interrupted or finished.
        is_training: whether this process is training it right now.
    """
    from mlflow.entities import Metric

    facts = record.read()
    run_id = _find_or_create_run(client, record, facts)
    delivered = max((metric.step for metric in client.get_metric_history(run_id, "train/loss")), default=0)
    for row in record.history():
        epoch = int(row["epoch"])
        if epoch > delivered:
            now = _milliseconds()
            metrics = [Metric(_metric_name(key), value, now, epoch) for key, value in row.items() if key != "epoch"]
            client.log_batch(run_id, metrics=metrics)
    if facts["status"] == FINISHED:
        _log_end_of_training(client, run_id, record, facts)
        _log_evaluation(client, run_id, record)
    interrupted = not is_training and record.is_interrupted()
    status = "FAILED" if interrupted else _STATUS.get(facts["status"], "RUNNING")
    if client.get_run(run_id).info.status != status:
        if status == "RUNNING":
            client.update_run(run_id, status=status)
        else:
            client.set_terminated(run_id, status)
    message = "interrupted; the same command goes on from the last checkpoint" if interrupted else facts["message"]
    if message:
        client.set_tag(run_id, "emseg.message", message)
    return run_id


@contextmanager
def live_mirror() -> Iterator[Any]:
    """Yield a function that brings MLflow up to date with a record while it trains.

    If the store cannot be reached it says so once and training goes on; `emseg publish` delivers later.
    """
    mirror = _LiveMirror()
    try:
        yield mirror
    except BaseException:
        mirror.stopped()
        raise


class _LiveMirror:
    def __init__(self) -> None:
        self.client: MlflowClient | None = None
        self.record: RunRecord | None = None
        self.broken = False

    def __call__(self, record: RunRecord) -> None:
        self.record = record
        self._attempt(is_training=record.read()["status"] != FINISHED)

    def stopped(self) -> None:
        if self.record is not None:
            self._attempt(is_training=False)

    def _attempt(self, is_training: bool) -> None:
        if self.broken or self.record is None:
            return
        # Whatever the store does, training must not stop for it.
        try:
            self.client = self.client or connect()
            publish_record(self.client, self.record, is_training)
        except Exception as error:
            self.broken = True
            reason = error if isinstance(error, StoreUnreachableError) else f"MLflow failed: {error}"
            print(
                f"{' '.join(str(reason).split())}; training goes on, `emseg publish {self.record.folder}` "
                "delivers the run later",
                file=sys.stderr,
            )


def _find_or_create_run(client: MlflowClient, record: RunRecord, facts: dict[str, Any]) -> str:
    experiment_id = experiment_of(client, facts["dataset"], facts["protocol"])
    found = client.search_runs([experiment_id], f"tags.`{RECORD_TAG}` = '{facts['id']}'", max_results=1)
    if found:
        return found[0].info.run_id
    lineage = facts["lineage"]
    tags = {
        RECORD_TAG: facts["id"],
        "model": facts["model"],
        "protocol": facts["protocol"],
        "leaks": str(facts["protocol"] in LEAKING_PROTOCOLS).lower(),
        "data.digest": facts["data_digest"],
        "data.augmented_digest": facts["augmented_digest"],
        "code.digest": lineage["code_digest"],
        "git.dirty": str(lineage["git_dirty"]).lower(),
        "device": lineage["device"],
        **{f"dvc.{path.replace('/', '.')}": md5 for path, md5 in lineage["dvc"].items()},
    }
    if lineage["git_commit"]:
        tags["mlflow.source.git.commit"] = lineage["git_commit"]
        tags["git.commit"] = lineage["git_commit"]
    # What a list of jobs calls its runs; a run of the pipeline has neither.
    given = {key: facts[key] for key in ("profile", "variation") if facts.get(key)}
    name = "-".join([record.name, *given.values()])
    run = client.create_run(experiment_id, run_name=name, tags=tags | given)
    run_id = run.info.run_id
    settings = {key: facts[key] for key in ("model", "protocol", "fold", "seed", "parameters")}
    client.log_batch(run_id, params=flat_parameters(settings | facts["settings"]))
    _log_dataset(client, run_id, facts)
    return run_id


def experiment_of(client: MlflowClient, dataset: str, protocol: str) -> str:
    """Id of the experiment of a dataset and protocol, made where there is none."""
    leaking = protocol in LEAKING_PROTOCOLS
    name = f"{dataset}-{protocol}" + ("-leaks" if leaking else "")
    if existing := client.get_experiment_by_name(name):
        return existing.experiment_id
    note = f"Membrane segmentation of {dataset} under protocol {protocol}."
    if leaking:
        note += " This protocol leaks: it tests on warped copies of training sections."
    return client.create_experiment(name, tags={"mlflow.note.content": note})


def _log_dataset(client: MlflowClient, run_id: str, facts: dict[str, Any]) -> None:
    from mlflow.data.meta_dataset import MetaDataset
    from mlflow.entities import DatasetInput, InputTag

    from emseg.tracking.dataset import PreparedDatasetSource

    lineage = facts["lineage"]
    source = PreparedDatasetSource(
        "data/prepared", lineage["dvc"].get("data/prepared"), lineage["git_commit"], facts["dataset"]
    )
    dataset = MetaDataset(source, name=facts["dataset"], digest=facts["data_digest"])
    entity = dataset._to_mlflow_entity()
    inputs = [DatasetInput(entity, [InputTag("mlflow.data.context", context)]) for context in ("training, testing",)]
    client.log_inputs(run_id, datasets=inputs)


def _log_end_of_training(client: MlflowClient, run_id: str, record: RunRecord, facts: dict[str, Any]) -> None:
    # A run that was packed elsewhere may have left large weights behind.
    has_weights = record.weights_file.is_file()
    weights = hashlib.sha256(record.weights_file.read_bytes()).hexdigest() if has_weights else "not here"
    if client.get_run(run_id).data.tags.get("weights.sha256") == weights:
        return
    client.log_metric(run_id, "train/seconds_per_epoch", facts["seconds_per_epoch"])
    client.log_metric(run_id, "train/best_epoch", facts["best_epoch"])
    client.log_metric(run_id, "train/seconds", facts["training_seconds"])
    client.log_metric(run_id, "train/flop", float(facts["flop_per_crop"]) * facts["images_seen"])
    for file in sorted(record.folder.iterdir()):
        if file.name in ("record.json", "history.csv", "weights.safetensors"):
            client.log_artifact(run_id, str(file), "record")
    client.set_tag(run_id, "collapsed", str(facts["collapsed"]).lower())
    client.set_tag(run_id, "weights.sha256", weights)


def _log_evaluation(client: MlflowClient, run_id: str, record: RunRecord) -> None:
    folder = evaluation_folder(record)
    if not (folder / "metrics.json").is_file():
        return
    metrics, table, _ = read_evaluation(folder)
    digest = hashlib.sha256((folder / "scores.csv").read_bytes()).hexdigest()[:32]
    if client.get_run(run_id).data.tags.get(EVALUATION_TAG) == digest:
        return
    import numpy as np
    from skimage.io import imread

    thresholds = {f"threshold/{name}": metrics[key] for name, key in _THRESHOLDS.items()}
    for name, value in (metric_means(metrics) | thresholds).items():
        client.log_metric(run_id, name, value)
    client.log_dict(run_id, json.loads(table.to_json(orient="split", index=False)), "scores.json")
    client.log_artifacts(run_id, str(folder))
    for picture in [*sorted(folder.glob("panels/*.png")), *sorted(folder.glob("overlays/*.png"))]:
        pixels = np.asarray(imread(picture))[..., :3]
        client.log_image(run_id, pixels, key=f"{picture.parent.name}-{picture.stem}", step=0, synchronous=True)
    client.set_tag(run_id, "collapsed", str(metrics["collapsed"]).lower())
    client.set_tag(run_id, "mlflow.note.content", _note(metrics, folder))
    # Last, so that a delivery that was cut short is done again.
    client.set_tag(run_id, EVALUATION_TAG, digest)


def _note(metrics: dict[str, Any], folder: Path) -> str:
    with (folder / "scores.csv").open(encoding="utf-8") as file:
        sections = ", ".join(row["section"] for row in csv.DictReader(file))
    leaks = " **This protocol leaks: an upper bound, not a generalisation figure.**" if metrics["leaks"] else ""
    return (
        f"{metrics['model']} on {metrics['dataset']}, protocol {metrics['protocol']}.{leaks} "
        f"V_rand {metrics['v_rand']['mean']:.4f} (cells by {metrics.get('cells', 'threshold')} at "
        f"{metrics['threshold']}), "
        f"Dice {metrics['dice']['mean']:.4f}, pixel error {metrics['pixel_error']['mean']:.4f} "
        f"on test sections {sections}."
    )


def _metric_name(column: str) -> str:
    if column == "train_loss":
        return "train/loss"
    return f"validation/{column.removeprefix('validation_')}" if column.startswith("validation_") else f"train/{column}"


def flat_parameters(settings: dict[str, Any]) -> list[Any]:
    """Nested settings as MLflow parameters, with dotted names."""
    from mlflow.entities import Param

    return [Param(key, str(value)) for key, value in _flat(settings).items()]


def _flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value
    return flat


def _milliseconds() -> int:
    import time

    return int(time.time() * 1000)
