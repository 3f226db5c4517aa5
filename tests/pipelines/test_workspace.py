"""Workspaces of projects with odd names, and of projects that were moved or copied."""

import shutil
import subprocess
from pathlib import Path

import pytest

from emseg.errors import InputError
from emseg.settings import load_settings
from pipelines.workspace import make_workspace

PROJECT = Path(__file__).parents[2]
LINKS = ("emseg", "pipelines", "data/sources")


@pytest.fixture(params=["plain", "lab #2, (a)?b", "ÄÖ $x & 'y'"])
def project(request, tmp_path):
    folder = tmp_path / request.param
    for name in (*LINKS, ".dvc/cache"):
        (folder / name).mkdir(parents=True)
    for name in ("params.yaml", "profiles.yaml", "dvc.yaml", ".dvcignore"):
        shutil.copy(PROJECT / name, folder / name)
    return folder


def belongs_to(project, workspace):
    dvc = pytest.importorskip("dvc.repo")
    for name in LINKS:
        assert (workspace / name).resolve() == (project / name).resolve()
    assert Path(dvc.Repo(workspace).cache.local_cache_dir) == project / ".dvc" / "cache"
    assert load_settings(workspace / "params.yaml").data.source == "isbi2012"
    return True


def test_a_workspace_has_the_code_data_and_cache_of_its_project(project):
    workspace = make_workspace(project, "isbi2012", "quick")
    assert workspace == project / "workspaces" / "isbi2012-quick"
    assert belongs_to(project, workspace)
    assert list(project.parent.iterdir()) == [project]
    for move in (shutil.copytree, shutil.move):
        other = project.with_name(f"{project.name} {move.__name__}")
        move(project, other, **({"symlinks": True} if move is shutil.copytree else {}))
        assert belongs_to(other, other / "workspaces" / "isbi2012-quick")


def test_links_that_lead_elsewhere_are_renewed_and_copies_are_refused(project):
    workspace = make_workspace(project, "isbi2012", "quick")
    for name in LINKS:
        (workspace / name).unlink()
        (workspace / name).symlink_to(PROJECT / name)
    make_workspace(project, "isbi2012", "quick")
    assert belongs_to(project, workspace)
    (workspace / "emseg").unlink()
    (workspace / "emseg").mkdir()
    with pytest.raises(InputError, match="is no link into the project but a copy"):
        make_workspace(project, "isbi2012", "quick")


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
