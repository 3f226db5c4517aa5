"""Versions and champions of an earlier emseg, which had one registered model for everything, taken over once.

There, scores per section and all else that versions were judged by stood in one tag of each version, and the list of
champions in a tag of the registered model. Nothing of it is deleted.
"""

from __future__ import annotations

import hashlib
import io
import json
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from emseg.errors import InputError
from emseg.records.evaluation import SCORES_FILE
from emseg.records.record import now
from emseg.registry.champions import add_link, read_line, settle
from emseg.registry.decision import evidence_table
from emseg.registry.described import DIGEST_TAG, REPLACES_TAG, SCORES_TAG, Version, read_version, summarise
from emseg.registry.tasks import (
    OLD_MODEL,
    OLD_TAG,
    TAKEN_OVER_TAG,
    is_old,
    make_task,
    registered_model,
    versions_in,
)
from emseg.registry.telling import Tell, say
from emseg.registry.versions import PACKAGE_FOLDER, versions_of_record
from emseg.text import markdown, plain
from emseg.tracking.delivery import RECORD_TAG
from emseg.tracking.publish import WEIGHTS_TAG
from emseg.tracking.store import asking, patiently, reason_of

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

_LIST_TAG, _DECISION_TAG = "emseg.champions", "emseg.decision"
_KEPT = (RECORD_TAG, DIGEST_TAG, WEIGHTS_TAG)


def take_over(client: MlflowClient, task: str | None = None, tell: Tell = say) -> dict[str, list[int]]:
    """Register the versions of an earlier emseg with their tasks, with the champions that they had.

    What was taken over before is not taken over again, so that a command that was stopped goes on.

    Args:
        client: of the store.
        task: whose versions they become; None: of each the one of its dataset's name.
        tell: told of versions that are passed by.

    Returns:
        The numbers of the versions of each task that were champion, in order.

    Raises:
        InputError: there is nothing to take over.
        RunError: the store refuses.
    """
    with asking("take over an earlier registry"):
        model = registered_model(client, OLD_MODEL)
        old = sorted(versions_in(client, f"name = '{OLD_MODEL}'"), key=lambda version: int(version.version))
        old = [version for version in old if is_old(version)]
        if model is None or not old:
            raise InputError(f"there is no registered model {OLD_MODEL} of an earlier emseg, so nothing to take over")
        taken: dict[int, Version] = {}
        for version in old:
            try:
                new = _take_version(client, version, task)
            except ValueError as error:
                tell(f"version {version.version} of {OLD_MODEL} is not taken over: {error}")
                continue
            taken[int(version.version)] = new
            before = version.tags.get(REPLACES_TAG, "")
            if before.isascii() and before.isdecimal():
                taken[int(before)] = new
        history = [number for number in _history(model.tags.get(_LIST_TAG, "[]"), tell) if number in taken]
        decisions = {int(version.version): version.tags.get(_DECISION_TAG, "") for version in old}
        champions: dict[str, list[int]] = {}
        for name in sorted({version.task for version in taken.values()}):
            own = [number for number in history if taken[number].task == name]
            for position, number in enumerate(own):
                line = read_line(client, name)
                if position < len(line.valid):
                    continue
                add_link(client, taken[number], line, "taken over", _described(number, decisions.get(number, "")))
            settle(client, name)
            champions[name] = read_line(client, name).champions
        client.set_registered_model_tag(OLD_MODEL, TAKEN_OVER_TAG, now())
    return champions


def _take_version(client: MlflowClient, version: ModelVersion, task: str | None) -> Version:
    """The version of a task that an old one becomes.

    Raises:
        ValueError: it cannot; the message says why.
    """
    try:
        described = json.loads(version.tags[OLD_TAG])
        facts, evaluation = described["facts"], described["metrics"]
        table = pd.read_csv(io.StringIO(described["scores"]))
        tags = {
            **{key: version.tags[key] for key in _KEPT if key in version.tags},
            "model": plain(facts["model"]),
            "seed": str(int(facts["seed"])),
            "emseg.recipe": plain(facts["recipe"]),
            "git.commit": plain(facts["git_commit"] or "none"),
            "git.dirty": str(bool(facts["git_dirty"])).lower(),
            **summarise(evaluation, table),
            SCORES_TAG: hashlib.sha256(_scores(client, version)).hexdigest(),
        }
        name = task or str(evaluation["dataset"])
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError, OSError) as error:
        raise ValueError(reason_of(error)[:120] or type(error).__name__) from None
    make_task(client, name)
    known = versions_of_record(client, tags.get(RECORD_TAG, ""), name)
    same = [each for each in known if each.tags.get(DIGEST_TAG) == tags.get(DIGEST_TAG)]
    if not same:
        source = str(version.source)
        made = patiently(
            lambda: client.create_model_version(
                name,
                source,
                run_id=version.run_id,
                tags=tags,
                description=version.description,
                model_id=source.removeprefix("models:/") if source.startswith("models:/m-") else None,
            )
        )
        same = [made]
    return read_version(client.get_model_version(name, same[0].version), name, int(same[0].version))


def _scores(client: MlflowClient, version: ModelVersion) -> bytes:
    """The file of scores per section in an old version's package."""
    from mlflow.artifacts import download_artifacts
    from mlflow.exceptions import MlflowException

    place = client.get_model_version_download_uri(OLD_MODEL, version.version)
    try:
        with tempfile.TemporaryDirectory() as folder:
            uri = f"{place}/{PACKAGE_FOLDER}/{SCORES_FILE}"
            return Path(download_artifacts(artifact_uri=uri, dst_path=folder)).read_bytes()
    except MlflowException as error:
        raise ValueError(f"its files are gone ({reason_of(error)[:80]})") from None


def _history(text: str, tell: Tell) -> list[int]:
    try:
        history: Any = json.loads(text)
    except (ValueError, RecursionError):
        history = None
    if isinstance(history, list) and all(type(number) is int for number in history):
        return history
    tell(f"the tag {_LIST_TAG} of {OLD_MODEL} is no list of versions, so no champion is taken over")
    return []


def _described(number: int, decision: str) -> str:
    """What is known of an old decision, in Markdown."""
    told = f"Taken over from version {number} of {OLD_MODEL}, which an earlier emseg had made champion.\n"
    try:
        found = json.loads(decision)
        table = evidence_table((each["name"], bool(each["is_met"]), each["evidence"]) for each in found["conditions"])
        who = f"\nDecided on {markdown(found['when'])} by {markdown(found['who'])}.\n"
    except (ValueError, LookupError, TypeError, RecursionError):
        return told
    return told + who + table
