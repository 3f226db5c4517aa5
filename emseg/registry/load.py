"""From what a user names to a model that segments: a registry URI, an MLflow run id, or a run folder."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from emseg.errors import InputError, RunError
from emseg.files import atomic_folder, atomic_path, hold
from emseg.records.calibration import CELLS_FILE
from emseg.records.evaluation import BASELINES_FILE, METRICS_FILE, SCORES_FILE, read_fitting
from emseg.records.record import OWN_FILES, RunRecord
from emseg.registry.champions import CHAMPION
from emseg.registry.package import segmenter_of_run
from emseg.registry.versions import find_version, load_version
from emseg.tracking.delivery import evaluation_digest
from emseg.tracking.publish import EVALUATION_TAG, WEIGHTS_TAG
from emseg.tracking.store import asking, connect, reason_of

if TYPE_CHECKING:
    from mlflow import MlflowClient

    from emseg.segmentation.segmenter import Segmenter

FETCHED_FOLDER = Path("runs/registry")
"""Where registered models are fetched to as run folders."""


def load_segmenter(reference: str | None = None, task: str | None = None) -> Segmenter:
    """Load a model, checked.

    Args:
        reference: models:/TASK@champion, models:/TASK/3, an MLflow run id, or a run folder; None: the champion.
        task: whose champion, where the reference does not say; None: that of the only task.

    Raises:
        InputError: there is no such model, or it is damaged.
        RunError: the store cannot be reached.
    """
    if reference is None or reference.startswith("models:"):
        client = connect(must_exist=True)
        with asking(f"load {reference or 'the champion'}"), tempfile.TemporaryDirectory() as folder:
            return load_version(client, find_version(client, reference or CHAMPION, task), Path(folder))
    if Path(reference).exists():
        return segmenter_of_run(reference)
    if re.fullmatch(r"[0-9a-f]{32}", reference):
        with asking(f"load run {reference}"):
            return _segmenter_of_mlflow_run(connect(must_exist=True), reference)
    raise InputError(
        f"no model {reference}: expected models:/TASK@champion, models:/TASK/NUMBER, an MLflow run id, or a run folder"
    )


def fetch_run(reference: str, folder: Path = FETCHED_FOLDER) -> RunRecord:
    """The record of a registered model, fetched into `folder`, a run folder of its own; checked before it is there.

    It has weights and calibration, but no evaluation: its scores at home stand in the registry.

    Raises:
        InputError: there is no such version, or it is damaged.
        RunError: the store cannot be reached.
    """
    client = connect(must_exist=True)
    with asking(f"load {reference}"), tempfile.TemporaryDirectory() as temporary:
        version = find_version(client, reference)
        package = Path(temporary)
        load_version(client, version, package)
        place = folder / f"{version.task}-{version.number}"
        busy = f"another process is fetching {version.uri}; wait for it"
        with hold(place, busy, patience=60), atomic_folder(place / "training", OWN_FILES) as training:
            for name in ("record.json", "weights.safetensors"):
                shutil.copy(package / name, training)
            with atomic_path(place / CELLS_FILE) as cells:
                shutil.copy(package / CELLS_FILE, cells)
    return RunRecord.open(place)


def _segmenter_of_mlflow_run(client: MlflowClient, run_id: str) -> Segmenter:
    from mlflow.exceptions import MlflowException

    try:
        tags = client.get_run(run_id).data.tags
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        raise InputError(f"no MLflow run {run_id} in this store") from error
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        for part in ("training", "evaluation"):
            (run / part).mkdir(parents=True)
        try:
            for name in ("record.json", "weights.safetensors"):
                os.replace(client.download_artifacts(run_id, f"record/{name}", folder), run / "training" / name)
            for name in (METRICS_FILE, SCORES_FILE, BASELINES_FILE):
                client.download_artifacts(run_id, name, str(run / "evaluation"))
            client.download_artifacts(run_id, CELLS_FILE, str(run))
        except (MlflowException, OSError) as error:
            raise RunError(f"run {run_id} has no complete record ({reason_of(error)})") from error
        weights = hashlib.sha256((run / "training" / "weights.safetensors").read_bytes()).hexdigest()
        if (weights, evaluation_digest(run / "evaluation")) != (tags.get(WEIGHTS_TAG), tags.get(EVALUATION_TAG)):
            raise InputError(f"run {run_id}: its files are not those that were published; publish it again")
        # The scores, whose digest was just compared, name the checksum of cells.json.
        read_fitting(run / "evaluation")
        return segmenter_of_run(run)
