"""Run record to MLflow run. Publishing is idempotent: a record is one run, however often it is published."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from emseg.files import hold
from emseg.records.calibration import CELLS_FILE
from emseg.records.checked import file_digest, reading
from emseg.records.record import RunRecord
from emseg.records.run import FAILED, FINISHED
from emseg.records.run import Run as RunOfRecord
from emseg.settings import LEAKING_PROTOCOLS, TRANSFER
from emseg.text import markdown, plain
from emseg.tracking.delivery import RECORD_TAG, Delivery, read_delivery
from emseg.tracking.location import artifact_location
from emseg.tracking.store import asking, patiently, store_uri

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

    from emseg.tracking.dataset import PreparedDatasetSource

WEIGHTS_TAG = "weights.sha256"
_NO_WEIGHTS = "not here"
EVALUATION_TAG = "emseg.evaluation"
_TRANSFER_TAG = "emseg.transfer"
_PATIENCE = 600.0
_STATUS = {FINISHED: "FINISHED", FAILED: "FAILED"}


def publish_record(client: MlflowClient, record: RunRecord, is_training: bool = False, with_scores: bool = True) -> str:
    """Bring the MLflow run of a record up to date with it, and return the run's id.

    Args:
        client: of the store.
        record: running, interrupted or finished.
        is_training: whether this process is training it right now.
        with_scores: whether scores beside it are delivered too; a run that has just been trained may still lie beside
            those of the run before.

    Raises:
        InputError: record or evaluation are damaged.
        RunError: the store refuses.
    """
    with publishing(record):
        return deliver(client, record, is_training, with_scores)


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


def deliver(client: MlflowClient, record: RunRecord, is_training: bool = False, with_scores: bool = True) -> str:
    """`publish_record` for who holds the record already."""
    delivery = read_delivery(record, with_scores)
    with asking(f"publish {record.folder.parent}"):
        # What is there already is not delivered again, so that all of it may be tried again.
        return patiently(lambda: _bring_up_to_date(client, record, delivery, is_training))


def _bring_up_to_date(client: MlflowClient, record: RunRecord, delivery: Delivery, is_training: bool) -> str:
    from mlflow.entities import Metric

    run_id = _find_or_create_run(client, delivery, is_training)
    delivered = max((metric.step for metric in client.get_metric_history(run_id, "train/loss")), default=0)
    for epoch, moment, row in delivery.epochs:
        if epoch > delivered:
            client.log_batch(run_id, metrics=[Metric(key, value, moment, epoch) for key, value in row.items()])
    if delivery.run.status == FINISHED:
        _log_end_of_training(client, run_id, record, delivery)
        _log_evaluation(client, run_id, record, delivery)
        _log_transfers(client, run_id, delivery)
    interrupted = not is_training and record.is_interrupted()
    status = "FAILED" if interrupted else _STATUS.get(delivery.run.status, "RUNNING")
    if client.get_run(run_id).info.status != status:
        if status == "RUNNING":
            client.update_run(run_id, status=status)
        else:
            client.set_terminated(run_id, status)
    goes_on = "interrupted; the same command goes on from the last checkpoint"
    if message := goes_on if interrupted else delivery.run.message:
        client.set_tag(run_id, "emseg.message", plain(message))
    return run_id


def _find_or_create_run(client: MlflowClient, delivery: Delivery, is_training: bool) -> str:
    from mlflow.entities import ViewType

    trained = delivery.run
    experiment_id = experiment_of(client, trained.dataset, trained.protocol)
    found = client.search_runs([experiment_id], of_record(trained.id))
    if not found and not is_training:
        # A run that was deleted is made anew, unless a version stands on it.
        deleted = client.search_runs([experiment_id], of_record(trained.id), run_view_type=ViewType.DELETED_ONLY)
        if found := [run for run in deleted if client.search_model_versions(f"run_id = '{run.info.run_id}'")][:1]:
            client.restore_run(found[0].info.run_id)
    if not found:
        run = client.create_run(experiment_id, run_name=delivery.name, tags=delivery.tags)
        # Another machine may have done the same; whichever run is left is the same for both.
        found = client.search_runs([experiment_id], of_record(trained.id)) or [run]
        first = min(found, key=age).info.run_id
        if first != run.info.run_id:
            client.delete_run(run.info.run_id)
            return first
    kept = min(found, key=age)
    # A delivery may have been cut short right after it had made the run.
    if not kept.data.params:
        client.log_batch(kept.info.run_id, params=delivery.parameters)
    if kept.inputs is None or not kept.inputs.dataset_inputs:
        _log_dataset(client, kept.info.run_id, trained)
    return kept.info.run_id


def of_record(record_id: str) -> str:
    """Filter for the MLflow runs of a record."""
    return f"tags.`{RECORD_TAG}` = '{record_id}'"


def age(run: Run) -> tuple[int, str]:
    """What puts runs into an order that every machine sees alike."""
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


def _log_dataset(client: MlflowClient, run_id: str, trained: RunOfRecord) -> None:
    from emseg.tracking.dataset import PreparedDatasetSource

    lineage = trained.lineage
    source = PreparedDatasetSource(
        "data/prepared", lineage.dvc.get("data/prepared"), lineage.git_commit, trained.dataset
    )
    # One entry: MLflow keeps a single context for a dataset of a run.
    _log_input(client, run_id, source, trained.data_digest, "training, testing")


def _log_input(client: MlflowClient, run_id: str, source: PreparedDatasetSource, digest: str, context: str) -> None:
    from mlflow.data.meta_dataset import MetaDataset
    from mlflow.entities import DatasetInput, InputTag

    entity = MetaDataset(source, name=source.name, digest=digest)._to_mlflow_entity()
    client.log_inputs(run_id, datasets=[DatasetInput(entity, [InputTag("mlflow.data.context", context)])])


def _log_end_of_training(client: MlflowClient, run_id: str, record: RunRecord, delivery: Delivery) -> None:
    outcome = delivery.run.outcome
    # A run that was packed elsewhere may have left large weights behind.
    weights = file_digest(record.weights_file) if record.weights_file.is_file() else _NO_WEIGHTS
    known = client.get_run(run_id).data.tags.get(WEIGHTS_TAG)
    if known == weights or (weights == _NO_WEIGHTS and known is not None):
        return
    metrics = {
        "train/seconds_per_epoch": outcome.seconds_per_epoch,
        "train/best_epoch": outcome.best_epoch,
        "train/total_seconds": outcome.training_seconds,
        "train/flop": float(delivery.run.flop_per_crop) * outcome.images_seen,
    }
    log_final_metrics(client, run_id, metrics, delivery.ended)
    for file in sorted(record.folder.iterdir()):
        if file.name in ("record.json", "history.csv", "weights.safetensors"):
            client.log_artifact(run_id, str(file), "record")
    client.set_tag(run_id, "collapsed", str(outcome.collapsed).lower())
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
    evaluation, folder = delivery.evaluation, record.evaluation_folder
    if evaluation is None or client.get_run(run_id).data.tags.get(EVALUATION_TAG) == delivery.evaluation_digest:
        return
    import numpy as np
    from skimage.io import imread

    log_final_metrics(client, run_id, delivery.numbers, delivery.ended)
    client.log_dict(run_id, delivery.scores, "scores.json")
    client.log_artifacts(run_id, str(folder))
    if (cells := folder.parent / CELLS_FILE).is_file():
        client.log_artifact(run_id, str(cells))
    for picture in [*sorted(folder.glob("panels/*.png")), *sorted(folder.glob("overlays/*.png"))]:
        with reading(record.folder.parent):
            pixels = np.asarray(imread(picture))[..., :3]
        client.log_image(run_id, pixels, key=f"{picture.parent.name}-{picture.stem}", step=0, synchronous=True)
    client.set_tag(run_id, "collapsed", str(evaluation.collapsed).lower())
    client.set_tag(run_id, "mlflow.note.content", delivery.note)
    # Last, so that a delivery that was cut short is done again.
    client.set_tag(run_id, EVALUATION_TAG, delivery.evaluation_digest)


def _log_transfers(client: MlflowClient, run_id: str, delivery: Delivery) -> None:
    from emseg.tracking.dataset import PreparedDatasetSource

    for sentence in delivery.passed_by:
        print(f"emseg: passed by: {sentence}", file=sys.stderr)
    for transfer in delivery.transfers:
        run, tag = client.get_run(run_id), f"{_TRANSFER_TAG}.{transfer.dataset}"
        if run.data.tags.get(tag) == transfer.digest:
            continue
        log_final_metrics(client, run_id, transfer.numbers, delivery.ended)
        client.log_artifacts(run_id, str(transfer.folder), f"{TRANSFER}/{transfer.dataset}")
        known = {entry.dataset.digest for entry in run.inputs.dataset_inputs}
        if transfer.data_digest not in known:
            source = PreparedDatasetSource(f"data/sources/{transfer.dataset}", None, None, transfer.dataset)
            _log_input(client, run_id, source, transfer.data_digest, TRANSFER)
        # Last, so that a delivery that was cut short is done again.
        client.set_tag(run_id, tag, transfer.digest)
