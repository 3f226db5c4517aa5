"""Run record to MLflow run. Publishing is idempotent: a record is one run, however often it is published."""

from __future__ import annotations

import csv
import hashlib
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from emseg.errors import InputError, RunError
from emseg.evaluation.evaluate import evaluation_folder, metric_means
from emseg.files import hold
from emseg.records.calibration import CELLS_FILE
from emseg.records.checked import file_digest
from emseg.records.evaluation import read_evaluation, require_calibration, require_fit
from emseg.records.run import FAILED, FINISHED
from emseg.settings import LEAKING_PROTOCOLS
from emseg.text import markdown, plain
from emseg.tracking.location import artifact_location
from emseg.tracking.packaging import reading
from emseg.tracking.registry import RECORD_TAG, versions_of_record
from emseg.tracking.store import asking, connect, reason_of, store_uri
from emseg.training.record import RunRecord

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

WEIGHTS_TAG = "weights.sha256"
_NO_WEIGHTS = "not here"
EVALUATION_TAG = "emseg.evaluation"
_THRESHOLDS = {
    "cells": "threshold",
    "v_info": "v_info_threshold",
    "oracle": "oracle_threshold",
}
_PATIENCE = 600.0
_STATUS = {FINISHED: "FINISHED", FAILED: "FAILED"}


@dataclass(frozen=True)
class Delivery:
    """Everything of a record that goes to MLflow, read before anything is written there.

    Attributes:
        facts: record.json.
        name: of the run.
        tags, parameters: of a new run.
        epochs: per epoch its number, the time it ended in milliseconds, and its metrics by their name in MLflow.
        ended: when the run finished, in milliseconds.
        metrics: of the evaluation; None where there is none.
        scores: per section, as MLflow tables are.
        note: what the evaluation says, in Markdown.
        evaluation_digest: of the files that hold the evaluation.
    """

    facts: dict[str, Any]
    name: str
    tags: dict[str, str]
    parameters: list[Any]
    epochs: list[tuple[int, int, dict[str, float]]]
    ended: int
    metrics: dict[str, Any] | None = None
    scores: dict[str, Any] | None = None
    note: str = ""
    evaluation_digest: str = ""


def publish_record(client: MlflowClient, record: RunRecord, is_training: bool = False) -> str:
    """Bring the MLflow run of a record up to date with it, and return the run's id.

    Args:
        client: of the store.
        record: running, interrupted or finished.
        is_training: whether this process is training it right now.

    Raises:
        InputError: record or evaluation are damaged.
        RunError: the store refuses.
    """
    with publishing(record):
        return deliver(client, record, is_training)


@contextmanager
def publishing(record: RunRecord) -> Iterator[None]:
    """Hold a record against others that publish it; they wait.

    Raises:
        InputError: one still does after ten minutes.
    """
    folder = record.folder.parent
    # Who may only read a record can deliver it all the same; see `settle_run`.
    if not os.access(folder, os.W_OK):
        yield
        return
    with hold(folder / "publishing", f"another process is publishing {folder}; wait for it", _PATIENCE):
        yield


def deliver(client: MlflowClient, record: RunRecord, is_training: bool = False) -> str:
    """`publish_record` for who holds the record already."""
    from mlflow.entities import Metric

    delivery = read_delivery(record)
    with asking(f"publish {record.folder.parent}"):
        run_id = _find_or_create_run(client, delivery, is_training)
        delivered = max((metric.step for metric in client.get_metric_history(run_id, "train/loss")), default=0)
        for epoch, moment, row in delivery.epochs:
            if epoch > delivered:
                client.log_batch(run_id, metrics=[Metric(key, value, moment, epoch) for key, value in row.items()])
        status = delivery.facts["status"]
        if status == FINISHED:
            _log_end_of_training(client, run_id, record, delivery)
            _log_evaluation(client, run_id, record, delivery)
        interrupted = not is_training and record.is_interrupted()
        status = "FAILED" if interrupted else _STATUS.get(status, "RUNNING")
        if client.get_run(run_id).info.status != status:
            if status == "RUNNING":
                client.update_run(run_id, status=status)
            else:
                client.set_terminated(run_id, status)
        goes_on = "interrupted; the same command goes on from the last checkpoint"
        if message := goes_on if interrupted else delivery.facts["message"]:
            client.set_tag(run_id, "emseg.message", plain(message))
    return run_id


def settle_run(client: MlflowClient, record_id: str, experiment_id: str) -> str:
    """Leave one run of a record, where machines that could not see each other made several; return its id.

    Whoever comes last sees all of them, and all choose alike: the run of the version that stands for the record, else
    the first by start and id.
    """
    from mlflow.entities import ViewType

    found = client.search_runs([experiment_id], _of_record(record_id), run_view_type=ViewType.ALL)
    versions = versions_of_record(client, record_id)
    known = {run.info.run_id: run for run in found}
    active = [run for run in found if run.info.lifecycle_stage == "active"]
    kept = next((known[v.run_id] for v in versions if v.run_id in known), None) or min(active, key=_age)
    if kept.info.lifecycle_stage != "active":
        client.restore_run(kept.info.run_id)
    for run in active:
        if run.info.run_id != kept.info.run_id:
            client.delete_run(run.info.run_id)
    return kept.info.run_id


def read_delivery(record: RunRecord) -> Delivery:
    """Read all that is delivered.

    Raises:
        InputError: a part is damaged; the message names the run.
    """
    folder = evaluation_folder(record)
    with reading(record.folder.parent):
        facts = record.read()
        if record.weights_file.is_file():
            record.check_weights(facts)
        if not (facts["status"] == FINISHED and (folder / "metrics.json").is_file()):
            return _delivery_of_training(record, facts)
        metrics, table, _ = read_evaluation(folder)
        require_fit(facts, metrics, folder)
        require_calibration(folder.parent, facts, metrics)
        return replace(
            _delivery_of_training(record, facts),
            metrics=metrics | {"shown": _numbers(metrics)},
            scores=json.loads(table.to_json(orient="split", index=False)),
            note=_note(metrics, folder),
            evaluation_digest=evaluation_digest(folder),
        )


def _delivery_of_training(record: RunRecord, facts: dict[str, Any]) -> Delivery:
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
    settings = {key: facts[key] for key in ("model", "protocol", "fold", "seed", "parameters")}
    if facts["status"] == FINISHED:
        _ = [float(facts[key]) for key in ("seconds_per_epoch", "best_epoch", "training_seconds", "images_seen")]
    epochs = _epochs(record, facts)
    ended = _milliseconds(facts["finished"]) if facts["finished"] else 0
    return Delivery(
        facts,
        plain("-".join(map(str, [record.name, *given.values()]))),
        {key: plain(value) for key, value in (tags | given).items()},
        flat_parameters(settings | facts["settings"]),
        epochs,
        # No point of the end lies before those of the epochs.
        max(ended, epochs[-1][1] if epochs else 0),
    )


def _epochs(record: RunRecord, facts: dict[str, Any]) -> list[tuple[int, int, dict[str, float]]]:
    """Of each epoch: number, when it ended, metrics.

    When is reckoned from the record, so that whoever delivers a point, however often, delivers the same point.
    """
    moment = float(_milliseconds(facts["created"]))
    epochs = []
    for row in record.history():
        moment += 1000 * row.get("seconds", 0.0)
        metrics = {_metric_name(key): value for key, value in row.items() if key != "epoch"}
        epochs.append((int(row["epoch"]), int(moment), metrics))
    return epochs


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


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Let Ctrl-C wait until a delivery is done: hit in the middle, a database leaves locks and tracebacks behind.

    A second Ctrl-C does not wait.
    """
    before = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or before is None:
        yield
        return
    came: list[int] = []

    def note(number: int, _: object) -> None:
        if came:
            raise KeyboardInterrupt
        came.append(number)

    signal.signal(signal.SIGINT, note)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if came:
        raise KeyboardInterrupt


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
            with _undisturbed():
                self.client = self.client or connect()
                publish_record(self.client, self.record, is_training)
        except Exception as error:
            self.broken = True
            reason = error if isinstance(error, InputError | RunError) else f"MLflow failed: {reason_of(error)}"
            print(
                f"{reason}; training goes on, `emseg publish {self.record.folder}` delivers the run later",
                file=sys.stderr,
            )


def _find_or_create_run(client: MlflowClient, delivery: Delivery, is_training: bool) -> str:
    from mlflow.entities import ViewType

    facts = delivery.facts
    experiment_id = experiment_of(client, facts["dataset"], facts["protocol"])
    found = client.search_runs([experiment_id], _of_record(facts["id"]))
    if not found and not is_training and (versions := versions_of_record(client, facts["id"])):
        # A run that was deleted is made anew, unless a version stands on it.
        deleted = client.search_runs([experiment_id], _of_record(facts["id"]), run_view_type=ViewType.DELETED_ONLY)
        if found := [run for run in deleted if run.info.run_id == versions[0].run_id]:
            client.restore_run(found[0].info.run_id)
    if not found:
        run = client.create_run(experiment_id, run_name=delivery.name, tags=delivery.tags)
        # Another machine may have done the same; whichever run is left is the same for both.
        found = client.search_runs([experiment_id], _of_record(facts["id"])) or [run]
        first = min(found, key=_age).info.run_id
        if first != run.info.run_id:
            client.delete_run(run.info.run_id)
            return first
    kept = min(found, key=_age)
    # A delivery may have been cut short right after it had made the run.
    if not kept.data.params:
        client.log_batch(kept.info.run_id, params=delivery.parameters)
    if kept.inputs is None or not kept.inputs.dataset_inputs:
        _log_dataset(client, kept.info.run_id, facts)
    return kept.info.run_id


def _of_record(record_id: str) -> str:
    return f"tags.`{RECORD_TAG}` = '{record_id}'"


def _age(run: Run) -> tuple[int, str]:
    return run.info.start_time, run.info.run_id


def experiment_of(client: MlflowClient, dataset: str, protocol: str) -> str:
    """Id of the experiment of a dataset and protocol, made where there is none, restored where it was deleted."""
    from mlflow.exceptions import MlflowException

    leaking = protocol in LEAKING_PROTOCOLS
    name = f"{dataset}-{protocol}" + ("-leaks" if leaking else "")
    if existing := client.get_experiment_by_name(name):
        if existing.lifecycle_stage != "active":
            client.restore_experiment(existing.experiment_id)
            print(f"the experiment {plain(name)} had been deleted in MLflow; it is restored", file=sys.stderr)
        return existing.experiment_id
    note = f"Membrane segmentation of {markdown(dataset)} under protocol {markdown(protocol)}."
    if leaking:
        note += " This protocol leaks: it tests on warped copies of training sections."
    location = artifact_location(store_uri(), name)
    try:
        return client.create_experiment(name, location, tags={"mlflow.note.content": note})
    except MlflowException:
        # Another process may have made it between the look and the making.
        if made := client.get_experiment_by_name(name):
            return made.experiment_id
        raise


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
    # One entry: MLflow keeps a single context for a dataset of a run.
    inputs = DatasetInput(entity, [InputTag("mlflow.data.context", "training, testing")])
    client.log_inputs(run_id, datasets=[inputs])


def _log_end_of_training(client: MlflowClient, run_id: str, record: RunRecord, delivery: Delivery) -> None:
    facts = delivery.facts
    # A run that was packed elsewhere may have left large weights behind.
    weights = file_digest(record.weights_file) if record.weights_file.is_file() else _NO_WEIGHTS
    known = client.get_run(run_id).data.tags.get(WEIGHTS_TAG)
    if known == weights or (weights == _NO_WEIGHTS and known is not None):
        return
    metrics = {
        "train/seconds_per_epoch": facts["seconds_per_epoch"],
        "train/best_epoch": facts["best_epoch"],
        "train/seconds": facts["training_seconds"],
        "train/flop": float(facts["flop_per_crop"]) * facts["images_seen"],
    }
    log_final_metrics(client, run_id, metrics, delivery.ended)
    for file in sorted(record.folder.iterdir()):
        if file.name in ("record.json", "history.csv", "weights.safetensors"):
            client.log_artifact(run_id, str(file), "record")
    client.set_tag(run_id, "collapsed", str(facts["collapsed"]).lower())
    client.set_tag(run_id, WEIGHTS_TAG, weights)


def log_final_metrics(client: MlflowClient, run_id: str, metrics: dict[str, float], ended: int) -> None:
    """Log metrics that have one value, at the time the run ended; a later value, at the time it is delivered."""
    from mlflow.entities import Metric

    known = client.get_run(run_id).data.metrics
    points = []
    for name, value in metrics.items():
        # Epochs have points of some of these names too, but none at step 0.
        before = [p for p in client.get_metric_history(run_id, name) if p.step == 0] if name in known else []
        if value not in [point.value for point in before[-1:]]:
            points.append(Metric(name, value, int(time.time() * 1000) if before else ended, 0))
    client.log_batch(run_id, metrics=points)


def _log_evaluation(client: MlflowClient, run_id: str, record: RunRecord, delivery: Delivery) -> None:
    metrics, folder = delivery.metrics, evaluation_folder(record)
    if metrics is None or client.get_run(run_id).data.tags.get(EVALUATION_TAG) == delivery.evaluation_digest:
        return
    import numpy as np
    from skimage.io import imread

    log_final_metrics(client, run_id, metrics["shown"], delivery.ended)
    client.log_dict(run_id, delivery.scores, "scores.json")
    client.log_artifacts(run_id, str(folder))
    if (cells := folder.parent / CELLS_FILE).is_file():
        client.log_artifact(run_id, str(cells))
    for picture in [*sorted(folder.glob("panels/*.png")), *sorted(folder.glob("overlays/*.png"))]:
        with reading(record.folder.parent):
            pixels = np.asarray(imread(picture))[..., :3]
        client.log_image(run_id, pixels, key=f"{picture.parent.name}-{picture.stem}", step=0, synchronous=True)
    client.set_tag(run_id, "collapsed", str(metrics["collapsed"]).lower())
    client.set_tag(run_id, "mlflow.note.content", delivery.note)
    # Last, so that a delivery that was cut short is done again.
    client.set_tag(run_id, EVALUATION_TAG, delivery.evaluation_digest)


def evaluation_digest(folder: Path) -> str:
    """Of the files of an `evaluation` folder that decide how its model segments and what it is worth."""
    digest = hashlib.sha256()
    for name in ("metrics.json", "scores.csv"):
        if (folder / name).is_file():
            digest.update(name.encode() + (folder / name).read_bytes())
    return digest.hexdigest()[:32]


def _numbers(metrics: dict[str, Any]) -> dict[str, float]:
    """Every metric of an evaluation as MLflow has it."""
    thresholds = {f"threshold/{name}": metrics[key] for name, key in _THRESHOLDS.items()}
    return {name: float(value) for name, value in (metric_means(metrics) | thresholds).items()}


def _note(metrics: dict[str, Any], folder: Path) -> str:
    with (folder / "scores.csv").open(encoding="utf-8") as file:
        sections = ", ".join(markdown(row["section"]) for row in csv.DictReader(file))
    leaks = " **This protocol leaks: an upper bound, not a generalisation figure.**" if metrics["leaks"] else ""
    model, dataset, protocol, cells, threshold = (
        markdown(metrics.get(key, "threshold")) for key in ("model", "dataset", "protocol", "cells", "threshold")
    )
    return (
        f"{model} on {dataset}, protocol {protocol}.{leaks} "
        f"V_rand {metrics['v_rand']['mean']:.4f} (cells by {cells} at {threshold}), "
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


def _milliseconds(moment: str) -> int:
    """Of a time as records have it."""
    return int(datetime.fromisoformat(moment).timestamp() * 1000)
