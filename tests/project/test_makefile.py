"""The Makefile in an archive that was downloaded, and where its benchmarks run."""

import shutil
import subprocess
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[2]


def test_a_downloaded_archive_is_ready_for_dvc_without_git(tmp_path):
    dvc = pytest.importorskip("dvc.repo")
    project = tmp_path / "emseg main (1)"
    for name in ("Makefile", "pyproject.toml", "constraints.txt", ".dvc/config"):
        (project / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(PROJECT / name, project / name)
    (project / ".venv").mkdir()
    (project / ".venv/installed").touch()
    subprocess.run(["make", "environment"], cwd=project, check=True, capture_output=True)
    assert dvc.Repo(project).config["core"]["no_scm"]
    (project / ".dvc/config.local").unlink()
    subprocess.run(["git", "init", "--quiet"], cwd=project, check=True)
    subprocess.run(["make", "environment"], cwd=project, check=True, capture_output=True)
    assert not (project / ".dvc/config.local").exists()


def planned(*arguments):
    done = subprocess.run(["make", "--dry-run", *arguments], cwd=PROJECT, capture_output=True, text=True, check=True)
    return [line for line in done.stdout.splitlines() if "emseg" in line or "dvc repro" in line]


def test_without_options_a_benchmark_runs_here_and_else_in_a_project_of_its_own():
    assert planned("benchmark")[-2:] == ["dvc repro", "emseg leaderboard runs/benchmark"]
    commands = planned("benchmark", "DATA=isbi2012", "PROFILE=paper", "SET=training.epochs=1 augment.count=50")
    assert commands[-4:] == [
        'emseg init "projects/isbi2012-paper" --data "isbi2012" --profile "paper"',
        'cd "projects/isbi2012-paper" && emseg set training.epochs=1 augment.count=50',
        'cd "projects/isbi2012-paper" && emseg data add "isbi2012" ',
        'cd "projects/isbi2012-paper" && dvc repro && emseg leaderboard runs/benchmark',
    ]
    assert planned("benchmark", "SET=training.epochs=1")[-1].startswith('cd "projects/synthetic-default"')
    assert 'emseg report "projects/cortex-quick/runs/benchmark"' in planned("report", "DATA=cortex")[-1]
