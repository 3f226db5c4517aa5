"""One parent MLflow run per model over its folds and seeds, since MLflow's UI cannot average runs."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from emseg.reporting.evaluation import evaluation_folder, metric_means
from emseg.reporting.leaderboard import make_boards
from emseg.tracking.publish import experiment_of, flat_parameters, publish_record
from emseg.tracking.registration import register_record
from emseg.training.record import RunRecord

if TYPE_CHECKING:
    from mlflow import MlflowClient

SUMMARY_TAG = "emseg.summary_id"
_PARENT_TAG = "mlflow.parentRunId"


def publish_records(client: MlflowClient, records: list[RunRecord]) -> dict[str, str]:
    """Publish and register records, with a parent run for every model that has several of them.

    Args:
        client: of the store.
        records: evaluated runs of one benchmark: one protocol, one dataset.

    Returns:
        MLflow run id by run name.
    """
    runs = {record.name: publish_record(client, record) for record in records}
    for record in records:
        register_record(client, record)
    by_model: dict[str, list[RunRecord]] = {}
    for record in records:
        by_model.setdefault(record.read()["model"], []).append(record)
    for model, own in by_model.items():
        if len(own) > 1:
            runs[model] = _publish_summary(client, model, own, [runs[record.name] for record in own])
    return runs


def _publish_summary(client: MlflowClient, model: str, records: list[RunRecord], children: list[str]) -> str:
    facts = records[0].read()
    experiment_id = experiment_of(client, facts["dataset"], facts["protocol"])
    identity = "".join(sorted(record.read()["id"] for record in records))
    summary_id = hashlib.sha256(identity.encode()).hexdigest()[:32]
    found = client.search_runs([experiment_id], f"tags.`{SUMMARY_TAG}` = '{summary_id}'", max_results=1)
    if found:
        run_id = found[0].info.run_id
    else:
        tags = {SUMMARY_TAG: summary_id, "model": model, "protocol": facts["protocol"]}
        tags |= {"data.digest": facts["data_digest"], "mlflow.note.content": _note(records)}
        run_id = client.create_run(experiment_id, run_name=f"{model} over {len(records)} runs", tags=tags).info.run_id
        client.log_batch(run_id, params=flat_parameters(facts["settings"] | {"model": model}))
    (board,) = make_boards([evaluation_folder(record) for record in records])
    row = next(row for row in board.rows if row["model"] == model)
    for name, value in metric_means(row).items():
        client.log_metric(run_id, name, value)
    for child in children:
        client.set_tag(child, _PARENT_TAG, run_id)
    client.set_terminated(run_id)
    return run_id


def _note(records: list[RunRecord]) -> str:
    names = ", ".join(record.name for record in records)
    return f"Mean over test sections, each averaged over seeds: {names}."
