"""What of a run record goes to MLflow, read before anything is written there."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from emseg.errors import InputError
from emseg.records.checked import reading
from emseg.records.evaluation import (
    METRICS_FILE,
    Evaluated,
    Evaluation,
    ScoredRun,
    flat_metrics,
    read_evaluated,
    require_calibration,
    require_fit,
)
from emseg.records.record import RunRecord
from emseg.records.run import FINISHED, Run
from emseg.records.transfer import read_transferred, transfers_of
from emseg.settings import LEAKING_PROTOCOLS, TRANSFER
from emseg.settings.file import flat
from emseg.text import markdown, plain

RECORD_TAG = "emseg.record_id"


@dataclass(frozen=True)
class TransferDelivery:
    """What a run is worth on another dataset, as it goes to MLflow.

    Attributes:
        dataset, data_digest: that dataset.
        folder: that holds its files.
        numbers: every metric, by its name in MLflow: transfer/DATASET/METRIC.
        digest: of the files.
    """

    dataset: str
    data_digest: str
    folder: Path
    numbers: dict[str, float]
    digest: str


@dataclass(frozen=True)
class Delivery:
    """Everything of a record that goes to MLflow, read before anything is written there.

    Attributes:
        run: record.json.
        name: what MLflow calls it.
        tags, parameters: of a new run.
        epochs: per epoch its number, the time it ended in milliseconds, and its metrics by their name in MLflow.
        ended: when the run finished, in milliseconds.
        evaluation: None where there is none.
        numbers: every metric of the evaluation, by its name in MLflow.
        scores: per section, as MLflow tables are.
        note: what the evaluation says, in Markdown.
        evaluation_digest: of the files that hold the evaluation.
        transfers: what it is worth on other datasets.
        passed_by: a sentence for each transfer that is of other weights or another calibration, or damaged.
    """

    run: Run
    name: str
    tags: dict[str, str]
    parameters: list[Any]
    epochs: list[tuple[int, int, dict[str, float]]]
    ended: int
    evaluation: Evaluation | None = None
    numbers: dict[str, float] = field(default_factory=dict)
    scores: dict[str, Any] | None = None
    note: str = ""
    evaluation_digest: str = ""
    transfers: list[TransferDelivery] = field(default_factory=list)
    passed_by: list[str] = field(default_factory=list)


def read_delivery(record: RunRecord, with_scores: bool = True) -> Delivery:
    """Read all that is delivered, or all but scores.

    Raises:
        InputError: a part is damaged; the message names the run.
    """
    folder = record.evaluation_folder
    with reading(record.folder.parent):
        run = record.read()
        if record.weights_file.is_file():
            record.check_weights(run)
        delivery = _delivery_of_training(record, run)
        if run.status != FINISHED or not with_scores:
            return delivery
        transfers, passed_by = _transfers(record)
        delivery = replace(delivery, transfers=transfers, passed_by=passed_by)
        if not (folder / METRICS_FILE).is_file():
            return delivery
        evaluated = read_evaluated(folder)
        require_fit(run, evaluated.evaluation, folder)
        require_calibration(folder.parent, run, evaluated.evaluation)
        return replace(
            delivery,
            evaluation=evaluated.evaluation,
            numbers=_numbers(evaluated.evaluation),
            scores=json.loads(evaluated.table.to_json(orient="split", index=False)),
            note=_note(evaluated),
            evaluation_digest=evaluation_digest(folder),
        )


def _delivery_of_training(record: RunRecord, run: Run) -> Delivery:
    lineage = run.lineage
    tags = {
        RECORD_TAG: run.id,
        "model": run.model,
        "protocol": run.protocol,
        "leaks": str(run.protocol in LEAKING_PROTOCOLS).lower(),
        "data.digest": run.data_digest,
        "data.augmented_digest": run.augmented_digest,
        "code.digest": lineage.code_digest,
        "git.dirty": str(lineage.git_dirty).lower(),
        "device": lineage.device,
        **{f"dvc.{path.replace('/', '.')}": md5 for path, md5 in lineage.dvc.items()},
    }
    if lineage.git_commit:
        tags["mlflow.source.git.commit"] = lineage.git_commit
        tags["git.commit"] = lineage.git_commit
    # What a list of jobs calls its runs; a run of the pipeline has neither.
    given = {key: value for key, value in (("profile", run.profile), ("variation", run.variation)) if value}
    settings = run.model_dump(include={"model", "protocol", "fold", "seed", "parameters"})
    epochs = _epochs(record, run)
    ended = _milliseconds(run.finished) if run.finished else 0
    return Delivery(
        run,
        plain("-".join([run.name, *given.values()])),
        {key: plain(value) for key, value in (tags | given).items()},
        flat_parameters(settings | run.settings.model_dump()),
        epochs,
        # No point of the end lies before those of the epochs.
        max(ended, epochs[-1][1] if epochs else 0),
    )


def _epochs(record: RunRecord, run: Run) -> list[tuple[int, int, dict[str, float]]]:
    """Of each epoch: number, when it ended, metrics.

    When is reckoned from the record, so that whoever delivers a point, however often, delivers the same point.
    """
    moment = float(_milliseconds(run.created))
    epochs = []
    for row in record.history():
        moment += 1000 * row.get("seconds", 0.0)
        metrics = {_metric_name(key): value for key, value in row.items() if key != "epoch"}
        epochs.append((int(row["epoch"]), int(moment), metrics))
    return epochs


def _transfers(record: RunRecord) -> tuple[list[TransferDelivery], list[str]]:
    found, passed_by = [], []
    for folder in transfers_of(record):
        try:
            transfer = read_transferred(record, folder).transfer
        except InputError as error:
            passed_by.append(str(error))
            continue
        numbers = {f"{TRANSFER}/{transfer.dataset}/{key}": value for key, value in _numbers(transfer).items()}
        digest = evaluation_digest(folder)
        found.append(TransferDelivery(transfer.dataset, transfer.data_digest, folder, numbers, digest))
    return found, passed_by


def evaluation_digest(folder: Path) -> str:
    """Of the files of an `evaluation` folder that decide how its model segments and what it is worth."""
    digest = hashlib.sha256()
    for name in ("metrics.json", "scores.csv"):
        if (folder / name).is_file():
            digest.update(name.encode() + (folder / name).read_bytes())
    return digest.hexdigest()[:32]


def _numbers(evaluation: ScoredRun) -> dict[str, float]:
    """Every metric of an evaluation as MLflow has it."""
    return flat_metrics(evaluation.metrics) | {
        "threshold/cells": evaluation.threshold,
        "threshold/v_info": evaluation.v_info_threshold,
        "threshold/oracle": evaluation.oracle_threshold,
    }


def _note(evaluated: Evaluated) -> str:
    evaluation, metrics = evaluated.evaluation, evaluated.evaluation.metrics
    sections = ", ".join(markdown(section) for section in evaluated.table["section"])
    leaks = " **This protocol leaks: an upper bound, not a generalisation figure.**" if evaluation.leaks else ""
    return (
        f"{markdown(evaluation.model)} on {markdown(evaluation.dataset)}, protocol {evaluation.protocol}.{leaks} "
        f"V_rand {metrics['v_rand'].mean:.4f} (cells by {evaluation.cells} at {markdown(evaluation.threshold)}), "
        f"Dice {metrics['dice'].mean:.4f}, pixel error {metrics['pixel_error'].mean:.4f} "
        f"on test sections {sections}."
    )


def _metric_name(column: str) -> str:
    if column == "train_loss":
        return "train/loss"
    return f"validation/{column.removeprefix('validation_')}" if column.startswith("validation_") else f"train/{column}"


def flat_parameters(settings: dict[str, Any]) -> list[Any]:
    """Nested settings as MLflow parameters, with dotted names."""
    from mlflow.entities import Param

    return [Param(key, str(value)) for key, value in flat(settings).items()]


def _milliseconds(moment: str) -> int:
    """Of a time as records have it."""
    return int(datetime.fromisoformat(moment).timestamp() * 1000)
