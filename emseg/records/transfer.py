"""What a run is worth on another dataset: scores of their own kind, which nothing takes for those on its own."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pandas as pd
from pydantic import BaseModel, ConfigDict, Field

from emseg.errors import InputError
from emseg.records.evaluation import METRICS_FILE, ScoredRun, read_scored, require_calibration
from emseg.records.record import RunRecord
from emseg.records.run import MadeFrom, Run
from emseg.settings import ProtocolName


class Home(BaseModel):
    """What a run was trained, and its cells calibrated, on."""

    model_config = ConfigDict(extra="allow", strict=True, frozen=True)

    dataset: str
    protocol: ProtocolName
    data_digest: str


class Transfer(ScoredRun):
    """What a run is worth on `dataset`, of which it learned nothing.

    Thresholds and rules for cells are those that were calibrated at home.
    """

    protocol: Literal["transfer"]
    leaks: Literal[False]
    made_from: MadeFrom
    calibration: str = Field(min_length=1)
    home: Home
    left_out: list[int]
    """Numbers of sections that the run was trained or calibrated on; they are not scored."""
    unlike_training: str | None
    """How the grey levels differ from those trained on, in one sentence; None: little."""


@dataclass(frozen=True)
class Transferred:
    """A transfer with its table.

    Attributes:
        run: record.json.
        transfer: metrics.json.
        table: scores.csv, a row per section.
    """

    run: Run
    transfer: Transfer
    table: pd.DataFrame


def transfer_folder(record: RunRecord, dataset: str) -> Path:
    """Where the scores of a run on another dataset are written."""
    return record.transfers_folder / dataset


def is_transfer(folder: Path) -> bool:
    """Whether a folder is where the scores of a run on another dataset lie, whatever the dataset is called."""
    parent = folder.parent
    return parent.name == "transfer" and (parent.parent / "training" / "record.json").is_file()


def transfers_of(record: RunRecord) -> list[Path]:
    """The folders of a run's scores on other datasets."""
    return sorted(file.parent for file in record.transfers_folder.glob(f"*/{METRICS_FILE}"))


def read_transferred(record: RunRecord, folder: Path) -> Transferred:
    """The scores in one of `transfers_of`, which were made with the weights and the calibration beside them.

    Raises:
        InputError: they were not, or a file is missing or damaged.
    """
    run = record.read()
    transfer, table, _ = read_scored(folder, Transfer)
    again = f"score it again with `emseg evaluate {record.folder.parent} --data {folder.name}`"
    differing = transfer.made_from.differing(run.made_from)
    if differing or transfer.dataset != folder.name:
        what = ", ".join(differing) or "dataset"
        raise InputError(f"{folder} holds scores of another run than the one beside it ({what} differ); {again}")
    require_calibration(record.folder.parent, run, transfer, folder, again)
    return Transferred(run, transfer, table)
