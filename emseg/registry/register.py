"""Run record to registered version."""

from __future__ import annotations

import logging
import tempfile
import warnings
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from emseg.errors import InputError, RunError
from emseg.inference.trained import load_network
from emseg.models import Network
from emseg.records.checked import file_digest, reading
from emseg.records.evaluation import METRICS_FILE, SCORES_FILE, read_evaluated, read_evaluation
from emseg.records.record import RunRecord
from emseg.records.run import FINISHED
from emseg.registry.champions import RESTORES_TAG, add_link, read_line, settle
from emseg.registry.described import DECISION_TAG, DIGEST_TAG, REPLACES_TAG, SCORES_TAG, describe, read_version
from emseg.registry.package import DeployedNetwork, package_digest, package_files, write_package
from emseg.registry.tasks import make_task, tasks
from emseg.registry.telling import say
from emseg.registry.versions import versions_of_record
from emseg.tracking.publish import WEIGHTS_TAG, deliver, publishing
from emseg.tracking.store import asking, patiently

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion


def is_registrable(record: RunRecord) -> bool:
    """Whether a record is finished, evaluated and has its weights."""
    evaluated = (record.evaluation_folder / METRICS_FILE).is_file()
    return record.read().status == FINISHED and evaluated and record.weights_file.is_file()


def register_record(client: MlflowClient, record: RunRecord, again: bool = False, task: str | None = None) -> int:
    """Register a finished, evaluated run as a version of a task; a run becomes one version of it.

    Args:
        client: of the store.
        record: of the run.
        again: a version that is there already, and whose files may be damaged, is replaced by a new one. If it is
            champion, its replacement is, where this login may say so.
        task: whose version it becomes; None: the one of its dataset's name.

    Returns:
        The version's number.

    Raises:
        InputError: the run is unfinished, was not evaluated, its weights are not here, or they are not those of the
            version to replace; or the task's name is another model's.
        RunError: the store refuses.
    """
    with publishing(record):
        run_id = deliver(client, record)
        with asking(f"register {record.folder.parent}"):
            return register_delivered(client, record, run_id, again, task)


def register_delivered(
    client: MlflowClient, record: RunRecord, run_id: str, again: bool = False, task: str | None = None
) -> int:
    """`register_record` for who holds the record and has delivered it as the run `run_id`."""
    tasks(client)  # refuses the store of an earlier emseg
    run = record.read()
    task = task or run.dataset
    known = versions_of_record(client, run.id, task)[:1]
    if again or not known or _was_evaluated_again(known[0], record):
        for before in known:
            _require_same_weights(before, record)
        _register(client, record, run_id, task, known[0] if known else None)
    return settle_versions(client, run.id, task)


def _was_evaluated_again(version: ModelVersion, record: RunRecord) -> bool:
    """Whether a version holds other scores than its run has now; it is replaced then."""
    scores = file_digest(record.evaluation_folder / SCORES_FILE)
    evaluation = read_evaluation(record.evaluation_folder)
    noted = (version.tags.get(SCORES_TAG), version.tags.get("emseg.calibration"))
    return noted != (scores, evaluation.calibration or "none")


def settle_versions(client: MlflowClient, record_id: str, task: str) -> int:
    """Leave one version of a record; return its number.

    Whoever comes last sees all that were made at once, and all choose alike. Should this login not be allowed to
    delete, readers go by the same choice.
    """
    from mlflow.exceptions import MlflowException

    stands, *others = versions_of_record(client, record_id, task)
    numbers = {int(version.version) for version in others} | {int(stands.tags.get(REPLACES_TAG) or 0)}
    _settle_champion(client, stands, numbers - {int(stands.version)}, task)
    for version in others:
        with suppress(MlflowException):
            client.delete_model_version(task, version.version)
    return int(stands.version)


def _settle_champion(client: MlflowClient, stands: ModelVersion, replaced: set[int], task: str) -> None:
    """Make the version that stands for a record champion in place of those that it replaces."""
    number = int(stands.version)
    while True:
        line = read_line(client, task)
        champion = line.standing[-1] if line.standing else None
        if champion is None or champion.version not in replaced:
            return
        described = f"Version {number} of {task} was registered again and is champion in place of {champion.version}.\n"
        tags = {RESTORES_TAG: str(champion.place)}
        try:
            version = read_version(stands, task, number)
            with asking(f"make version {number} of {task} champion in place of {champion.version}"):
                is_added = add_link(client, version, line, "registered again", described, tags)
        except (RunError, ValueError) as error:
            say(f"{error}; the champion is still the copy of version {champion.version}")
            return
        if is_added:
            settle(client, task)
            return


def _require_same_weights(version: ModelVersion, record: RunRecord) -> None:
    recorded = version.tags.get(WEIGHTS_TAG)
    if recorded not in (None, file_digest(record.weights_file)):
        raise InputError(
            f"{record.folder.parent} holds other weights than version {version.version} of {version.name} was made of; "
            "a version is replaced by the same weights only"
        )


def _register(client: MlflowClient, record: RunRecord, run_id: str, task: str, before: ModelVersion | None) -> None:
    make_task(client, task)
    with tempfile.TemporaryDirectory() as temporary:
        package = Path(temporary) / "package"
        write_package(record, package)
        tags = version_tags(record) | {
            DIGEST_TAG: package_digest(package),
            SCORES_TAG: file_digest(package / SCORES_FILE),
            WEIGHTS_TAG: file_digest(package / "weights.safetensors"),
        }
        card = (package / "model-card.md").read_text(encoding="utf-8")
        uri = _log_network(record, run_id, package)
    if before is not None:
        # What was decided about it goes with it.
        tags |= {key: value for key, value in before.tags.items() if key == DECISION_TAG}
        tags[REPLACES_TAG] = str(before.version)
    # MLflow's own registering function would leave an empty model behind where the source is wrong.
    patiently(
        lambda: client.create_model_version(
            task,
            uri,
            run_id=run_id,
            tags=tags,
            description=card + _pictures(record, run_id),
            model_id=uri.removeprefix("models:/"),
        )
    )


def version_tags(record: RunRecord) -> dict[str, str]:
    """What the version of a record is judged by, and what MLflow's page shows of it; digests of files come on top.

    Raises:
        InputError: record or evaluation are damaged.
    """
    with reading(record.folder.parent):
        return describe(record.read(), read_evaluated(record.evaluation_folder))


def _pictures(record: RunRecord, run_id: str) -> str:
    """Worst and best section in Markdown, as MLflow's server shows the run's artifacts."""
    shown = [name for name in ("worst", "best") if (record.evaluation_folder / "overlays" / f"{name}.png").is_file()]
    lines = [f"![{name} section](/get-artifact?path=overlays%2F{name}.png&run_uuid={run_id})" for name in shown]
    return "\n## Worst and best section\n\n" + "\n\n".join(lines) + "\n" if lines else ""


def _log_network(record: RunRecord, run_id: str, package: Path) -> str:
    import mlflow
    import torch
    from mlflow.models import ModelSignature
    from mlflow.types import Schema, TensorSpec

    network, normalization = load_network(record)
    images, probabilities = (
        Schema([TensorSpec(np.dtype("float32"), (-1, channels, -1, -1))]) for channels in (network.channels, 1)
    )
    signature = ModelSignature(inputs=images, outputs=probabilities)
    deployed = DeployedNetwork(network, normalization).eval()
    with warnings.catch_warnings(), mlflow.start_run(run_id=run_id, log_system_metrics=False):
        warnings.simplefilter("ignore")
        logging.getLogger("mlflow").setLevel(logging.ERROR)
        info = mlflow.pytorch.log_model(
            deployed,
            name=record.read().model,
            signature=signature,
            input_example=_example(network),
            # Given, since finding them out loads the model twice in processes of their own.
            pip_requirements=[f"torch=={torch.__version__.partition('+')[0]}"],
            extra_files=[str(package / name) for name in package_files(package)],
        )
        # Tied to the model too, so that its page shows what it is worth.
        for name, interval in read_evaluation(record.evaluation_folder).metrics.items():
            (*_, point) = mlflow.MlflowClient().get_metric_history(run_id, name)
            # The very point that the run has, which is then no second one.
            told = {"step": point.step, "timestamp": point.timestamp, "model_id": info.model_id}
            patiently(partial(mlflow.log_metric, name, interval.mean, **told))
    return info.model_uri


def _example(network: Network) -> np.ndarray:
    """A small input (2, C, Y, X) float32 with different sides that the network takes."""
    sides = [s for s in range(2 * network.stride, 1 << 12) if network.is_valid_side(s) and s % 2 == 0]
    if network.padding == "same":
        sides = [side for side in sides if side % network.stride == 0]
    return np.zeros((2, network.channels, sides[0], sides[1]), np.float32)
