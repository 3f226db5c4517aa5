"""The real commands in a clone of this repository, small."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pandas as pd
import pytest
from lab import TINY, Lab

from emseg.project.initialise import render_pipeline
from emseg.records.code import DECIDES
from emseg.settings import read_yaml

PROJECT = Path(__file__).parents[2]


class Clone(Lab):
    def __init__(self, folder):
        # The clone's own code runs, as an editable installation of it would.
        super().__init__(folder, packages=[folder])

    def mlflow_runs(self):
        code = (
            "import json; from emseg.tracking.store import connect; c = connect();"
            "print(json.dumps([[r.info.run_name, r.info.status] for r in"
            " c.search_runs([e.experiment_id for e in c.search_experiments()])]))"
        )
        return json.loads(self.run(sys.executable, "-c", code).strip().splitlines()[-1])


@pytest.fixture(scope="module")
def clone(tmp_path_factory, stack):
    folder = tmp_path_factory.mktemp("clone")
    files = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=PROJECT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split("\n")
    for file in filter(None, files):
        if (PROJECT / file).is_file():
            (folder / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(PROJECT / file, folder / file)
    from emseg.data.io.stack import write_stack

    write_stack(folder / "data/sources/cortex/images.tif", stack[0])
    write_stack(folder / "data/sources/cortex/labels.tif", stack[1])
    clone = Clone(folder)
    clone.change(data={"source": "cortex"}, **TINY)
    clone.begin_repository()
    clone.commit("start")
    clone.run("dvc", "repro")
    clone.commit("results")
    return clone


def test_models_are_trained_scored_tracked_and_ranked(clone):
    board = (clone.folder / "results/leaderboard.csv").read_text()
    for row in ("weighted_unet", "unet2", "baseline: threshold", "baseline: all interior"):
        assert row in board
    assert sorted(clone.mlflow_runs()) == [
        ["unet2-fold0-seed0", "FINISHED"],
        ["weighted_unet-fold0-seed0", "FINISHED"],
    ]
    record = clone.record("unet2-fold0-seed0")
    commit = clone.run("git", "rev-parse", "HEAD~1").strip()
    assert record["lineage"]["git_commit"] == commit
    assert record["lineage"]["git_dirty"] is False
    assert record["lineage"]["code_in_project"] is True
    assert record["lineage"]["dvc"] == {
        "data/prepared": clone.md5("data/prepared"),
        "data/augmented": clone.md5("data/augmented"),
    }
    assert record["split"]["test"] == [7, 8]


def test_nothing_to_do_the_second_time(clone):
    assert "up to date" in clone.run("dvc", "repro")
    assert not clone.run("git", "status", "--porcelain").strip()


@pytest.fixture(autouse=True)
def _as_committed(clone):
    yield
    clone.run("git", "checkout", "--quiet", "params.yaml", "dvc.lock")


def test_metrics_plots_and_params_are_useful(clone):
    shown = clone.run("dvc", "metrics", "show", "--json")
    metrics = json.loads(shown[shown.index("{") :])[""]["data"]
    scores = metrics["runs/benchmark/unet2-fold0-seed0/metrics.json"]["data"]
    assert 0 < scores["dice"]["mean"] < 1
    assert scores["protocol"] == "heldout"
    shown = clone.run("dvc", "plots", "show", "--json")
    plots = json.loads(shown[shown.index("{") :])["data"]
    (curve,) = plots["validation pixel error"]
    points = curve["content"]["data"]["values"]
    assert {point["field"] for point in points} == set(TINY["benchmark"])
    history = pd.read_csv(clone.folder / "runs/benchmark/unet2-fold0-seed0/training/history.csv")
    drawn = [float(point["unet2"]) for point in points if point["field"] == "unet2"]
    assert drawn == pytest.approx(list(history["validation_pixel_error"]), abs=1e-6)
    clone.run("dvc", "plots", "show", "results/leaderboard.csv", "--out", "dvc_plots")
    assert (clone.folder / "dvc_plots/index.html").stat().st_size > 1000
    clone.change(augment={"seed": 4})
    assert "augment.seed" in clone.run("dvc", "params", "diff")


def test_an_experiment_runs_as_asked_and_trains_again_only_what_uses_it(clone):
    runs = clone.folder / "runs/benchmark"
    before = {path: path.read_text() for path in runs.glob("*/training/record.json")}
    asked = ["weight_map.sigma=3.5", "+models.weighted_unet.training.learning_rate=5e-05"]
    targets = ("train@weighted_unet-0-0", "evaluate@unet2-0-0")
    said = clone.run("dvc", "exp", "run", *(part for change in asked for part in ("--set-param", change)), *targets)
    assert "Running stage 'train@weighted_unet-0-0'" in said
    for stage in ("augment", "train@unet2-0-0", "evaluate@unet2-0-0"):
        assert f"Running stage '{stage}'" not in said, said
    changed = [path.parts[-3] for path, text in before.items() if path.read_text() != text]
    assert changed == ["weighted_unet-fold0-seed0"]
    record = clone.record("weighted_unet-fold0-seed0")
    assert record["settings"]["weight_map"] == {"w0": 10.0, "sigma": 3.5, "calibrated": True}
    assert record["settings"]["training"]["learning_rate"] == 5e-05
    clone.run("git", "checkout", "--quiet", "params.yaml", "dvc.lock")
    clone.run("dvc", "checkout", "--force")


def test_another_augmentation_seed_redoes_it_and_the_old_set_comes_back(clone):
    before = clone.md5("data/augmented")
    images = clone.folder / "data/augmented/fold0/images.tif"
    old = images.read_bytes()
    clone.change(augment={"seed": 4})
    said = clone.run("dvc", "repro", "train@unet2-0-0")
    for stage in ("augment", "train@unet2-0-0"):
        assert f"Running stage '{stage}'" in said
    stale = clone.run("dvc", "status")
    for stage in ("train@weighted_unet-0-0", "calibrate@unet2-0-0", "evaluate@unet2-0-0", "compare", "publish"):
        assert f"{stage}:" in stale
    assert clone.md5("data/augmented") != before
    assert images.read_bytes() != old
    clone.run("git", "checkout", "--quiet", "params.yaml", "dvc.lock")
    clone.run("dvc", "checkout", "--force")
    assert images.read_bytes() == old
    # Same seed, same bytes: making it again gives the same hash.
    clone.run("dvc", "repro", "--force", "--single-item", "augment")
    assert clone.md5("data/augmented") == before


def test_a_killed_pipeline_goes_on_from_the_checkpoint(clone):
    clone.change(training={"epochs": 40})
    record = clone.folder / "runs/benchmark/unet2-fold0-seed0/training/record.json"
    history = record.with_name("history.csv")
    process = subprocess.Popen(
        ["dvc", "repro", "train@unet2-0-0"],
        cwd=clone.folder,
        env=clone.environment,
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        # The record of the run before is gone for a moment before the new one stands there.
        with suppress(FileNotFoundError):
            if json.loads(record.read_text())["settings"]["training"]["epochs"] == 40 and history.is_file():
                break
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert json.loads(record.read_text())["status"] == "running"
    killed = json.loads(record.read_text())["id"]
    clone.run("dvc", "repro", "train@unet2-0-0")
    facts = json.loads(record.read_text())
    assert (facts["id"], facts["status"], facts["resumed"], facts["epochs"]) == (killed, "finished", 1, 40)
    clone.run("git", "checkout", "--quiet", "params.yaml", "dvc.lock")
    clone.run("dvc", "checkout", "--force")


STALE = {
    # The rooms of emseg, and the stages that a changed file of theirs makes stale.
    "data/io/tiff.py": "prepare",
    "data/sources.py": "prepare",
    "data/synthetic.py": "prepare",
    "data/warp.py": "prepare augment train",
    "data/separation.py": "prepare augment train",
    "data/protocol.py": "prepare augment train calibrate evaluate",
    "data/labelled_sections.py": "prepare train calibrate evaluate",
    "settings/settings.py": "recipes",
    "models/unet.py": "train",
    "training/trainer.py": "train",
    "metrics/challenge.py": "train calibrate evaluate",
    "inference/tiling.py": "train calibrate evaluate",
    "segmentation/agglomeration.py": "calibrate evaluate",
    "segmentation/regions.py": "calibrate evaluate",
    "evaluation/calibrate.py": "calibrate evaluate",
    "evaluation/baselines.py": "calibrate evaluate",
    "evaluation/evaluate.py": "evaluate",
    "reporting/evaluation_figures.py": "evaluate compare",
    "evaluation/bootstrap.py": "evaluate compare",
    "reporting/leaderboard.py": "compare",
    "project/stages/compare.py": "compare",
    "tracking/publish.py": "publish",
    "registry/register.py": "publish",
    "segmentation/volume.py": "",
    "tuning/study.py": "",
    "cli/runs.py": "",
    "records/bundle.py": "",
    "project/initialise.py": "",
    "files.py": "",
}

ASK = """
import json, sys
from pathlib import Path
from dvc.repo import Repo
found = {}
for name in json.loads(sys.argv[1]):
    file = Path("emseg") / name
    before = file.read_bytes()
    file.write_bytes(before + b"# a comment\\n")
    try:
        found[name] = sorted({stage.partition("@")[0] for stage in Repo(".").status()})
    finally:
        file.write_bytes(before)
print(json.dumps(found))
"""


def test_a_changed_file_of_emseg_makes_stale_what_it_decides(clone):
    printed = clone.run(sys.executable, "-c", ASK, json.dumps(list(STALE)))
    stale = json.loads(printed.strip().splitlines()[-1])
    assert stale == {name: sorted(stages.split()) for name, stages in STALE.items()}


def test_the_pipeline_of_this_repository_is_what_init_lays_down():
    laid_down = PROJECT / "pipelines"
    for name in ("params.yaml", "profiles.yaml"):
        assert (PROJECT / name).read_bytes() == (laid_down / name).read_bytes()
    template = (laid_down / "dvc.yaml").read_text()
    assert render_pipeline(template, in_repository=False) == template
    assert (PROJECT / "dvc.yaml").read_text() == render_pipeline(template, in_repository=True)
    assert "code.yaml" not in (PROJECT / "dvc.yaml").read_text()
    for stage in DECIDES:
        assert f"params: [code.yaml: [{stage}]" in template


def test_what_a_record_proves_unchanged_is_not_trained_again(clone):
    before = clone.record("unet2-fold0-seed0")
    lock = (clone.folder / "dvc.lock").read_bytes()
    (clone.folder / "dvc.lock").unlink()
    clone.run("dvc", "repro", "--force", "--single-item", "train@unet2-0-0")
    assert clone.record("unet2-fold0-seed0") == before
    (clone.folder / "dvc.lock").write_bytes(lock)


def test_other_data_and_another_profile_run_in_a_project_of_their_own(clone, tmp_path):
    (clone.folder / ".venv").mkdir()
    (clone.folder / ".venv/installed").touch()
    # The pipeline itself runs in other tests; here what it begins with.
    (tmp_path / "dvc").write_text(f'#!/bin/sh\nexec "{shutil.which("dvc")}" "$@" prepare recipes\n')
    (tmp_path / "dvc").chmod(0o755)
    make = Lab(clone.folder, path=[tmp_path, Path(sys.executable).parent], packages=[clone.folder])
    assert "no profile fast" in make.run("make", "benchmark", "DATA=cortex", "PROFILE=fast", code=2)
    assert not (clone.folder / "projects").exists()
    changes = "benchmark=[unet2] training.epochs=3 protocol.held_out=2 protocol.validation=2"
    said = make.run("make", "benchmark", "DATA=cortex", "PROFILE=quick", f"SET={changes}", code=2)
    assert "unet2: crops are 64 pixels, not 256: the sections have 64 x 64 pixels" in said
    assert "no evaluated runs" in said
    project = clone.folder / "projects/cortex-quick"
    settings = read_yaml(project / "params.yaml")
    assert settings["training"]["epochs"] == 3
    assert settings["training"]["crop"] == read_yaml(PROJECT / "profiles.yaml")["quick"]["training"]["crop"]
    prepared = json.loads((project / "data/prepared/prepared.json").read_text())
    assert prepared["digest"] == clone.record("unet2-fold0-seed0")["data_digest"]
    assert not [file for file in project.rglob("*") if file.is_symlink()]
    texts = [file.read_text() for file in (*project.glob("*.yaml"), project / ".dvc/config")]
    assert str(clone.folder) not in "".join(texts)
    assert not clone.run("git", "status", "--porcelain").strip()
    assert clone.run("dvc", "status").strip().endswith("up to date.")
    said = make.run("make", "benchmark", "DATA=cortex", "PROFILE=quick", "SET=training.epoch=1", code=2)
    assert "training.epoch is not a setting" in said
    make.run("make", "benchmark", "DATA=cortex", "PROFILE=quick", code=2)
    assert read_yaml(project / "params.yaml")["training"]["epochs"] == 12


def test_bad_settings_stop_the_first_stage_with_one_sentence(clone):
    clone.change(training={"epoch": 3})
    said = clone.run("emseg", "stage", "prepare", code=2)
    assert said.strip().endswith("training.epoch is not a setting")
    assert "Traceback" not in said


def test_the_commands_of_lineage_make_the_champion_again_in_a_clean_clone(clone, tmp_path):
    clone.change(promotion={"minimum_sections": 2})
    versions = clone.json("emseg", "registry", "--json")[0]["versions"]
    number = next(version["version"] for version in versions if version["model"] == "unet2")
    clone.run("emseg", "promote", str(number))
    found = clone.json("emseg", "lineage", "--json")
    assert found["version"] == number
    assert found["commit"] in clone.run("git", "rev-list", "--all").split()
    assert found["data"]["dvc"]
    subprocess.run(["git", "clone", "--quiet", clone.folder, tmp_path / "again"], check=True)
    again = Clone(tmp_path / "again")
    # The environment is this one already; the data are the lab's own, and come from where it keeps them.
    script = "set -e\n" + "\n".join(
        line.partition("  #")[0].replace("--from FOLDER", f"--from {clone.folder / 'data/sources/cortex'}")
        for line in found["commands"]
        if line not in ("make environment", "source .venv/bin/activate")
    )
    printed = again.run("bash", "-c", script)
    hashes = [line.split()[0] for line in printed.splitlines() if line.endswith("training/weights.safetensors")]
    assert hashes == [found["weights_sha256"]]
