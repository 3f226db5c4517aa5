"""Run a list of trainings within a time limit, on a machine that may have no MLflow, DVC or Optuna.

    python -m pipelines.jobs jobs.yaml --out OUT --minutes 50

jobs.yaml is a list; a job names what differs from params.yaml:

    - {name: no-average, model: residual_unet, profile: best, data: isbi2012, protocol: heldout, fold: 0, seed: 0,
       set: {training: {weight_average: 0.0}}}

Every job becomes OUT/runs/NAME: a run record with its scores. Started again, finished jobs are kept and a stopped
one goes on from its checkpoint. Started several times at once, the processes share the list: on two cores, two of one
thread each (OMP_NUM_THREADS=1) are faster than one of two. `--pack` puts each run into zip files of at most 16 MiB,
which `emseg publish` imports where MLflow is; weights that do not fit stay behind.
"""

import argparse
import re
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from emseg.data.sources import SOURCES_FOLDER, Source, load_source
from emseg.errors import InputError, RunError
from emseg.evaluation.evaluate import calibrate_and_evaluate, evaluation_folder
from emseg.files import HeldError, hold
from emseg.records.run import FINISHED
from emseg.reporting.evaluation_figures import draw_evaluation
from emseg.settings import ProtocolName, Settings, merge, profile_values, validate_settings
from emseg.settings_base import DATA_NAME, Name, Seed, validated
from emseg.settings_file import parse_yaml, read_file
from emseg.training.bundle import pack_run
from emseg.training.plan import RunPlan
from emseg.training.record import RunRecord, run_name
from emseg.training.run import train_model
from pipelines.stage import run_stage


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
        if time.monotonic() > deadline and record.read()["status"] != FINISHED:
            raise _OutOfTime

    record = train_model(plan, folder / "training", after_epoch=stop_in_time)
    record.update(profile=job.profile, variation=job.name)
    if not (evaluation_folder(record) / "metrics.json").is_file():
        calibrate_and_evaluate(record, plan.dataset, draw=draw_evaluation if _can_draw() else lambda *_: None)
    return record


def _can_draw() -> bool:
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        return False
    return True


def main() -> None:
    """Run the jobs named on the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("jobs", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=float("inf"), help="start or go on with nothing after these")
    parser.add_argument("--sources", type=Path, default=SOURCES_FOLDER, help="folder that holds the data, by name")
    parser.add_argument("--pack", action="store_true", help="zip every finished run into OUT/packed")
    arguments = parser.parse_args()
    deadline = time.monotonic() + 60 * arguments.minutes
    jobs = read_jobs(arguments.jobs)
    settings = [job_settings(job) for job in jobs]
    sources = {name: load_source(name, arguments.sources) for name in sorted({job.data for job in jobs})}
    # A list that goes wrong in its last job should not take hours to say so.
    plans = [plan_of(job, own, sources[job.data]) for job, own in zip(jobs, settings, strict=True)]
    failed = []
    for number, (job, plan) in enumerate(zip(jobs, plans, strict=True), start=1):
        if time.monotonic() > deadline:
            print(f"out of time; {len(jobs) - number + 1} of {len(jobs)} jobs are left", file=sys.stderr)
            break
        folder = arguments.out / "runs" / job.folder_name
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
            if arguments.pack:
                pack_run(record, arguments.out / "packed" / f"{job.folder_name.replace('/', '--')}.zip")
    if failed:
        raise SystemExit(1)


if __name__ == "__main__":
    run_stage(main)
