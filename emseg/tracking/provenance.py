"""Where a version comes from, down to the commands that make it again."""

from __future__ import annotations

import hashlib
import json
import shlex
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from emseg.files import write_text
from emseg.settings import read_yaml, validate_settings
from emseg.text import plain
from emseg.tracking.packaging import reading
from emseg.tracking.registry import Version, fetch_package, find_version
from emseg.tracking.store import asking, store_name

if TYPE_CHECKING:
    from mlflow import MlflowClient


def lineage(client: MlflowClient, reference: str) -> dict[str, Any]:
    """Version, run, commit, data and settings of a model, and the commands that make it again.

    Raises:
        InputError: there is no such version.
        RunError: its record cannot be fetched.
    """
    with asking(f"read {plain(reference)}"):
        version = find_version(client, reference)
        run = client.get_run(version.run_id)
        facts, weights = _record(client, version)
    origin = facts["lineage"]
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
    with asking(f"read {plain(reference)}"):
        facts, _ = _record(client, find_version(client, reference))
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


def _record(client: MlflowClient, version: Version) -> tuple[dict[str, Any], str]:
    """record.json of a version's package and the SHA-256 of its weights, both as they were registered."""
    with tempfile.TemporaryDirectory() as temporary, reading(version.uri):
        folder = fetch_package(client, version, Path(temporary))
        facts = json.loads((folder / "record.json").read_text(encoding="utf-8"))
        _ = [facts[key] for key in ("model", "fold", "seed", "maximum_steps", "dataset", "data_digest", "settings")]
        _ = [facts["lineage"][key] for key in ("git_commit", "git_dirty", "code_digest", "dvc", "device", "packages")]
        return facts, hashlib.sha256((folder / "weights.safetensors").read_bytes()).hexdigest()


def _commands(version: Version, facts: dict[str, Any], weights: str) -> list[str]:
    """Shell commands for a clean clone; the last prints the hash of the weights.

    Nothing in a record is run by the shell that they are pasted into: every word is quoted.
    """
    model, fold, seed = (plain(facts[key]) for key in ("model", "fold", "seed"))
    folder = f"runs/again/{model}-fold{fold}-seed{seed}".replace("..", "")
    training = ["emseg", "train", model, "--fold", fold, "--seed", seed]
    if facts["maximum_steps"] is not None:
        training += ["--maximum-steps", plain(facts["maximum_steps"])]
    commit = facts["lineage"]["git_commit"]
    # Without a commit there is nothing to check out: the run was trained outside git.
    steps = [["git", "checkout", plain(commit)]] if commit else []
    steps += [["make", "environment"], ["source", ".venv/bin/activate"]]
    steps += [["export", f"MLFLOW_TRACKING_URI={store_name()}"]]
    commands = [shlex.join(step) for step in steps]
    if facts["dataset"] != "synthetic":
        adding = shlex.join(["emseg", "data", "add", plain(facts["dataset"])])
        origin = "" if facts["dataset"] == "isbi2012" else " --from FOLDER"
        commands.append(f"{adding}{origin}  # digest {plain(facts['data_digest'])}")
    return [
        *commands,
        shlex.join(["emseg", "lineage", version.uri, "--settings", f"{folder}.yaml"]),
        shlex.join([*training, "--settings", f"{folder}.yaml", "--folder", folder]),
        f"{shlex.join(['sha256sum', f'{folder}/training/weights.safetensors'])}  # {weights}",
    ]
