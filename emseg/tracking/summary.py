"""Deliver several records: each becomes a run and, where it can, a version; folds and seeds fold under a parent.

MLflow's UI cannot average runs, so the parent run of a recipe carries the mean over its folds and seeds.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from emseg.reporting.evaluation import evaluation_folder, metric_means
from emseg.reporting.leaderboard import make_boards
from emseg.tracking.publish import experiment_of, flat_parameters, publish_record
from emseg.tracking.registration import is_registrable, recipe_digest, register_record
from emseg.training.record import RunRecord

if TYPE_CHECKING:
    from mlflow import MlflowClient

RECIPE_TAG = "emseg.recipe"
_PARENT_TAG = "mlflow.parentRunId"


@dataclass(frozen=True)
class Published:
    """What became of records: MLflow run id and version number by folder, parent run id by model.

    A model with two recipes among the records has the parent of the last.
    """

    runs: dict[str, str]
    versions: dict[str, int]
    parents: dict[str, str]


def publish_records(client: MlflowClient, records: list[RunRecord]) -> Published:
    """Publish records, register those that are evaluated, and fold runs of one recipe under a parent run."""
    runs = {str(record.folder): publish_record(client, record) for record in records}
    evaluated = [record for record in records if is_registrable(record)]
    versions = {str(record.folder): register_record(client, record) for record in evaluated}
    recipes: dict[str, list[RunRecord]] = {}
    for record in evaluated:
        recipes.setdefault(recipe_digest(record.read()), []).append(record)
    parents = {}
    for recipe, own in recipes.items():
        if len(own) > 1:
            children = [runs[str(record.folder)] for record in own]
            parents[own[0].read()["model"]] = _publish_parent(client, recipe, own, children)
    return Published(runs, versions, parents)


def _publish_parent(client: MlflowClient, recipe: str, records: list[RunRecord], children: list[str]) -> str:
    facts = records[0].read()
    model = facts["model"]
    experiment_id = experiment_of(client, facts["dataset"], facts["protocol"])
    found = client.search_runs([experiment_id], f"tags.`{RECIPE_TAG}` = '{recipe}'", max_results=1)
    if found:
        run_id = found[0].info.run_id
    else:
        tags = {RECIPE_TAG: recipe, "model": model, "protocol": facts["protocol"], "data.digest": facts["data_digest"]}
        run_id = client.create_run(experiment_id, tags=tags).info.run_id
        client.log_batch(run_id, params=flat_parameters(facts["settings"] | {"model": model}))
    client.set_tag(run_id, "mlflow.runName", f"{model} over {len(records)} runs")
    client.set_tag(run_id, "mlflow.note.content", _note(records))
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
