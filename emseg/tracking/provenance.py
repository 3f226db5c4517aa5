"""Where a version comes from, down to the commands that make it again."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from emseg.errors import RunError
from emseg.files import write_text
from emseg.settings import read_yaml, validate_settings
from emseg.tracking.registry import Version, find_version
from emseg.tracking.store import store_uri

if TYPE_CHECKING:
    from mlflow import MlflowClient


def lineage(client: MlflowClient, reference: str) -> dict[str, Any]:
    """Version, run, commit, data and settings of a model, and the commands that make it again.

    Raises:
        InputError: there is no such version.
        RunError: its record cannot be fetched.
    """
    version = find_version(client, reference)
    run = client.get_run(version.run_id)
    facts = _record(version)
    origin = facts["lineage"]
    weights = run.data.tags.get("weights.sha256")
    return {
        "version": version.number,
        "aliases": list(version.aliases),
        "run": {"id": version.run_id, "name": run.info.run_name},
        "commit": origin["git_commit"],
        "uncommitted_changes": origin["git_dirty"],
        "code_digest": origin["code_digest"],
        "data": {
            "name": facts["dataset"],
            "digest": facts["data_digest"],
            "augmented_digest": facts["augmented_digest"],
            "dvc": origin["dvc"],
        },
        "protocol": facts["protocol"],
        "device": origin["device"],
        "packages": origin["packages"],
        "settings": facts["settings"],
        "weights_sha256": weights,
        "commands": _commands(version, facts, weights),
    }


def write_settings(client: MlflowClient, reference: str, path: Path, project: Path = Path()) -> None:
    """Write params.yaml as the version's run had it, as far as it decides the weights.

    Args:
        client: of the store.
        reference: of the version.
        path: to write to.
        project: whose params.yaml gives what does not decide the weights.

    Raises:
        InputError: there is no such version, or no params.yaml in `project`.
    """
    facts = _record(find_version(client, reference))
    settings, model = facts["settings"], facts["model"]
    entry = {key: settings.get(key) for key in ("architecture", "loss", "dice_weight", "weight_map", "network")}
    values = read_yaml(project / "params.yaml") | {
        "data": {"source": facts["dataset"]},
        "protocol": settings["protocol"],
        "augment": settings["augment"],
        "seeds": [facts["seed"]],
        "training": settings["training"],
        "benchmark": [model],
        "models": {model: entry},
    }
    values["tuning"] = values["tuning"] | {"model": model}
    if settings["weight_map"]:
        values["weight_map"] = settings["weight_map"]
    validate_settings(values, f"settings of {reference}: ")
    write_text(path, yaml.safe_dump(values, sort_keys=False))


def _record(version: Version) -> dict[str, Any]:
    from mlflow.artifacts import download_artifacts
    from mlflow.exceptions import MlflowException

    with tempfile.TemporaryDirectory() as folder:
        try:
            path = download_artifacts(f"{version.uri}/extra_files/record.json", dst_path=folder)
        except (MlflowException, OSError) as error:
            reason = " ".join(str(error).split())[:160]
            raise RunError(f"the record of {version.uri} cannot be fetched ({reason})") from error
        return json.loads(Path(path).read_text(encoding="utf-8"))


def _commands(version: Version, facts: dict[str, Any], weights: str | None) -> list[str]:
    """Shell commands for a clean clone; the last prints the hash of the weights."""
    folder = f"runs/again/{facts['model']}-fold{facts['fold']}-seed{facts['seed']}"
    training = f"emseg train {facts['model']} --fold {facts['fold']} --seed {facts['seed']}"
    if facts["maximum_steps"] is not None:
        training += f" --maximum-steps {facts['maximum_steps']}"
    steps = [
        f"git checkout {facts['lineage']['git_commit']}",
        "make environment",
        "source .venv/bin/activate",
        f"export MLFLOW_TRACKING_URI={store_uri()}",
    ]
    if facts["dataset"] != "synthetic":
        steps.append(f"emseg data add {facts['dataset']}  # digest {facts['data_digest']}; or --from FOLDER")
    return [
        *steps,
        f"emseg lineage {version.uri} --settings {folder}.yaml",
        f"{training} --settings {folder}.yaml --folder {folder}",
        f"sha256sum {folder}/training/weights.safetensors  # {weights}",
    ]
