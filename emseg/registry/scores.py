"""Scores per section of a version: a file of its package and of its run, whose digest is in a tag of the version."""

from __future__ import annotations

import hashlib
import io
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from emseg.errors import InputError
from emseg.metrics.scoring import Scores
from emseg.records.evaluation import SCORES_FILE
from emseg.registry.described import SCORES_TAG, Version
from emseg.registry.package import AGAIN
from emseg.registry.versions import package_place
from emseg.tracking.store import reason_of

if TYPE_CHECKING:
    from mlflow import MlflowClient

_tables: dict[str, pd.DataFrame] = {}
"""By digest: a process reads each once."""


def scores_of_version(client: MlflowClient, version: Version) -> Scores:
    """Scores per section, with the seed.

    Raises:
        InputError: they are gone, or are not those that were registered.
    """
    digest = version.tags.get(SCORES_TAG, "")
    if digest not in _tables:
        _tables[digest] = _fetched(client, version, digest)
    table = _tables[digest].assign(seed=version.origin.seed)
    return Scores(version.evaluation.protocol, version.evaluation.data_digest, table)


def read_scores(content: bytes) -> pd.DataFrame:
    """A table of scores: a row for each section, a column of finite numbers for each metric.

    Raises:
        ValueError: it is none.
    """
    table = pd.read_csv(io.BytesIO(content))
    for name in ("section", "v_rand"):
        if name not in table:
            raise ValueError(f"they have no {name}")
    if table.empty or table["section"].duplicated().any():
        raise ValueError("they have no sections, or one twice")
    if any(kind.kind not in "iuf" for kind in table.dtypes) or not np.isfinite(table.to_numpy()).all():
        raise ValueError("they hold something that is not a number")
    return table


def _fetched(client: MlflowClient, version: Version, digest: str) -> pd.DataFrame:
    from mlflow.artifacts import download_artifacts
    from mlflow.exceptions import MlflowException

    reason = "neither its package nor its run has those that were registered"
    for place in (f"{package_place(client, version)}/{SCORES_FILE}", f"runs:/{version.run_id}/{SCORES_FILE}"):
        try:
            with tempfile.TemporaryDirectory() as folder:
                content = Path(download_artifacts(artifact_uri=place, dst_path=folder)).read_bytes()
            if hashlib.sha256(content).hexdigest() == digest:
                return read_scores(content)
        except (MlflowException, OSError, ValueError) as error:
            reason = reason_of(error)
    raise InputError(f"{version.uri}: its scores per section cannot be read ({reason[:120]}); {AGAIN}")
