"""`emseg init`: what it writes, what it leaves, what it refuses before anything is written."""

import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from emseg.errors import InputError
from emseg.project.initialise import initialise
from emseg.project.stages import run_stage
from emseg.records import code
from emseg.settings import load_settings, merge, read_yaml

PROJECT = Path(__file__).parents[2]
WRITTEN = {
    "README.md",
    "params.yaml",
    "profiles.yaml",
    "dvc.yaml",
    ".gitignore",
    ".dvcignore",
    "networks.py",
    "code.yaml",
    "data/sources/synthetic/.gitkeep",
    ".dvc/config",
    ".dvc/.gitignore",
}


def files(folder):
    return {
        file.relative_to(folder).as_posix(): file.read_bytes()
        for file in folder.rglob("*")
        if file.is_file() and not file.is_relative_to(folder / ".git") and not file.is_relative_to(folder / ".dvc/tmp")
    }


def git(folder, *arguments):
    subprocess.run(["git", "-C", str(folder), *arguments], check=True, capture_output=True)


@pytest.mark.parametrize("name", ["plain", "lab #2, (ä)b", "[x] $y & 'z' %41"])
def test_a_project_is_what_dvc_takes_for_one(tmp_path, name):
    dvc = pytest.importorskip("dvc.repo")
    folder = tmp_path / name
    done = initialise(folder)
    assert set(done.written) == set(files(folder)) == WRITTEN
    repository = dvc.Repo(folder)
    assert repository.root_dir == str(folder)
    assert {stage.name.partition("@")[0] for stage in repository.index.stages} == set(code.DECIDES)
    assert load_settings(folder / "params.yaml").data.source == "synthetic"
    assert list(tmp_path.iterdir()) == [folder]


def test_dvc_uses_git_where_git_keeps_the_project(tmp_path):
    dvc = pytest.importorskip("dvc.repo")
    outside, root, below, ignored = (tmp_path / name for name in ("outside", "root", "root/a/b", "root/projects/x"))
    root.mkdir()
    git(root, "init", "--quiet")
    (root / ".gitignore").write_text("/projects/\n")
    for folder in (outside, root, below, ignored):
        initialise(folder)
    without = {folder for folder in (outside, root, below, ignored) if dvc.Repo(folder).config["core"].get("no_scm")}
    assert without == {outside, ignored}
    shown = subprocess.run(
        ["git", "status", "--porcelain", "--untracked-files=all", "a"], cwd=root, capture_output=True, text=True
    ).stdout
    assert {line[3:].removeprefix("a/b/") for line in shown.splitlines()} == WRITTEN


def test_a_profile_and_data_are_laid_over_the_settings_and_comments_stay(tmp_path):
    initialise(tmp_path, "cortex", "best")
    expected = read_yaml(PROJECT / "params.yaml")
    merge(expected, read_yaml(PROJECT / "profiles.yaml")["best"] | {"data": {"source": "cortex"}})
    text = (tmp_path / "params.yaml").read_text()
    assert yaml.safe_load(text) == expected

    def comments(text):
        return [line.partition("# ")[2] for line in text.splitlines() if "# " in line]

    assert comments(text) == comments((PROJECT / "params.yaml").read_text())


def test_nothing_is_overwritten_and_what_is_left_is_said(tmp_path):
    (tmp_path / ".gitignore").write_text("*.log\n")
    (tmp_path / "README.md").write_text("ours")
    first = initialise(tmp_path)
    assert sorted(first.kept) == [".gitignore", "README.md"]
    assert any("/mlflow.db*" in note for note in first.notes)
    assert (tmp_path / "README.md").read_text() == "ours"
    params = tmp_path / "params.yaml"
    params.write_text(params.read_text().replace("epochs: 8", "epochs: 9"))
    before = files(tmp_path)
    again = initialise(tmp_path, profile="quick")
    assert (again.written, again.stale) == ([], [])
    assert "params.yaml" in again.kept
    assert files(tmp_path) == before


@pytest.mark.parametrize(
    ("options", "prepare", "sentence"),
    [
        ({"profile": "fast"}, None, "no profile fast"),
        ({"data": "../cortex"}, None, "cannot name a source"),
        ({}, lambda folder: folder.write_text(""), "not a folder"),
        ({}, lambda folder: (folder / "params.yaml").mkdir(parents=True), "params.yaml is in the way"),
        ({}, lambda folder: (folder.mkdir(), (folder / "data").write_text("")), "data is in the way"),
        ({}, lambda folder: (folder.mkdir(), (folder / "dvc.yaml").symlink_to("none")), "leads nowhere"),
        ({}, lambda folder: (folder.mkdir(), (folder / "code.yaml").write_text("[")), "code.yaml is not YAML"),
    ],
)
def test_what_cannot_be_is_one_sentence_and_nothing_is_written(tmp_path, emseg, options, prepare, sentence):
    folder = tmp_path / "project"
    if prepare:
        prepare(folder)
    before = sorted(tmp_path.rglob("*"))
    code, out, err = emseg("init", folder, *(part for key, value in options.items() for part in (f"--{key}", value)))
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert sentence in err
    assert sorted(tmp_path.rglob("*")) == before


def test_a_name_that_a_database_cannot_have_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"takes no '\?'"):
        initialise(tmp_path / "what?")
    assert not list(tmp_path.iterdir())


def test_settings_are_changed_together_or_not_at_all(tmp_path, emseg, monkeypatch):
    initialise(tmp_path)
    monkeypatch.chdir(tmp_path)
    before = (tmp_path / "params.yaml").read_text()
    assert emseg("set", "training.epochs=3", "training.epoch=4")[0] == 2
    assert emseg("set", "training.epochs")[0] == 2
    assert (tmp_path / "params.yaml").read_text() == before
    assert emseg("set", "training.epochs=3", "models.unet2.network={depth: 5}", "seeds=[0, 1]") == (0, "", "")
    after = (tmp_path / "params.yaml").read_text()
    changed = [line for line in after.splitlines() if line not in before.splitlines()]
    assert [line.strip() for line in changed] == [
        "seeds: [0, 1]                  # every model is trained once per fold and seed",
        "epochs: 3",
        "network: {base_channels: 16, depth: 5, normalization: batch}",
    ]
    assert emseg("set", "training.epochs=3", "--settings", "nothing.yaml")[0] == 2


def test_a_changed_emseg_is_named_and_its_stages_are_stale(tmp_path, monkeypatch):
    package = tmp_path / "emseg"
    shutil.copytree(code.PACKAGE, package, ignore=shutil.ignore_patterns("__pycache__"))
    before = code.code_digests(package)
    assert before == code.code_digests()
    (package / "segmentation/regions.py").write_bytes(
        (package / "segmentation/regions.py").read_bytes().replace(b"\n", b"\r\n")
    )
    code._digest.cache_clear()
    assert code.code_digests(package) == before
    (package / "segmentation/regions.py").write_text("# other\n")
    code._digest.cache_clear()
    after = code.code_digests(package)
    assert {stage for stage in after if after[stage] != before[stage]} == {"calibrate", "evaluate"}
    project = tmp_path / "project"
    initialise(project)
    monkeypatch.chdir(project)
    run_stage("recipes")
    monkeypatch.setattr("emseg.project.code_file.code_digests", lambda: after)
    with pytest.raises(InputError, match="run `emseg init` to note it"):
        run_stage("recipes")
    assert initialise(project).stale == ["calibrate", "evaluate"]
    run_stage("recipes")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["trian"], "no stage trian"),
        (["train"], "give it --model, --fold and --seed"),
        (["compare", "--seed", "0"], "takes no --model"),
        (["train", "--model", "unet9", "--fold", "0", "--seed", "0"], "no model unet9"),
    ],
)
def test_a_stage_that_is_none(tmp_path, monkeypatch, emseg, arguments, sentence):
    initialise(tmp_path)
    monkeypatch.chdir(tmp_path)
    exit_code, out, err = emseg("stage", *arguments)
    assert (exit_code, out, err.count("\n")) == (2, "", 1)
    assert sentence in err


def test_the_emseg_of_another_checkout_is_refused(tmp_path, monkeypatch):
    shutil.copy(PROJECT / "params.yaml", tmp_path)
    (tmp_path / "emseg/records").mkdir(parents=True)
    (tmp_path / "emseg/records/code.py").touch()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="make environment"):
        run_stage("recipes")
