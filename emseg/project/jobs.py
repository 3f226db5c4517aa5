"""A list of trainings within a time limit, on a machine that may have no MLflow, DVC or Optuna."""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from emseg.data.sources import Source, load_source
from emseg.errors import InputError, RunError
from emseg.evaluation.evaluate import calibrate_and_evaluate
from emseg.files import HeldError, hold
from emseg.records.bundle import pack_run
from emseg.records.record import RunRecord
from emseg.records.run import FINISHED, run_name
from emseg.reporting.evaluation_figures import draw_evaluation
from emseg.settings import ProtocolName, Settings, merge, profile_values, validate_settings
from emseg.settings.base import DATA_NAME, Name, Seed, validated
from emseg.settings.file import parse_yaml, read_file
from emseg.training.plan import RunPlan
from emseg.training.run import train_model


class Job(BaseModel):
    """One training."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: Name
    profile: str | None = None
    data: str = Field(pattern=DATA_NAME)
    protocol: ProtocolName
    fold: int = Field(default=0, ge=0)
    seed: Seed = 0
    name: str = ""
    set: dict[str, Any] = {}

    @property
    def folder_name(self) -> str:
        """The run's folder: what it is, and the name of the variation if it has one."""
        variation = re.sub(r"\W+", "-", self.name)
        parts = (self.data, self.profile or "default", self.protocol, variation)
        return "-".join(part for part in parts if part) + "/" + run_name(self.model, self.fold, self.seed)


class _OutOfTime(Exception):  # noqa: N818
    pass


def read_jobs(path: Path) -> list[Job]:
    """The jobs of a file.

    Raises:
        InputError: the file is missing, is not a list of jobs, or names a run twice.
    """
    entries = parse_yaml(read_file(path), str(path))
    if not isinstance(entries, list) or not entries:
        raise InputError(f"{path} must be a list of jobs, such as `- {{model: unet2, data: synthetic, ...}}`")
    jobs = [validated(Job, entry, f"{path}, job {number}: ") for number, entry in enumerate(entries, start=1)]
    names = [job.folder_name for job in jobs]
    if twice := {name for name in names if names.count(name) > 1}:
        raise InputError(f"{path} names {', '.join(sorted(twice))} twice; give one of them a name")
    return jobs


def job_settings(job: Job, project: Path = Path()) -> Settings:
    """params.yaml with the profile and the changes of a job."""
    changes = {"data": {"source": job.data}, "protocol": {"name": job.protocol, "folds": [job.fold]}}
    values = profile_values(project, job.profile, changes)
    merge(values, job.set)
    return validate_settings(values, f"job {job.folder_name}: ")


def plan_of(job: Job, settings: Settings, dataset: Source) -> RunPlan:
    """The plan of a job.

    Raises:
        InputError: names the job and the setting that cannot work.
    """
    try:
        return RunPlan(job.model, job.fold, job.seed, settings, dataset)
    except InputError as error:
        raise InputError(f"job {job.folder_name}: {error}") from error


@contextmanager
def claim(folder: Path) -> Iterator[bool]:
    """Whether the run in `folder` is this process's to make; False while another process is at it.

    Raises:
        InputError: the folder cannot be written to.
    """
    with ExitStack() as held:
        try:
            held.enter_context(hold(folder, f"another process is at {folder}"))
            is_ours = True
        except HeldError:
            is_ours = False
        yield is_ours


def run_job(job: Job, plan: RunPlan, folder: Path, deadline: float) -> RunRecord:
    """Train and score one job in `folder`, or go on with it.

    Raises:
        _OutOfTime: `deadline` (of `time.monotonic`) passed; the last epoch is safe.
    """

    def stop_in_time(record: RunRecord) -> None:
        if time.monotonic() > deadline and record.read().status != FINISHED:
            raise _OutOfTime

    record = train_model(plan, folder / "training", after_epoch=stop_in_time)
    record.update(profile=job.profile, variation=job.name)
    if not (record.evaluation_folder / "metrics.json").is_file():
        calibrate_and_evaluate(
            record, plan.dataset, draw=draw_evaluation if find_spec("matplotlib") else lambda *_: None
        )
    return record


def run_jobs(file: Path, out: Path, minutes: float, sources_folder: Path, pack: bool) -> list[str]:
    """Run a list of jobs; stderr says which.

    Args:
        file: the list.
        out: folder of the runs.
        minutes: start or go on with nothing after these.
        sources_folder: that holds the data, by name.
        pack: zip every finished run into `out`/packed.

    Returns:
        The jobs that failed.

    Raises:
        InputError: a job cannot work; none is begun then.
    """
    deadline = time.monotonic() + 60 * minutes
    jobs = read_jobs(file)
    settings = [job_settings(job) for job in jobs]
    wanted = [(job.data, own.data.labels) for job, own in zip(jobs, settings, strict=True)]
    sources = {of: load_source(of[0], sources_folder, of[1]) for of in dict.fromkeys(wanted)}
    # A list that goes wrong in its last job should not take hours to say so.
    plans = [plan_of(job, own, sources[of]) for job, own, of in zip(jobs, settings, wanted, strict=True)]
    failed = []
    for number, (job, plan) in enumerate(zip(jobs, plans, strict=True), start=1):
        if time.monotonic() > deadline:
            print(f"out of time; {len(jobs) - number + 1} of {len(jobs)} jobs are left", file=sys.stderr)
            break
        folder = out / "runs" / job.folder_name
        with claim(folder) as is_ours:
            doing = "" if is_ours else ", left to the process that is at it"
            print(f"job {number} of {len(jobs)}: {job.folder_name}{doing}", file=sys.stderr, flush=True)
            if not is_ours:
                continue
            try:
                record = run_job(job, plan, folder, deadline)
            except _OutOfTime:
                print(f"out of time in {job.folder_name}; the same command goes on with it", file=sys.stderr)
                break
            except (InputError, RunError) as error:
                # The other jobs are worth having all the same.
                print(f"{job.folder_name}: {error}", file=sys.stderr)
                failed.append(job.folder_name)
                continue
            if pack:
                pack_run(record, out / "packed" / f"{job.folder_name.replace('/', '--')}.zip")
    return failed
