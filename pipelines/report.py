"""Write a benchmark's results to reports/, from its run records alone.

python -m pipelines.report isbi2012 quick      writes reports/isbi2012-quick.md and its two plots
"""

import argparse
import os
import shutil
from datetime import datetime
from pathlib import Path
from typing import Any

from emseg.errors import InputError
from emseg.files import write_text
from pipelines.stage import RESULTS, benchmark_records, current_settings, run_stage

_TEMPLATE = """# {title}

Made by `make benchmark DATA={data} PROFILE={profile}`, then `make report DATA={data} PROFILE={profile}`.

{board}
## How it was run

| | |
|---|---|
| protocol | {protocol}: trained on sections {training}, checkpoint chosen on {validation}, tested on {test} |
| threshold | 0.5 |
| folds, seeds | {folds}, {seeds} |
| machine | {machine} |
| torch | {torch}, {threads} threads |

| model | epochs | best epoch | training | network | commit |
|---|---|---|---|---|---|
{runs}

Training took {total:.1f} minutes in all.

## Learning curves

![training loss and validation pixel error]({name}-curves.png)

![mean and interval per model]({name}-comparison.png)
"""


def write_report(workspace: Path, reports: Path, data: str, profile: str) -> Path:
    """Compose the report of the benchmark in `workspace`.

    Raises:
        InputError: the benchmark has not been run to its end.
    """
    if not (workspace / RESULTS / "leaderboard.md").is_file():
        raise InputError(f"{workspace} holds no results; run `make benchmark DATA={data} PROFILE={profile}` first")
    here = Path.cwd()
    os.chdir(workspace)
    try:
        settings = current_settings()
        records = [(record.name, record.read()) for record in benchmark_records(settings)]
    finally:
        os.chdir(here)
    name = f"{data}-{profile}"
    minutes = {run: _minutes(facts["created"], facts["finished"]) for run, facts in records}
    facts = records[0][1]
    lineage = facts["lineage"]
    rows = [
        f"| {run} | {f['epochs']} | {f['best_epoch']} | {minutes[run]:.1f} min | "
        f"{', '.join(f'{key} {value}' for key, value in f['settings']['network'].items())} | {_commit(f)} |"
        for run, f in records
    ]
    text = _TEMPLATE.format(
        title=f"{data}, profile {profile}",
        data=data,
        profile=profile,
        name=name,
        board=(workspace / RESULTS / "leaderboard.md").read_text(encoding="utf-8"),
        protocol=facts["protocol"],
        training=_span(facts["split"]["training"]),
        validation=_span(facts["split"]["validation"]),
        test=_span(facts["split"]["test"]),
        folds=settings.protocol.folds,
        seeds=settings.seeds,
        machine=lineage["device"],
        torch=lineage["packages"]["torch"],
        threads=lineage["threads"],
        runs="\n".join(rows),
        total=sum(minutes.values()),
    )
    write_text(reports / f"{name}.md", text)
    for plot in ("curves", "comparison"):
        shutil.copy(workspace / RESULTS / f"{plot}.png", reports / f"{name}-{plot}.png")
    shutil.copy(workspace / RESULTS / "leaderboard.csv", reports / f"{name}.csv")
    return reports / f"{name}.md"


def _commit(facts: dict[str, Any]) -> str:
    lineage = facts["lineage"]
    return str(lineage["git_commit"])[:10] + (" and uncommitted changes" if lineage["git_dirty"] else "")


def _minutes(start: str, end: str) -> float:
    return (datetime.fromisoformat(end) - datetime.fromisoformat(start)).total_seconds() / 60


def _span(sections: list[int]) -> str:
    return f"{sections[0]}-{sections[-1]}" if sections else "none"


def main() -> None:
    """Write the report of the benchmark named on the command line."""
    parser = argparse.ArgumentParser()
    parser.add_argument("data")
    parser.add_argument("profile")
    arguments = parser.parse_args()
    name = f"{arguments.data}-{arguments.profile}"
    workspace = Path() if arguments.profile == "default" else Path("workspaces") / name
    print(write_report(workspace, Path("reports"), arguments.data, arguments.profile))


if __name__ == "__main__":
    run_stage(main)
