"""Tasks: each is a registered model whose versions compete, and a second one whose versions are its line of champions.

A tag on the registered model tells both from models that others made.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from emseg.errors import InputError
from emseg.settings import load_settings
from emseg.text import plain
from emseg.tracking.delivery import RECORD_TAG
from emseg.tracking.store import patiently, store_name

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion, RegisteredModel

KIND_TAG = "emseg.kind"
_NAME = re.compile(r"[\w-][\w.-]{0,99}")
_TASK, _CHAMPIONS = "task", "champions"
COPIES_TAG = "champion.version"
"""Of a link of a line of champions: the number of the version that it copies."""
OLD_MODEL, OLD_TAG, TAKEN_OVER_TAG = "emseg-membrane", "emseg.description", "emseg.taken_over"
"""The one registered model of earlier versions of emseg, what its versions were described by, and that it is done."""
_DESCRIPTIONS = {
    _TASK: "Segmentation of neuronal membranes in electron-microscopy sections. Versions of every architecture "
    "compete. The champion is the last valid version of the registered model {task}-champion; the alias `champion` "
    "follows it.",
    _CHAMPIONS: "The champions of {task}, in order. Each version copies one of {task} and says what it was judged "
    "against. `emseg promote` and `emseg rollback` add to it.",
}


def line_of(task: str) -> str:
    """The name of the registered model that is a task's line of champions."""
    return f"{task}-champion"


def tasks(client: MlflowClient) -> list[str]:
    """The names of a store's tasks.

    Raises:
        InputError: the store is one of an earlier version of emseg.
    """
    found, token = [], None
    while True:
        page = client.search_registered_models(f"tags.`{KIND_TAG}` = '{_TASK}'", page_token=token)
        found += [model.name for model in page]
        if not (token := page.token):
            break
    _require_taken_over(client)
    return sorted(found)


def find_task(client: MlflowClient, named: str | None = None) -> str:
    """The task that is named; else the only one, or that of the project in the current folder.

    Raises:
        InputError: there is no such task, or none is named and there are several.
    """
    there = tasks(client)
    if named is not None and (named in there or _has_lost_its_tag(client, named)):
        return named
    if not there:
        named_or_not = f"there is no task {plain(named)}; " if named else ""
        raise InputError(f"{named_or_not}nothing is registered yet in {store_name()}: run `emseg publish`")
    if named is not None:
        raise InputError(f"there is no task {plain(named)} in {store_name()}; there are {', '.join(there)}")
    if len(there) > 1 and (own := _task_of_project()) in there:
        return own
    if len(there) > 1:
        raise InputError(f"the store holds several tasks, {', '.join(there)}; name one with --task")
    return there[0]


def _task_of_project() -> str | None:
    """What params.yaml in the current folder says."""
    if not Path("params.yaml").is_file():
        return None
    settings = load_settings()
    return settings.task or settings.data.source


def make_task(client: MlflowClient, task: str) -> None:
    """Make a task where there is none.

    Raises:
        InputError: its name cannot be one, or a registered model of that name is there, and is no task.
    """
    if not _NAME.fullmatch(task):
        raise InputError(f"'{plain(task)}' cannot name a task; use up to 100 letters, digits, '-', '_' and '.'")
    _make(client, task, task, _TASK)


def make_line(client: MlflowClient, task: str) -> None:
    """Make the line of champions of a task where there is none.

    Raises:
        InputError: a registered model of that name is there, and is no line of champions.
    """
    _make(client, line_of(task), task, _CHAMPIONS)


def registered_model(client: MlflowClient, name: str) -> RegisteredModel | None:
    """A registered model, or None where there is none of that name."""
    from mlflow.exceptions import MlflowException

    try:
        return client.get_registered_model(name)
    except MlflowException as error:
        if error.error_code not in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            raise
        return None


def versions_in(client: MlflowClient, condition: str) -> list[ModelVersion]:
    """Every version of MLflow's that meets a condition in its own language, whatever made it."""
    found: list[ModelVersion] = []
    token = None
    while True:
        asked = token
        page = patiently(lambda: client.search_model_versions(condition, page_token=asked))  # noqa: B023
        found += page
        if not (token := getattr(page, "token", None)):
            return found


def is_old(version: ModelVersion) -> bool:
    """Whether an earlier version of emseg described a version."""
    return OLD_TAG in version.tags


def _make(client: MlflowClient, name: str, task: str, kind: str) -> None:
    from mlflow.exceptions import MlflowException

    found = registered_model(client, name)
    if found is None:
        description = _DESCRIPTIONS[kind].format(task=task)
        try:
            patiently(lambda: client.create_registered_model(name, {KIND_TAG: kind}, description))
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
            found = client.get_registered_model(name)
    if found is not None and found.tags.get(KIND_TAG) != kind and not _has_lost_its_tag(client, name, kind):
        raise InputError(
            f"the registered model {plain(name)} in {store_name()} was not made by emseg for this; choose another name "
            "for the task: `task` in params.yaml, or --task"
        )


def _has_lost_its_tag(client: MlflowClient, name: str, kind: str = _TASK) -> bool:
    """Whether a registered model without our tag holds versions that emseg made: the pages let anyone remove a tag."""
    model = registered_model(client, name)
    if model is None or KIND_TAG in model.tags:
        return False
    own = [version for version in versions_in(client, f"name = '{model.name}'") if RECORD_TAG in version.tags]
    return any((COPIES_TAG in version.tags) == (kind == _CHAMPIONS) and not is_old(version) for version in own)


def _require_taken_over(client: MlflowClient) -> None:
    model = registered_model(client, OLD_MODEL)
    if model is None or KIND_TAG in model.tags or TAKEN_OVER_TAG in model.tags:
        return
    if any(map(is_old, versions_in(client, f"name = '{OLD_MODEL}'"))):
        raise InputError(
            f"the registered model {OLD_MODEL} in {store_name()} is of an earlier emseg; take its versions and "
            "champions over once with `emseg registry --take-over`"
        )
