"""One version, and the tags that describe it: written when a run is registered, read by all who judge it.

MLflow's pages let anyone edit a tag, so what is read is checked, and its names hold nothing that a terminal obeys.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, get_args

import pandas as pd
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from emseg.metrics.scoring import Interval
from emseg.records.evaluation import Evaluated
from emseg.records.recipe import recipe_digest
from emseg.records.run import Run
from emseg.settings import CellMethod, PromotionMetric, ProtocolName
from emseg.text import plain
from emseg.tracking.delivery import RECORD_TAG

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion

DIGEST_TAG, SCORES_TAG = "emseg.digest", "emseg.scores"
"""SHA-256 of a version's package, and of its scores per section."""
REPLACES_TAG, DECISION_TAG = "emseg.replaces", "emseg.decision"
SHOWN: tuple[PromotionMetric, ...] = ("v_rand", "v_info", "pixel_error", "dice")
"""Metrics that every version has, and that are shown of it."""
_NUMBER = r"-?\d+(?:\.\d+)?(?:e-?\d+)?"
_INTERVAL = re.compile(rf"({_NUMBER}) \[({_NUMBER}), ({_NUMBER})\]", re.ASCII)
_ABSENT = "none"


@dataclass(frozen=True)
class Version:
    """One version of a task, with what it is judged by.

    Attributes:
        task: whose version it is.
        number: of the version in its task.
        link: of the line of champions that it was read from; 0: it was read from the task itself.
        run_id: of the MLflow run.
        source: where MLflow has its files.
        tags: as MLflow has them.
        aliases: such as champion.
        origin, evaluation: what the tags say.
    """

    task: str
    number: int
    link: int
    run_id: str
    source: str
    tags: dict[str, str]
    aliases: tuple[str, ...]
    origin: Origin
    evaluation: Summary

    @property
    def uri(self) -> str:
        """models:/TASK/N."""
        return f"models:/{self.task}/{self.number}"

    @property
    def record_id(self) -> str:
        """The id of its run record."""
        return self.tags[RECORD_TAG]


def _plain(text: str) -> str:
    if plain(text) != text or not text:
        raise ValueError("is no plain name")
    return text


def _interval(text: Any) -> Any:
    if not isinstance(text, str) or not (found := _INTERVAL.fullmatch(text)):
        raise ValueError("is no mean with its interval")
    mean, low, high = map(float, found.groups())
    return Interval(mean=mean, low=low, high=high)


_Name = Annotated[str, AfterValidator(_plain)]
_NameOrNone = Annotated[_Name | None, BeforeValidator(lambda text: None if text == _ABSENT else text)]
_Count = Annotated[int, Field(ge=0, le=10**15)]


class _OfTags(BaseModel):
    # Not strict: tags are text.
    model_config = ConfigDict(extra="ignore", frozen=True, allow_inf_nan=False)


class Origin(_OfTags):
    """Of a run, what its version is told apart from others by."""

    model: _Name
    seed: _Count
    recipe: _Name = Field(alias="emseg.recipe")
    """The same for runs whose weights differ by fold and seed alone."""
    git_commit: _NameOrNone = Field(alias="git.commit")
    git_dirty: bool = Field(alias="git.dirty")

    @property
    def commit(self) -> str:
        """Ten digits of the commit, and a plus where there were uncommitted changes."""
        return str(self.git_commit)[:10] + ("+" if self.git_dirty else "")


class Summary(_OfTags):
    """Of an evaluation, what its version is ranked by; scores per section are in a file."""

    dataset: _Name
    protocol: ProtocolName
    leaks: bool
    fold: _Count
    data_digest: _Name = Field(alias="data.digest")
    sections: Annotated[int, Field(ge=1, le=10**9)]
    test: _Name = Field(alias="emseg.test")
    """The same for versions that were tested on the same sections under the same protocol."""
    cells: CellMethod
    calibration: _NameOrNone = Field(alias="emseg.calibration")
    """Checksum of the thresholds and rules that scores were made with; None in evaluations of before it was noted."""
    collapsed: bool
    metrics: dict[PromotionMetric, Annotated[Interval, BeforeValidator(_interval)]]


def describe(run: Run, evaluated: Evaluated) -> dict[str, str]:
    """The tags of a run's version, but for digests of its files."""
    evaluation = evaluated.evaluation
    facts = {
        RECORD_TAG: run.id,
        "model": plain(run.model),
        "seed": run.seed,
        "emseg.recipe": recipe_digest(run),
        "git.commit": plain(run.lineage.git_commit or _ABSENT),
        "git.dirty": str(run.lineage.git_dirty).lower(),
    }
    return {key: str(value) for key, value in facts.items()} | summarise(evaluation.model_dump(), evaluated.table)


def summarise(evaluation: dict[str, Any], table: pd.DataFrame) -> dict[str, str]:
    """The tags of an evaluation, given as metrics.json has it, with its scores per section."""
    shared = ("dataset", "protocol", "fold", "sections", "cells")
    test = [evaluation[key] for key in ("dataset", "protocol", "data_digest", "fold")]
    test.append(sorted(map(int, table["section"])))
    tags = {
        **{key: evaluation[key] for key in shared},
        "data.digest": evaluation["data_digest"],
        "leaks": str(evaluation["leaks"]).lower(),
        "collapsed": str(evaluation["collapsed"]).lower(),
        "emseg.test": hashlib.sha256(json.dumps(test).encode()).hexdigest()[:32],
        "emseg.calibration": evaluation.get("calibration") or _ABSENT,
    }
    for name in get_args(PromotionMetric):
        if interval := evaluation.get(name):
            tags[name] = "{mean:.6f} [{low:.6f}, {high:.6f}]".format(**interval)
    return {key: plain(value) for key, value in tags.items()}


def read_version(version: ModelVersion, task: str, number: int, link: int = 0) -> Version:
    """A version without its aliases.

    Args:
        version: as MLflow has it.
        task: whose it is.
        number: of the version in the task.
        link: of the line of champions that `version` is; 0: none.

    Raises:
        ValueError: it was not registered by emseg, or its tags cannot be read; the message says which.
    """
    tags = dict(version.tags)
    if RECORD_TAG not in tags or DIGEST_TAG not in tags or not version.run_id:
        raise ValueError("emseg did not register it")
    metrics = {name: tags[name] for name in get_args(PromotionMetric) if name in tags}
    again = "register its run again with `emseg publish RUN --again`"
    try:
        origin = Origin.model_validate(tags)
        summary = Summary.model_validate(tags | {"metrics": metrics})
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = plain(".".join(map(str, first["loc"])))
        raise ValueError(f"its tag {where} is damaged ({plain(first['msg'])[:100]}); {again}") from None
    if lacking := [name for name in SHOWN if name not in summary.metrics]:
        raise ValueError(f"its tag {lacking[0]} is missing; {again}")
    source = str(version.source or "")
    return Version(task, number, link, version.run_id, source, tags, (), origin, summary)
