"""A wheel in an empty environment, and a lab's own project under git: what a lab and its colleague see."""

import json
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest
import yaml
from lab import TINY, Lab

from emseg.data.io.stack import read_stack, write_stack

PROJECT = Path(__file__).parents[2]
ODD_NAME = "lab #2, (ä) [x] & 'y'"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    pytest.importorskip("setuptools", minversion="77")
    source = tmp_path_factory.mktemp("source")
    for name in ("emseg", "pipelines"):
        shutil.copytree(PROJECT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "setup.py", "MANIFEST.in", "README.md", "LICENSE"):
        shutil.copy(PROJECT / name, source)
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--quiet", "--wheel-dir"]
    subprocess.run([*command, str(source / "dist"), str(source)], check=True, capture_output=True)
    (file,) = (source / "dist").glob("*.whl")
    return file


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    """An environment whose only emseg is the wheel; what it needs comes from the environment of the tests."""
    folder = tmp_path_factory.mktemp("environment") / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    with zipfile.ZipFile(wheel) as content:
        (packages,) = folder.glob("lib/python*/site-packages")
        content.extractall(packages)
    script = folder / "bin" / "emseg"
    script.write_text(f"#!{folder}/bin/python\nfrom emseg.cli import main\nmain()\n")
    script.chmod(0o755)
    # As packages to look at last: a .pth file would bring an editable emseg along.
    (packages / "others.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")
    dvc = folder / "bin" / "dvc"
    dvc.write_text(f"#!{folder}/bin/python\nfrom dvc.cli import main\nraise SystemExit(main())\n")
    dvc.chmod(0o755)
    return folder / "bin"


@pytest.fixture(scope="module")
def lab(installed, tmp_path_factory, stack):
    """A project that was begun in an empty repository of an odd name, run and committed."""
    folder = tmp_path_factory.mktemp("lab") / ODD_NAME
    folder.mkdir()
    lab = Lab(folder, path=[installed], packages=[])
    lab.begin_repository()
    lab.run("emseg", "init", "--data", "cortex")
    write_stack(folder.parent / "cortex/images.tif", stack[0])
    write_stack(folder.parent / "cortex/labels.tif", stack[1])
    lab.run("emseg", "data", "add", "cortex", "--from", folder.parent / "cortex")
    lab.change(**TINY | {"benchmark": ["two_layers"], "promotion": {"minimum_sections": 2}})
    lab.change(code="networks.py", models={"two_layers": {"network": {"base_channels": 8}, "loss": "bce"}})
    lab.change(training={"epochs": 8, "images_per_epoch": 64, "learning_rate": 0.05})
    lab.run("git", "remote", "add", "origin", "https://lab:sesame@example.org/lab/project.git")
    lab.run("dvc", "remote", "add", "--default", "shared", folder.parent / "shared")
    lab.commit("start")
    lab.run("dvc", "repro")
    lab.waiting = lab.run("git", "status", "--porcelain", "--untracked-files=all")
    lab.commit("results")
    lab.run("dvc", "push")
    return lab


def test_the_wheel_holds_emseg_alone_and_what_a_project_begins_with(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.partition("/")[0] for name in names} == {"emseg", "emseg-0.1.0.dist-info"}
    begun_with = {path.name for path in (PROJECT / "pipelines").iterdir()}
    assert {Path(name).name for name in names if "/templates/" in name} == begun_with


def test_the_pipeline_of_a_project_runs_once(lab):
    assert "up to date" in lab.run("dvc", "repro")
    assert not lab.run("git", "status", "--porcelain").strip()
    assert lab.waiting.split() == ["??", "dvc.lock"]
    assert sorted(path.name for path in lab.folder.parent.iterdir()) == ["cortex", ODD_NAME, "shared"]
    assert "two_layers" in (lab.folder / "results/leaderboard.csv").read_text()
    lineage = lab.record("two_layers-fold0-seed0")["lineage"]
    assert lineage["git_commit"] == lab.run("git", "rev-parse", "HEAD~1").strip()
    assert lineage["git_dirty"] is False
    assert lineage["code_in_project"] is False
    assert lineage["emseg"] == yaml.safe_load((lab.folder / "code.yaml").read_text())["emseg"]
    assert lineage["git_remote"] == "https://example.org/lab/project.git"
    assert lineage["dvc_remote"].endswith("shared")
    assert lineage["networks_file"] == "networks.py"
    assert lineage["networks_sha256"] == lab.record("two_layers-fold0-seed0")["networks_sha256"]


def stale(lab):
    printed = lab.run("dvc", "status", "--json")
    return {stage.partition(":")[-1] or stage for stage in json.loads(printed.strip().splitlines()[-1])}


def test_a_changed_network_of_the_project_is_trained_again_and_needed_to_predict(lab):
    file = lab.folder / "networks.py"
    before = file.read_bytes()
    file.write_bytes(before + b"# a comment\n")
    assert stale(lab) == {"recipes"}
    lab.run("dvc", "repro", "recipes")
    assert stale(lab) == {"train@two_layers-0-0"}
    file.write_bytes(before)
    lab.run("dvc", "repro", "recipes")
    assert stale(lab) == set()
    # Without the file, who predicts is told what is missing.
    lab.change(code=None)
    cortex = lab.folder.parent / "cortex/images.tif"
    predict = ("emseg", "predict", cortex, "out.tif", "--model", "runs/benchmark/two_layers-fold0-seed0")
    assert "the network two_layers comes from a file" in lab.run(*predict, code=2)
    lab.run("git", "checkout", "--quiet", "params.yaml")
    lab.run(*predict)
    (lab.folder / "out.tif").unlink()


def test_another_emseg_is_refused_until_it_is_noted(lab):
    code = lab.folder / "code.yaml"
    before = code.read_text()
    values = yaml.safe_load(before)
    code.write_text(before.replace(values["evaluate"], "0" * 32).replace(values["emseg"], "0.0.9"))
    assert {stage.partition("@")[0] for stage in stale(lab)} == {"evaluate"}
    said = lab.run("emseg", "stage", "recipes", code=2)
    assert said.count("\n") == 1
    assert "code.yaml notes emseg 0.0.9" in said
    said = lab.run("emseg", "init")
    assert "evaluate" in said
    assert "train" not in said
    assert code.read_text() == before
    assert not lab.run("git", "status", "--porcelain").strip()


def test_a_champion_segments_and_can_be_made_again_by_who_has_the_repository(lab, tmp_path):
    versions = lab.json("emseg", "registry", "--json")[0]["versions"]
    lab.run("emseg", "promote", str(versions[0]["version"]))
    lab.run("emseg", "predict", lab.folder.parent / "cortex/images.tif", tmp_path / "cells.tif", "--kind", "cells")
    assert read_stack(tmp_path / "cells.tif").shape == (9, 64, 64)
    found = lab.json("emseg", "lineage", "--json")
    commands = found["commands"]
    assert commands[:3] == ["git clone https://example.org/lab/project.git again", "cd again", commands[2]]
    assert commands[2] == f"git checkout {found['commit']}"
    assert f"pip install emseg=={lab.record('two_layers-fold0-seed0')['lineage']['emseg']} 'emseg[all]'" in commands
    there = Lab(tmp_path, path=[Path(lab.environment["PATH"].partition(":")[0])], packages=[])
    skipped = ("python -m venv .venv", "source .venv/bin/activate")
    script = "set -e\n" + "\n".join(
        line.replace("https://example.org/lab/project.git", '"$ORIGIN"')
        for line in commands
        if line not in skipped and not line.startswith("pip install")
    )
    there.environment["ORIGIN"] = str(lab.folder)
    printed = there.run("bash", "-c", script)
    hashes = [line.split()[0] for line in printed.splitlines() if line.endswith("training/weights.safetensors")]
    assert hashes == [found["weights_sha256"]]
    assert any(line.startswith("dvc pull data/prepared data/augmented") for line in commands)


def test_a_colleague_pulls_the_same_scores_and_has_nothing_to_do(lab, tmp_path):
    subprocess.run(["git", "clone", "--quiet", lab.folder, tmp_path / "colleague"], check=True)
    colleague = Lab(tmp_path / "colleague", path=[Path(lab.environment["PATH"].partition(":")[0])], packages=[])
    colleague.run("dvc", "pull")
    for file in ("results/leaderboard.csv", "runs/benchmark/two_layers-fold0-seed0/evaluation/scores.csv"):
        assert (colleague.folder / file).read_bytes() == (lab.folder / file).read_bytes()
    assert "up to date" in colleague.run("dvc", "repro", "--allow-missing")
    # What was pulled is enough to score a run again.
    before = colleague.json("emseg", "evaluate", "runs/benchmark/two_layers-fold0-seed0", "--json")
    metrics = json.loads((lab.folder / "runs/benchmark/two_layers-fold0-seed0/metrics.json").read_text())
    assert before == metrics
