"""From what a user names to a model that segments: a registry URI, an MLflow run id, or a run folder."""

from __future__ import annotations

import re
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from emseg.errors import InputError, RunError
from emseg.reporting.evaluation import EVALUATION_TABLES
from emseg.tracking.packaging import segmenter_of_run
from emseg.tracking.registry import find_version, load_version
from emseg.tracking.store import connect

if TYPE_CHECKING:
    from mlflow import MlflowClient

    from emseg.inference.segmenter import Segmenter

DEFAULT_MODEL = "models:/emseg-membrane@champion"


def load_segmenter(reference: str = DEFAULT_MODEL) -> Segmenter:
    """Load a model, checked.

    Args:
        reference: models:/emseg-membrane@champion, models:/emseg-membrane/3, an MLflow run id, or a run folder.

    Raises:
        InputError: there is no such model, or it is damaged.
        RunError: the store cannot be reached.
    """
    if reference.startswith("models:/"):
        client = connect()
        with tempfile.TemporaryDirectory() as folder:
            return load_version(find_version(client, reference), Path(folder))
    if Path(reference).exists():
        return segmenter_of_run(reference)
    if re.fullmatch(r"[0-9a-f]{32}", reference):
        return _segmenter_of_mlflow_run(connect(), reference)
    raise InputError(
        f"no model {reference}: expected {DEFAULT_MODEL}, models:/emseg-membrane/NUMBER, an MLflow run id, "
        "or a run folder"
    )


def _segmenter_of_mlflow_run(client: MlflowClient, run_id: str) -> Segmenter:
    from mlflow.exceptions import MlflowException

    try:
        client.get_run(run_id)
    except MlflowException as error:
        raise InputError(f"no MLflow run {run_id} in this store") from error
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        (run / "evaluation").mkdir(parents=True)
        try:
            Path(client.download_artifacts(run_id, "record", folder)).rename(run / "training")
            for name in EVALUATION_TABLES:
                client.download_artifacts(run_id, name, str(run / "evaluation"))
        except (MlflowException, OSError) as error:
            raise RunError(f"run {run_id} has no complete record ({' '.join(str(error).split())[:120]})") from error
        return segmenter_of_run(run)
