"""One version, and the tag that describes it: written when a run is registered, read by all who judge it.

MLflow's pages let anyone edit a tag, so what is read is checked, and its names hold nothing that a terminal obeys.
"""

from __future__ import annotations

import io
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import numpy as np
import pandas as pd
from pydantic import AfterValidator, BaseModel, ConfigDict, ValidationError, model_validator

from emseg.metrics.scoring import Scores
from emseg.records.evaluation import Evaluated, Evaluation, scores_of
from emseg.records.recipe import recipe_digest
from emseg.records.run import Run
from emseg.text import plain

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion

MODEL_NAME = "emseg-membrane"
DESCRIPTION_TAG = "emseg.description"
_JUDGED_BY = ("v_rand", "v_info", "pixel_error", "dice")
"""Metrics that every version has."""


@dataclass(frozen=True)
class Version:
    """One version of the registered model, with what it is judged by."""

    number: int
    run_id: str
    tags: dict[str, str]
    aliases: tuple[str, ...]
    origin: Origin
    evaluation: Evaluation
    table: pd.DataFrame

    @property
    def uri(self) -> str:
        """models:/emseg-membrane/N."""
        return f"models:/{MODEL_NAME}/{self.number}"

    @property
    def scores(self) -> Scores:
        """Scores per section, with the seed."""
        return scores_of(self.evaluation, self.table)


def _plain(text: str) -> str:
    if plain(text) != text or not text:
        raise ValueError("is no plain name")
    return text


_Name = Annotated[str, AfterValidator(_plain)]


class Origin(BaseModel):
    """Of a run, what its version is judged by and told apart from others by."""

    model_config = ConfigDict(strict=True, extra="ignore", frozen=True)

    model: _Name
    dataset: _Name
    protocol: _Name
    fold: int
    seed: int
    parameters: int
    data_digest: _Name
    git_commit: _Name | None
    git_dirty: bool
    code_digest: str
    dvc: dict[str, str]
    augmented_digest: str
    recipe: _Name
    """The same for runs whose weights differ by fold and seed alone."""
    created: str

    @property
    def commit(self) -> str:
        """Ten digits of the commit, and a plus where there were uncommitted changes."""
        return str(self.git_commit)[:10] + ("+" if self.git_dirty else "")


class Description(BaseModel):
    """What the tag holds."""

    model_config = ConfigDict(strict=True, extra="ignore", frozen=True)

    facts: Origin
    metrics: Evaluation
    scores: str
    """CSV, a row per test section."""

    @model_validator(mode="after")
    def _can_be_judged_and_shown(self) -> Description:
        for name in (self.metrics.dataset, self.metrics.data_digest):
            _plain(name)
        if missing := [name for name in _JUDGED_BY if name not in self.metrics.metrics]:
            raise ValueError(f"{missing[0]} is missing")
        return self


def describe(run: Run, evaluated: Evaluated) -> str:
    """The tag of a run's version."""
    shared = ("model", "dataset", "protocol", "fold", "seed", "parameters", "data_digest", "augmented_digest")
    origin = {
        **{key: getattr(run, key) for key in (*shared, "created")},
        **{key: getattr(run.lineage, key) for key in ("git_commit", "git_dirty", "code_digest", "dvc")},
        "recipe": recipe_digest(run),
    }
    described = {"facts": origin, "metrics": evaluated.evaluation.model_dump(mode="json")}
    return json.dumps(described | {"scores": evaluated.table.to_csv(index=False, float_format="%.6f")})


def read_version(version: ModelVersion) -> Version:
    """A version without its aliases.

    Raises:
        ValueError: it was not registered by emseg, or its tags cannot be read; the message says which.
    """
    if DESCRIPTION_TAG not in version.tags or not version.run_id:
        raise ValueError("emseg did not register it")
    again = "register its run again with `emseg publish RUN --again`"
    try:
        described = Description.model_validate(json.loads(version.tags[DESCRIPTION_TAG]))
        table = _read_table(described)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise ValueError(f"its tag {DESCRIPTION_TAG} is damaged ({plain(where)}: {first['msg']}); {again}") from None
    except (ValueError, RecursionError) as error:
        raise ValueError(f"its tag {DESCRIPTION_TAG} is damaged ({plain(error)[:80]}); {again}") from None
    return Version(
        int(version.version), version.run_id, dict(version.tags), (), described.facts, described.metrics, table
    )


def _read_table(described: Description) -> pd.DataFrame:
    """Scores per section: a row for each, a column of finite numbers for each metric."""
    table = pd.read_csv(io.StringIO(described.scores))
    for name in ("section", *described.metrics.metrics):
        if name not in table or table[name].dtype.kind not in "iuf" or not np.isfinite(table[name]).all():
            raise ValueError(f"its scores have no numbers of {name}")
    scores_of(described.metrics, table)
    return table
