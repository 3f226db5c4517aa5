"""Versions of a project's sections: git says which, DVC keeps them."""

import json
import shutil

import pytest
from dvc.repo import Repo
from lab import TINY, Lab

from emseg.data.io.stack import read_stack, write_stack
from emseg.project.initialise import initialise
from emseg.project.stages import run_stage


@pytest.fixture
def lab(tmp_path, source_folder, monkeypatch):
    """A project in a folder of a repository, whose first commit has no data yet, and whose second has."""
    lab = Lab(tmp_path)
    lab.begin_repository()
    lab.folder = tmp_path / "project"
    lab.folder.mkdir()
    monkeypatch.chdir(lab.folder)
    initialise(lab.folder)
    lab.change(**TINY | {"data": {"source": "cortex"}})
    lab.commit("begin")
    shutil.copytree(source_folder, lab.folder / "data/sources/cortex")
    prepare(lab, "sections")
    return lab


def prepare(lab, message):
    """As `dvc repro prepare` and a commit, without their processes."""
    run_stage("prepare")
    with Repo() as repository:
        repository.commit("prepare", force=True)
    lab.commit(message)


def test_versions_of_a_project(lab, emseg, source):
    assert emseg("data", "diff")[1].startswith("No difference: HEAD and source cortex as it is now")
    labels = read_stack(lab.folder / "data/sources/cortex/labels.tif")
    labels[2, :, 30:33] = 0
    changed = int((labels[2] != 255 * source.labels[2]).sum())
    write_stack(lab.folder / "data/sources/cortex/labels.tif", labels)
    found = json.loads(emseg("data", "diff", "--json")[1])
    assert [(each["after"]["number"], each["pixels"]) for each in found["changed"]] == [(2, changed)]
    prepare(lab, "a membrane")
    lab.run("git", "tag", "v2")
    assert json.loads(emseg("data", "diff", "HEAD~1", "v2", "--json")[1])["changed"] == found["changed"]
    assert emseg("data", "diff", "v2", "data/prepared")[1].startswith("No difference:")

    def refusal(*arguments):
        code, out, err = emseg("data", "diff", *arguments)
        assert (code, out, err.count("\n")) == (2, "", 1)
        return err

    assert "HEAD~2 has no data/prepared" in refusal("HEAD~2", "v2")
    assert "v3 is neither a folder nor a revision" in refusal("v3")
    shutil.rmtree(lab.folder / ".dvc/cache")
    assert "data/prepared of HEAD~1 is neither in DVC's cache nor on a remote" in refusal("HEAD~1", "v2")
