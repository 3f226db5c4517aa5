"""Deliver several records: each becomes a run and, where it can, a version; folds and seeds fold under a parent.

MLflow's UI cannot average runs, so the parent run of a recipe carries the mean over its folds and seeds.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from emseg.errors import InputError
from emseg.records.evaluation import flat_metrics
from emseg.records.recipe import recipe_digest
from emseg.records.record import RunRecord
from emseg.registry.register import is_registrable, register_delivered
from emseg.registry.versions import versions_of_record
from emseg.reporting.leaderboard import make_boards
from emseg.text import markdown, plain
from emseg.tracking.delivery import flat_parameters
from emseg.tracking.publish import age, deliver, experiment_of, of_record, publishing
from emseg.tracking.store import asking

if TYPE_CHECKING:
    from mlflow import MlflowClient

RECIPE_TAG = "emseg.recipe"
_PARENT_TAG = "mlflow.parentRunId"


@dataclass(frozen=True)
class Published:
    """What became of records: MLflow run id, task, version number or what is wrong by folder, parent run id by model.

    A model with two recipes among the records has the parent of the last.
    """

    runs: dict[str, str]
    tasks: dict[str, str]
    versions: dict[str, int]
    parents: dict[str, str]
    failed: dict[str, str] = field(default_factory=dict)


def publish_records(
    client: MlflowClient, records: list[RunRecord], again: bool = False, task: str | None = None
) -> Published:
    """Publish records, register those that are evaluated, and fold runs of one recipe under a parent run.

    Args:
        client: of the store.
        records: of any models.
        again: register those again that are registered, for their files are damaged; see `register_record`.
        task: whose versions they become; None: of each the one of its dataset's name.

    Raises:
        InputError: the one record that was asked for is damaged. Of several, the damaged ones are in `failed`.
        RunError: the store refuses.
    """
    runs: dict[str, str] = {}
    tasks: dict[str, str] = {}
    versions: dict[str, int] = {}
    failed: dict[str, str] = {}
    recipes: dict[str, list[RunRecord]] = {}
    for record in records:
        try:
            runs[str(record.folder)], version = _publish(client, record, again, task)
            if version is not None:
                tasks[str(record.folder)] = task or record.read().dataset
                versions[str(record.folder)] = version
                recipes.setdefault(recipe_digest(record.read()), []).append(record)
        except InputError as error:
            if len(records) == 1:
                raise
            failed[str(record.folder)] = str(error)
    parents = {}
    for recipe, own in recipes.items():
        if len(own) > 1:
            children = [runs[str(record.folder)] for record in own]
            with asking("publish the mean of several runs"):
                parents[own[0].read().model] = _publish_parent(client, recipe, own, children)
    return Published(runs, tasks, versions, parents, failed)


def _publish(client: MlflowClient, record: RunRecord, again: bool, task: str | None) -> tuple[str, int | None]:
    """MLflow run and version of one record; no version where it cannot be registered."""
    folder = record.folder.parent
    with publishing(record):
        run_id = deliver(client, record)
        with asking(f"register {folder}"):
            version = register_delivered(client, record, run_id, again, task) if is_registrable(record) else None
        with asking(f"publish {folder}"):
            run = record.read()
            return settle_run(client, run.id, experiment_of(client, run.dataset, run.protocol)), version


def _publish_parent(client: MlflowClient, recipe: str, records: list[RunRecord], children: list[str]) -> str:
    first = records[0].read()
    model, protocol = first.model, first.protocol
    experiment_id = experiment_of(client, first.dataset, protocol)
    found = client.search_runs([experiment_id], f"tags.`{RECIPE_TAG}` = '{recipe}'", max_results=1)
    if found:
        run_id = found[0].info.run_id
    else:
        tags = {RECIPE_TAG: recipe, "model": model, "protocol": protocol, "data.digest": first.data_digest}
        run_id = client.create_run(experiment_id, tags=tags).info.run_id
        client.log_batch(run_id, params=flat_parameters(first.settings.model_dump() | {"model": model}))
    client.set_tag(run_id, "mlflow.runName", f"{plain(model)} over {len(records)} runs")
    client.set_tag(run_id, "mlflow.note.content", _note(records))
    (board,) = make_boards([record.evaluation_folder for record in records])
    row = next(row for row in board.rows if row.model == model)
    known = client.get_run(run_id).data.metrics
    for name, value in flat_metrics(row.metrics).items():
        if known.get(name) != value:
            client.log_metric(run_id, name, value)
    for child in children:
        client.set_tag(child, _PARENT_TAG, run_id)
    client.set_terminated(run_id)
    return run_id


def _note(records: list[RunRecord]) -> str:
    names = ", ".join(markdown(record.name) for record in records)
    return f"Mean over test sections, each averaged over seeds: {names}."


def settle_run(client: MlflowClient, record_id: str, experiment_id: str) -> str:
    """Leave one run of a record, where machines that could not see each other made several; return its id.

    Whoever comes last sees all of them, and all choose alike: the run of the version that stands for the record, else
    the first by start and id.
    """
    from mlflow.entities import ViewType

    found = client.search_runs([experiment_id], of_record(record_id), run_view_type=ViewType.ALL)
    versions = versions_of_record(client, record_id)
    known = {run.info.run_id: run for run in found}
    active = [run for run in found if run.info.lifecycle_stage == "active"]
    kept = next((known[v.run_id] for v in versions if v.run_id in known), None) or min(active, key=age)
    if kept.info.lifecycle_stage != "active":
        client.restore_run(kept.info.run_id)
    for run in active:
        if run.info.run_id != kept.info.run_id:
            client.delete_run(run.info.run_id)
    return kept.info.run_id
