"""The real commands in a clone of the project, small: what a lab would see."""

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
import yaml

from emseg.settings import merge, read_yaml

PROJECT = Path(__file__).parents[2]
TINY = {
    "protocol": {"held_out": 2, "validation": 2},
    "augment": {"count": 8, "separation_limit": 24.0},
    "training": {"epochs": 2, "images_per_epoch": 8, "crop": 32},
    "benchmark": ["weighted_unet", "unet2"],
    "models": {
        "weighted_unet": {"network": {"base_channels": 2, "depth": 2}},
        "unet2": {"network": {"base_channels": 2, "depth": 2}},
    },
}


class Clone:
    def __init__(self, folder):
        self.folder = folder
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        self.environment = os.environ | {"PATH": path, "DVC_NO_ANALYTICS": "1", "OMP_NUM_THREADS": "1"}
        self.environment.pop("MLFLOW_TRACKING_URI", None)

    def run(self, *command, code=0, where="."):
        done = subprocess.run(
            [str(part) for part in command],
            cwd=self.folder / where,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=600,
        )
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout + done.stderr

    def json(self, *command):
        """What a command prints for a script to read."""
        done = subprocess.run(command, cwd=self.folder, env=self.environment, capture_output=True, timeout=600)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def change(self, **changes):
        values = read_yaml(self.folder / "params.yaml")
        merge(values, changes)
        (self.folder / "params.yaml").write_text(yaml.dump(values, sort_keys=False))

    def md5(self, path):
        lock = yaml.safe_load((self.folder / "dvc.lock").read_text())
        return next(
            out["md5"] for stage in lock["stages"].values() for out in stage.get("outs", []) if out["path"] == path
        )

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
    from emseg.data.stack import write_stack

    write_stack(folder / "data/sources/cortex/images.tif", stack[0])
    write_stack(folder / "data/sources/cortex/labels.tif", stack[1])
    clone = Clone(folder)
    clone.change(data={"source": "cortex"}, **TINY)
    clone.run("git", "init", "--quiet")
    clone.run("git", "config", "user.email", "test@example.org")
    clone.run("git", "config", "user.name", "test")
    clone.run("git", "add", "--all")
    clone.run("git", "commit", "--quiet", "--message", "start")
    clone.first = clone.run("dvc", "repro")
    clone.run("git", "add", "--all")
    clone.run("git", "commit", "--quiet", "--message", "results")
    return clone


def test_models_are_trained_scored_tracked_and_ranked(clone):
    board = (clone.folder / "results/leaderboard.csv").read_text()
    for row in ("weighted_unet", "unet2", "baseline: threshold", "baseline: all interior"):
        assert row in board
    assert sorted(clone.mlflow_runs()) == [
        ["unet2-fold0-seed0", "FINISHED"],
        ["weighted_unet-fold0-seed0", "FINISHED"],
    ]
    record = json.loads((clone.folder / "runs/benchmark/unet2-fold0-seed0/training/record.json").read_text())
    commit = clone.run("git", "rev-parse", "HEAD~1").strip()
    assert record["lineage"]["git_commit"] == commit
    assert record["lineage"]["git_dirty"] is False
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
    said = clone.run("dvc", "exp", "run", *(part for change in asked for part in ("--set-param", change)))
    for stage in ("augment", "train@unet2-0-0", "evaluate@unet2-0-0"):
        assert f"Running stage '{stage}'" not in said, said
    changed = [path.parts[-3] for path, text in before.items() if path.read_text() != text]
    assert changed == ["weighted_unet-fold0-seed0"]
    record = json.loads((runs / "weighted_unet-fold0-seed0/training/record.json").read_text())
    assert record["settings"]["weight_map"] == {"w0": 10.0, "sigma": 3.5, "calibrated": True}
    assert record["settings"]["training"]["learning_rate"] == 5e-05
    clone.run("git", "checkout", "--quiet", "params.yaml", "dvc.lock")
    clone.run("dvc", "checkout", "--force")


def test_another_augmentation_seed_redoes_it_and_the_old_set_comes_back(clone):
    before = clone.md5("data/augmented")
    images = clone.folder / "data/augmented/fold0/images.tif"
    old = images.read_bytes()
    clone.change(augment={"seed": 4})
    said = clone.run("dvc", "repro")
    for stage in ("augment", "train@unet2-0-0", "train@weighted_unet-0-0", "compare", "publish"):
        assert f"Running stage '{stage}'" in said
    assert clone.md5("data/augmented") != before
    assert images.read_bytes() != old
    clone.run("git", "checkout", "--quiet", "params.yaml", "dvc.lock")
    clone.run("dvc", "checkout", "data/augmented")
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


def test_another_profile_runs_aside_and_git_sees_no_change(clone):
    folder = clone.run("python", "-m", "pipelines.workspace", "cortex", "quick").strip()
    assert folder == "workspaces/cortex-quick"
    settings = yaml.safe_load((clone.folder / folder / "params.yaml").read_text())
    profile = read_yaml(PROJECT / "profiles.yaml")["quick"]
    assert settings["training"]["epochs"] == profile["training"]["epochs"]
    assert settings["data"]["source"] == "cortex"
    said = clone.run("dvc", "repro", "--single-item", "prepare", where=folder)
    assert "unet2: crops are 64 pixels, not 256: the sections have 64 x 64 pixels" in said
    values = read_yaml(clone.folder / folder / "params.yaml")
    merge(values, TINY)
    for model in values["models"].values():
        model["training"] = {}
    (clone.folder / folder / "params.yaml").write_text(yaml.dump(values))
    clone.run("dvc", "repro", "augment", where=folder)
    assert "didn't change" in clone.run("dvc", "repro", "augment", where=folder)
    assert not clone.run("git", "status", "--porcelain").strip()
    said = clone.run("python", "-m", "pipelines.workspace", "cortex", "fast", code=2)
    assert "no profile fast" in said


def test_bad_settings_stop_the_first_stage_with_one_sentence(clone):
    clone.change(training={"epoch": 3})
    said = clone.run("python", "-m", "pipelines.prepare", code=2)
    assert said.strip().endswith("training.epoch is not a setting")
    assert "Traceback" not in said


def test_the_makefile_runs_it(clone):
    done = subprocess.run(
        ["make", "--dry-run", "benchmark", "DATA=isbi2012", "PROFILE=paper"],
        cwd=PROJECT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert 'pipelines.workspace "isbi2012" "paper"' in done.stdout


def test_the_commands_of_lineage_make_the_champion_again_in_a_clean_clone(clone, tmp_path):
    clone.change(promotion={"minimum_sections": 2})
    versions = clone.json("emseg", "registry", "--json")[0]["versions"]
    number = next(version["version"] for version in versions if version["model"] == "unet2")
    clone.run("emseg", "promote", str(number))
    found = clone.json("emseg", "lineage", "models:/emseg-membrane@champion", "--json")
    assert found["version"] == number
    assert found["commit"] in clone.run("git", "rev-list", "--all").split()
    assert found["data"]["dvc"]
    again = Clone(tmp_path / "again")
    subprocess.run(["git", "clone", "--quiet", clone.folder, again.folder], check=True)
    # The environment is this one already; the data are the lab's own, and come from where it keeps them.
    script = "set -e\n" + "\n".join(
        line.partition("  #")[0].replace("--from FOLDER", f"--from {clone.folder / 'data/sources/cortex'}")
        for line in found["commands"]
        if line not in ("make environment", "source .venv/bin/activate")
    )
    printed = again.run("bash", "-c", script)
    hashes = [line.split()[0] for line in printed.splitlines() if line.endswith("training/weights.safetensors")]
    assert hashes == [found["weights_sha256"]]
