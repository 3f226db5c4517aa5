"""Run record to registered version."""

from __future__ import annotations

import hashlib
import json
import logging
import tempfile
import warnings
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from emseg.errors import InputError
from emseg.evaluation.evaluate import evaluation_folder, metric_means
from emseg.models import Network
from emseg.records.evaluation import read_evaluation
from emseg.records.run import FINISHED
from emseg.text import plain
from emseg.tracking.packaging import DeployedNetwork, package_digest, package_files, reading, write_package
from emseg.tracking.publish import WEIGHTS_TAG, deliver, publishing
from emseg.tracking.registry import (
    DECISION_TAG,
    DESCRIPTION_TAG,
    DIGEST_TAG,
    MODEL_NAME,
    RECORD_TAG,
    REPLACES_TAG,
    champions,
    listed_champions,
    registry_lock,
    set_champions,
    versions_of_record,
)
from emseg.tracking.store import asking
from emseg.training.record import RunRecord

if TYPE_CHECKING:
    import pandas as pd
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion


def is_registrable(record: RunRecord) -> bool:
    """Whether a record is finished, evaluated and has its weights."""
    evaluated = (evaluation_folder(record) / "metrics.json").is_file()
    return record.read()["status"] == FINISHED and evaluated and record.weights_file.is_file()


def register_record(client: MlflowClient, record: RunRecord, again: bool = False) -> int:
    """Register a finished, evaluated run as a version of the one registered model; a run becomes one version.

    Args:
        client: of the store.
        record: of the run.
        again: a version that is there already, and whose files may be damaged, is replaced by a new one, in the list
            of champions too.

    Returns:
        The version's number.

    Raises:
        InputError: the run is unfinished, was not evaluated, its weights are not here, or they are not those of the
            version to replace.
        RunError: the store refuses.
    """
    with publishing(record):
        run_id = deliver(client, record)
        with asking(f"register {record.folder.parent}"):
            return register_delivered(client, record, run_id, again)


def register_delivered(client: MlflowClient, record: RunRecord, run_id: str, again: bool = False) -> int:
    """`register_record` for who holds the record and has delivered it as the run `run_id`."""
    record_id = record.read()["id"]
    known = versions_of_record(client, record_id)[:1]
    if again or not known or _was_evaluated_again(known[0], record):
        for before in known:
            _require_same_weights(before, record)
        _register(client, record, run_id, known[0] if known else None)
    return settle_versions(client, record_id)


def _was_evaluated_again(version: ModelVersion, record: RunRecord) -> bool:
    """Whether a version holds other scores than its run has now; it is replaced then."""
    metrics, _, _ = read_evaluation(evaluation_folder(record))
    try:
        registered = json.loads(version.tags[DESCRIPTION_TAG])["metrics"]
    except (KeyError, ValueError, TypeError):
        return False
    return bool(registered != json.loads(json.dumps(metrics)))


def settle_versions(client: MlflowClient, record_id: str) -> int:
    """Leave one version of a record; return its number.

    Whoever comes last sees all that were made at once, and all choose alike. Should this login not be allowed to
    delete, readers go by the same choice.
    """
    from mlflow.exceptions import MlflowException

    stands, *others = versions_of_record(client, record_id)
    numbers = {int(version.version) for version in others} | {int(stands.tags.get(REPLACES_TAG) or 0)}
    if numbers & set(listed_champions(client)):
        with registry_lock(client):
            set_champions(client, champions(client))
    for version in others:
        with suppress(MlflowException):
            client.delete_model_version(MODEL_NAME, version.version)
    return int(stands.version)


def _require_same_weights(version: ModelVersion, record: RunRecord) -> None:
    recorded = version.tags.get(WEIGHTS_TAG)
    if recorded not in (None, hashlib.sha256(record.weights_file.read_bytes()).hexdigest()):
        raise InputError(
            f"{record.folder.parent} holds other weights than version {version.version} of {MODEL_NAME} was made of; "
            "a version is replaced by the same weights only"
        )


def _register(client: MlflowClient, record: RunRecord, run_id: str, before: ModelVersion | None) -> None:
    from mlflow.exceptions import MlflowException

    with tempfile.TemporaryDirectory() as temporary:
        package = Path(temporary) / "package"
        write_package(record, package)
        tags = version_tags(record)
        tags[DIGEST_TAG] = package_digest(package)
        tags[WEIGHTS_TAG] = hashlib.sha256((package / "weights.safetensors").read_bytes()).hexdigest()
        card = (package / "model-card.md").read_text(encoding="utf-8")
        uri = _log_network(record, run_id, package)
    try:
        client.create_registered_model(MODEL_NAME, description=_DESCRIPTION)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    if before is not None:
        # The evidence of a champion goes with it.
        tags |= {key: value for key, value in before.tags.items() if key == DECISION_TAG}
        tags[REPLACES_TAG] = str(before.version)
    # MLflow's own registering function would leave an empty model behind where the source is wrong.
    client.create_model_version(
        MODEL_NAME,
        uri,
        run_id=run_id,
        tags=tags,
        description=card + _pictures(record, run_id),
        model_id=uri.removeprefix("models:/"),
    )


def version_tags(record: RunRecord) -> dict[str, str]:
    """What the version of a record is judged by, and what MLflow's page shows of it; digests come on top.

    Raises:
        InputError: record or evaluation are damaged.
    """
    with reading(record.folder.parent):
        metrics, table, _ = read_evaluation(evaluation_folder(record))
        return _tags(record.read(), metrics, table)


def _tags(facts: dict[str, Any], metrics: dict[str, Any], table: pd.DataFrame) -> dict[str, str]:
    means = metric_means(metrics)
    described = {"facts": _judged_by(facts), "metrics": metrics}
    return {
        RECORD_TAG: facts["id"],
        DESCRIPTION_TAG: json.dumps(described | {"scores": table.to_csv(index=False, float_format="%.6f")}),
        "model": plain(facts["model"]),
        "protocol": plain(facts["protocol"]),
        "leaks": str(metrics["leaks"]).lower(),
        "data.digest": plain(facts["data_digest"]),
        "git.commit": plain(facts["lineage"]["git_commit"]),
        **{name: f"{means[name]:.4f}" for name in ("v_rand", "v_info", "pixel_error", "dice")},
    }


def recipe_digest(facts: dict[str, Any]) -> str:
    """What runs of one recipe share: everything that decides the weights but fold and seed."""
    keys = ("model", "dataset", "protocol", "data_digest", "settings", "maximum_steps")
    settings = {key: facts[key] for key in keys}
    settings["settings"] = {
        **facts["settings"],
        "protocol": {k: v for k, v in facts["settings"]["protocol"].items() if k != "folds"},
    }
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:32]


def _pictures(record: RunRecord, run_id: str) -> str:
    """Worst and best section in Markdown, as MLflow's server shows the run's artifacts."""
    shown = [name for name in ("worst", "best") if (evaluation_folder(record) / "overlays" / f"{name}.png").is_file()]
    lines = [f"![{name} section](/get-artifact?path=overlays%2F{name}.png&run_uuid={run_id})" for name in shown]
    return "\n## Worst and best section\n\n" + "\n\n".join(lines) + "\n" if lines else ""


def _judged_by(facts: dict[str, Any]) -> dict[str, Any]:
    lineage = facts["lineage"]
    return {
        **{key: facts[key] for key in ("model", "dataset", "protocol", "fold", "seed", "parameters", "data_digest")},
        **{key: lineage[key] for key in ("git_commit", "git_dirty", "code_digest", "dvc")},
        "augmented_digest": facts["augmented_digest"],
        "recipe": recipe_digest(facts),
        "created": facts["created"],
    }


def _log_network(record: RunRecord, run_id: str, package: Path) -> str:
    import mlflow
    import torch
    from mlflow.models import ModelSignature
    from mlflow.types import Schema, TensorSpec

    network, normalization = record.load_network()
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
            name=record.read()["model"],
            signature=signature,
            input_example=_example(network),
            # Given, since finding them out loads the model twice in processes of their own.
            pip_requirements=[f"torch=={torch.__version__.partition('+')[0]}"],
            extra_files=[str(package / name) for name in package_files(package)],
        )
        # Tied to the model too, so that its page shows what it is worth.
        means = metric_means(read_evaluation(evaluation_folder(record))[0])
        shown = {name: value for name, value in means.items() if "/" not in name}
        for name, value in shown.items():
            (*_, point) = mlflow.MlflowClient().get_metric_history(run_id, name)
            # The very point that the run has, which is then no second one.
            mlflow.log_metric(name, value, step=point.step, timestamp=point.timestamp, model_id=info.model_id)
    return info.model_uri


def _example(network: Network) -> np.ndarray:
    """A small input (2, C, Y, X) float32 with different sides that the network takes."""
    sides = [s for s in range(2 * network.stride, 1 << 12) if network.is_valid_side(s) and s % 2 == 0]
    if network.padding == "same":
        sides = [side for side in sides if side % network.stride == 0]
    return np.zeros((2, network.channels, sides[0], sides[1]), np.float32)


_DESCRIPTION = (
    "Segmentation of neuronal membranes in electron-microscopy sections. Versions of every architecture compete; "
    "`champion` is moved by `emseg promote` alone, which writes its decision and evidence to the version's tags."
)
