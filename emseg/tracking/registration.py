"""Run record to registered version."""

from __future__ import annotations

import hashlib
import json
import logging
import tempfile
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from emseg.models import Network
from emseg.records.evaluation import read_evaluation
from emseg.records.run import FINISHED
from emseg.reporting.evaluation import evaluation_folder, metric_means
from emseg.tracking.packaging import DeployedNetwork, package_digest, package_files, write_package
from emseg.tracking.publish import publish_record
from emseg.tracking.registry import DIGEST_TAG, MODEL_NAME, RECORD_TAG, is_registered
from emseg.training.record import RunRecord

if TYPE_CHECKING:
    from mlflow import MlflowClient

DESCRIPTION_TAG = "emseg.description"


def is_registrable(record: RunRecord) -> bool:
    """Whether a record is finished, evaluated and has its weights."""
    evaluated = (evaluation_folder(record) / "metrics.json").is_file()
    return record.read()["status"] == FINISHED and evaluated and record.weights_file.is_file()


def register_record(client: MlflowClient, record: RunRecord) -> int:
    """Register a finished, evaluated run as a version of the one registered model; a run becomes one version.

    Returns:
        The version's number.

    Raises:
        InputError: the run is unfinished, was not evaluated, or its weights are not here.
    """
    facts = record.read()
    if known := is_registered(client, facts["id"]):
        return int(known.version)
    run_id = publish_record(client, record)
    with tempfile.TemporaryDirectory() as temporary:
        package = Path(temporary) / "package"
        write_package(record, package)
        metrics, table, _ = read_evaluation(evaluation_folder(record))
        uri = _log_network(record, run_id, package, metric_means(metrics))
        digest = package_digest(package)
        card = (package / "model-card.md").read_text(encoding="utf-8")
    from mlflow.exceptions import MlflowException

    try:
        client.create_registered_model(MODEL_NAME, description=_DESCRIPTION)
    except MlflowException:
        client.get_registered_model(MODEL_NAME)
    # MLflow's own registering function would leave an empty model behind where the source is wrong.
    tags = {
        RECORD_TAG: facts["id"],
        DIGEST_TAG: digest,
        DESCRIPTION_TAG: json.dumps(
            {"facts": _judged_by(facts), "metrics": metrics, "scores": table.to_csv(index=False, float_format="%.6f")}
        ),
        "model": facts["model"],
        "protocol": facts["protocol"],
        "leaks": str(metrics["leaks"]).lower(),
        "data.digest": facts["data_digest"],
        "git.commit": str(facts["lineage"]["git_commit"]),
        **{name: f"{metric_means(metrics)[name]:.4f}" for name in ("v_rand", "v_info", "pixel_error", "dice")},
    }
    description = card + _pictures(record, run_id)
    version = client.create_model_version(MODEL_NAME, uri, run_id=run_id, tags=tags, description=description)
    return int(version.version)


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


def _log_network(record: RunRecord, run_id: str, package: Path, means: dict[str, float]) -> str:
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
        shown = {name: value for name, value in means.items() if "/" not in name}
        mlflow.log_metrics(shown, model_id=info.model_id)
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
