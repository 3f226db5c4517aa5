"""Where a version comes from, down to the commands that make it again."""

from __future__ import annotations

import hashlib
import shlex
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import BaseModel

from emseg.data.datasets.known import SYNTHETIC, can_be_downloaded
from emseg.files import write_text
from emseg.records.checked import reading
from emseg.records.record import RunRecord
from emseg.records.run import Lineage, Run, SettingsOfRun
from emseg.registry.described import Version
from emseg.registry.versions import fetch_package, find_version
from emseg.settings import read_yaml, validate_settings
from emseg.settings.file import as_yaml
from emseg.text import plain
from emseg.tracking.store import asking, store_name

if TYPE_CHECKING:
    from mlflow import MlflowClient


_OF_A_MODEL = ("architecture", "loss", "dice_weight", "weight_map", "network")


class RunInMlflow(BaseModel):
    """Of a version."""

    id: str
    name: str


class DataOfVersion(BaseModel):
    """What a version was trained on."""

    name: str
    digest: str
    augmented_digest: str
    dvc: dict[str, str]
    dvc_remote: str | None


class NetworksOfVersion(BaseModel):
    """The project's file that the network comes from; None: it is one of the catalog's."""

    file: str | None
    sha256: str | None


class LineageOfVersion(BaseModel):
    """Where a version comes from; `commands` make it again."""

    task: str
    version: int
    aliases: list[str]
    run: RunInMlflow
    commit: str | None
    uncommitted_changes: bool
    emseg: str | None
    code_digest: str
    git_remote: str | None
    networks: NetworksOfVersion
    data: DataOfVersion
    protocol: str
    device: str
    packages: dict[str, str]
    settings: SettingsOfRun
    weights_sha256: str
    commands: list[str]


def lineage(client: MlflowClient, reference: str, task: str | None = None) -> LineageOfVersion:
    """Version, run, commit, data and settings of a model, and the commands that make it again.

    Args:
        client: of the store.
        reference: of the version, as `find_version` takes it.
        task: whose version it is, where the reference does not say; None: of the only one.

    Raises:
        InputError: there is no such version.
        RunError: its record cannot be fetched.
    """
    with asking(f"read {plain(reference)}"):
        version = find_version(client, reference, task)
        run, weights = _record(client, version)
        name = _name_of_run(client, version) or run.name
    origin = run.lineage
    return LineageOfVersion(
        task=version.task,
        version=version.number,
        aliases=list(version.aliases),
        run=RunInMlflow(id=version.run_id, name=name),
        commit=origin.git_commit,
        uncommitted_changes=origin.git_dirty,
        emseg=origin.emseg,
        code_digest=origin.code_digest,
        git_remote=origin.git_remote,
        networks=NetworksOfVersion(file=origin.networks_file, sha256=origin.networks_sha256),
        data=DataOfVersion(
            name=run.dataset,
            digest=run.data_digest,
            augmented_digest=run.augmented_digest,
            dvc=origin.dvc,
            dvc_remote=origin.dvc_remote,
        ),
        protocol=run.protocol,
        device=origin.device,
        packages=origin.packages,
        settings=run.settings,
        weights_sha256=weights,
        commands=_commands(version, run, weights),
    )


def write_settings(
    client: MlflowClient, reference: str, path: Path, project: Path = Path(), task: str | None = None
) -> None:
    """Write params.yaml as the version's run had it, as far as it decides the weights.

    Args:
        client: of the store.
        reference: of the version.
        path: to write to.
        project: whose params.yaml gives what does not decide the weights.
        task: whose version it is, where the reference does not say; None: of the only one.

    Raises:
        InputError: there is no such version, or no params.yaml in `project`.
    """
    with asking(f"read {plain(reference)}"):
        version = find_version(client, reference, task)
        run, _ = _record(client, version)
    settings = run.settings.model_dump()
    values = read_yaml(project / "params.yaml") | {
        "code": run.lineage.networks_file,
        "task": version.task,
        "data": {"source": run.dataset},
        "protocol": settings["protocol"],
        "augment": settings["augment"],
        "seeds": [run.seed],
        "training": settings["training"],
        "benchmark": [run.model],
        "models": {run.model: {key: settings[key] for key in _OF_A_MODEL}},
    }
    values["tuning"] = values["tuning"] | {"model": run.model}
    if settings["weight_map"]:
        values["weight_map"] = settings["weight_map"]
    validate_settings(values, f"settings of {reference}: ")
    write_text(path, as_yaml(values))


def _name_of_run(client: MlflowClient, version: Version) -> str | None:
    """What MLflow calls the run of a version; None where it has none of it any more."""
    from mlflow.exceptions import MlflowException

    try:
        return str(client.get_run(version.run_id).info.run_name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        return None


def _record(client: MlflowClient, version: Version) -> tuple[Run, str]:
    """record.json of a version's package and the SHA-256 of its weights, both as they were registered."""
    with tempfile.TemporaryDirectory() as temporary, reading(version.uri):
        folder = fetch_package(client, version, Path(temporary))
        weights = hashlib.sha256((folder / "weights.safetensors").read_bytes()).hexdigest()
        return RunRecord(folder).read(), weights


def _commands(version: Version, run: Run, weights: str) -> list[str]:
    """Shell commands for an empty folder, or a clone where nothing says where to clone from; the last prints the hash
    of the weights.

    Nothing in a record is run by the shell that they are pasted into: every word is quoted.
    """
    folder = f"runs/again/{plain(run.name)}".replace("..", "")
    training = ["emseg", "train", plain(run.model), "--fold", str(run.fold), "--seed", str(run.seed)]
    if run.maximum_steps is not None:
        training += ["--maximum-steps", str(run.maximum_steps)]
    return [
        *(shlex.join(step) for step in [*_checkout(run.lineage), *_environment(run.lineage)]),
        *_data(run),
        shlex.join(["emseg", "lineage", version.uri, "--settings", f"{folder}.yaml"]),
        shlex.join([*training, "--settings", f"{folder}.yaml", "--folder", folder]),
        f"{shlex.join(['sha256sum', f'{folder}/training/weights.safetensors'])}  # {weights}",
    ]


def _checkout(origin: Lineage) -> list[list[str]]:
    """The project as it was; without a commit the run was trained outside git, and there is nothing to check out."""
    steps = []
    remote = plain(origin.git_remote or "")
    if remote and not remote.startswith("-"):
        steps += [["git", "clone", remote, "again"], ["cd", "again"]]
    if commit := origin.git_commit:
        steps += [["git", "checkout", plain(commit)]]
    if remote and (folder := origin.git_folder):
        steps += [["cd", f"./{plain(folder)}"]]
    return steps


def _environment(origin: Lineage) -> list[list[str]]:
    activate = [["source", ".venv/bin/activate"], ["export", f"MLFLOW_TRACKING_URI={store_name()}"]]
    if origin.code_in_project:
        return [["make", "environment"], *activate]
    installed = ["pip", "install", f"emseg=={plain(origin.emseg)}", "emseg[all]"]
    return [["python", "-m", "venv", ".venv"], activate[0], installed, activate[1]]


def _data(run: Run) -> list[str]:
    """How the sections come there."""
    origin = run.lineage
    prepared, is_in_git = origin.dvc.get("data/prepared"), origin.git_folder is not None
    if origin.dvc_remote and prepared and is_in_git:
        pull = shlex.join(["dvc", "pull", *(plain(path) for path in origin.dvc)])
        # The run's own results were committed after it: a commit that has them knows the data too.
        commit = _commit_of(prepared)
        lock = [shlex.join(["git", "checkout", commit, "--", "dvc.lock"])] if commit else []
        return [*lock, f"{pull}  # from {plain(origin.dvc_remote)}"]
    if run.dataset == SYNTHETIC:
        return []
    adding = shlex.join(["emseg", "data", "add", run.dataset])
    is_known = can_be_downloaded(run.dataset, run.data_digest, run.dataset_card)
    return [f"{adding}{'' if is_known else ' --from FOLDER'}  # digest {run.data_digest}"]


def _commit_of(md5: str) -> str | None:
    """The first commit, of the repository here, whose dvc.lock names these data; None: there is none."""
    try:
        done = subprocess.run(
            ["git", "log", "--all", "--reverse", "--format=%H", f"-S{md5}", "--", "dvc.lock"],
            capture_output=True,
            text=True,
            timeout=20,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return next(iter(done.stdout.split()), None)
