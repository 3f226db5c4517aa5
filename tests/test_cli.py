import json
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pandas as pd
import pytest

from emseg.data.io.stack import read_stack, write_stack
from emseg.data.synthetic import make_synthetic
from emseg.records.record import RunRecord


@pytest.fixture
def project(tmp_path, store, tiny_params, source_folder):
    """A folder with params.yaml and the source `cortex` in place."""
    shutil.copytree(source_folder, tmp_path / "data" / "sources" / "cortex")
    tiny_params.write_text(tiny_params.read_text().replace("source: synthetic", "source: cortex"))
    return tmp_path


def test_help_is_the_manual_and_imports_nothing_heavy():
    code = (
        "import sys; from emseg.cli import app; from typer.testing import CliRunner;"
        "print(CliRunner().invoke(app, ['train', '--help']).output);"
        "print([m for m in ('torch', 'mlflow', 'pandas', 'scipy', 'skimage', 'matplotlib') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "emseg train unet2" in done.stdout
    assert done.stdout.strip().endswith("[]")


def test_train_evaluate_leaderboard_publish(project, emseg):
    code, out, _ = emseg("train", "unet2", "--set", "training.epochs=2")
    assert code == 0
    assert "emseg calibrate runs/single/unet2-fold0-seed0" in out
    code, out, _ = emseg("calibrate", "runs/single/unet2-fold0-seed0")
    assert code == 0
    assert "emseg evaluate runs/single/unet2-fold0-seed0" in out
    code, out, _ = emseg("evaluate", "runs/single/unet2-fold0-seed0", "--json")
    assert code == 0
    scores = json.loads(out)
    assert scores["protocol"] == "heldout"
    assert emseg("calibrate", "runs/single/unet2-fold0-seed0", "--cells", "agglomeration")[0] == 0
    code, out, _ = emseg("evaluate", "runs/single/unet2-fold0-seed0", "--json")
    assert code == 0
    assert json.loads(out)["v_rand_thresholded"] == scores["v_rand"]
    assert emseg("calibrate", "runs/single/unet2-fold0-seed0")[0] == 0
    assert json.loads(emseg("evaluate", "runs/single/unet2-fold0-seed0", "--json")[1]) == scores
    code, out, _ = emseg("leaderboard", "--csv", "board.csv", "--markdown", "board.md", "--json")
    assert code == 0
    rows = json.loads(out)
    row = rows[0]
    assert {"baseline: threshold", "baseline: all interior"} <= {entry["model"] for entry in rows}
    assert row["dice"] == pytest.approx(scores["dice"]["mean"], abs=1e-6)
    assert not [entry["model"] for entry in rows if entry["model"].startswith("reference")]
    assert "unet2" in (project / "board.csv").read_text()
    assert "| unet2 | heldout |" in (project / "board.md").read_text()
    first, again = (json.loads(emseg("publish", "--json")[1]) for _ in range(2))
    assert first == again
    assert list(first["versions"].values()) == [1]


def test_an_evaluation_says_what_its_numbers_mean(project, emseg):
    code, _, err = emseg("train", "unet2", "--set", "training.epochs=1")
    assert code == 0
    assert err.count("warping 12 images of 5 sections") == 1
    assert emseg("calibrate", "runs/single/unet2-fold0-seed0")[0] == 0
    code, out, _ = emseg("evaluate", "runs/single/unet2-fold0-seed0")
    assert code == 0
    metrics = json.loads((project / "runs/single/unet2-fold0-seed0/evaluation/metrics.json").read_text())
    assert f"at {metrics['threshold']:g} for V_rand and {metrics['v_info_threshold']:g} for V_info" in out
    assert "95 % bootstrap" in out
    higher, lower = out.split("Lower is better")
    lines = {line.split()[0]: line for line in out.splitlines() if line.startswith("  ")}
    assert lines.keys() == {name for name, value in metrics.items() if isinstance(value, dict) and "mean" in value}
    for name, line in lines.items():
        assert f"{metrics[name]['mean']:.4f} [{metrics[name]['low']:.4f}, {metrics[name]['high']:.4f}]" in line
        assert line.rstrip()[-1].isalpha()
        assert line in (lower if "error" in name or name.startswith("vi_") else higher)
    assert max(map(len, out.splitlines())) <= 80


@pytest.mark.parametrize(
    "arguments",
    [
        ["registry"],
        ["promote", "--dry-run"],
        ["lineage", "models:/cortex@champion"],
        ["predict", "data/sources/cortex/images.tif", "out.tif"],
        ["predict", "data/sources/cortex/images.tif", "out.tif", "--model", "0" * 32],
        ["serve"],
        ["leaderboard"],
    ],
    ids=" ".join,
)
def test_a_look_where_there_is_no_store_makes_none(project, emseg, monkeypatch, arguments):
    (project / "mlflow.db").unlink()
    (project / ".git").mkdir()
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    before = {path for path in project.rglob("*") if path.suffix != ".lock"}
    code, out, err = emseg(*arguments)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert (
        arguments == ["leaderboard"] or f"no {project / 'mlflow.db'}; `emseg train` and `emseg publish` make it" in err
    )
    assert {path for path in project.rglob("*") if path.suffix != ".lock"} == before


def test_from_run_to_champion_to_segmented_sections(project, emseg, stack):
    for seed in (0, 1):
        run = f"runs/single/residual_unet-fold0-seed{seed}"
        assert emseg("train", "residual_unet", "--seed", seed)[0] == 0
        assert emseg("calibrate", run)[0] == 0
        assert emseg("evaluate", run)[0] == 0
        record = RunRecord(project / run / "training")
        record.update(lineage=record.read().lineage.model_copy(update={"git_commit": "c" * 40, "git_dirty": False}))
    assert emseg("publish")[0] == 0
    text = (project / "params.yaml").read_text()
    (project / "params.yaml").write_text(text.replace("minimum_sections: 5", "minimum_sections: 2"))
    code, out, _ = emseg("promote", "1", "--dry-run")
    assert code == 0
    assert "yes  loads safely" in out
    assert "version 1 would become champion" in out
    assert emseg("predict", "data/sources/cortex/images.tif", "early.tif")[0] == 2
    assert emseg("promote", "1")[0] == 0
    code, out, _ = emseg("promote")
    assert code == 1
    assert "NO   better than the champion" in out
    (group,) = json.loads(emseg("registry", "--json")[1])
    assert {v["version"]: v["aliases"] for v in group["versions"]} == {1: ["champion"], 2: ["challenger"]}
    assert "champion" in emseg("registry")[1]
    code, out, _ = emseg("promote", "2", "--force", "to try it", "--json")
    assert code == 0
    assert json.loads(out)["reason"] == "to try it"
    code, out, _ = emseg("rollback")
    assert code == 0
    assert "version 1 is champion again" in out
    code, out, _ = emseg("predict", "data/sources/cortex/images.tif", "masks.tif", "--kind", "mask")
    assert code == 0
    assert "mask by models:/cortex/1" in out
    assert read_stack(project / "masks.tif").shape == stack[0].shape
    code, out, _ = emseg("lineage", "models:/cortex@champion")
    assert code == 0
    assert "emseg train residual_unet --fold 0 --seed 0" in out
    assert "git checkout " + "c" * 40 in out
    assert "uncommitted" not in out


def test_train_again_goes_on_or_keeps(project, emseg):
    assert emseg("train", "dmcn")[0] == 0
    record = (project / "runs/single/dmcn-fold0-seed0/training/record.json").read_text()
    assert emseg("train", "dmcn")[0] == 0
    assert (project / "runs/single/dmcn-fold0-seed0/training/record.json").read_text() == record


def test_leak_is_measured_and_reported(project, emseg):
    code, out, _ = emseg("leak", "unet2", "--seeds", "2", "--set", "training.epochs=1", "--set", "augment.count=24")
    assert code == 0
    assert out.strip() == "reports/leak-cortex-unet2.md"
    report = (project / "reports/leak-cortex-unet2.md").read_text()
    assert "`emseg leak unet2 --seeds 2" in report
    assert "seeds [0, 1]" in " ".join(report.split())
    table = pd.read_csv(project / "reports/leak-cortex-unet2.csv").set_index("metric")
    for protocol in ("paper", "heldout"):
        runs = [project / f"runs/leak/cortex/{protocol}/unet2-fold0-seed{seed}/evaluation" for seed in (0, 1)]
        means = [pd.read_csv(run / "scores.csv")["dice"].mean() for run in runs]
        if protocol == "heldout":
            # Under `paper` each seed divides the augmented images anew, so images, not runs, weigh equally.
            assert table.loc["dice", "heldout_mean"] == pytest.approx(np.mean(means), abs=1e-5)
    gap = table.loc["dice", "heldout_mean"] - table.loc["dice", "seen_mean"]
    assert table.loc["dice", "gap"] == pytest.approx(gap, abs=1e-5)
    assert table.loc["dice", "gap_low"] <= table.loc["dice", "gap"] <= table.loc["dice", "gap_high"]
    assert (project / "reports/leak-cortex-unet2.png").stat().st_size > 1000


@pytest.mark.parametrize("protocol", ["paper", "kfold", "leave_one_stack_out"])
def test_every_protocol_trains_and_is_named(project, emseg, protocol):
    fold = {"kfold": 2, "leave_one_stack_out": 1}.get(protocol, 0)
    if protocol == "leave_one_stack_out":
        more = make_synthetic(sections=3, side=64, seed=11)
        for part, name in zip(more, ("images", "labels"), strict=True):
            write_stack(project / f"more/{name}.tif", part)
        assert emseg("data", "add", "cortex", "--from", "more", "--append")[0] == 0
    settings = [f"protocol.name={protocol}", "protocol.blocks=3", "augment.count=24", "training.epochs=1"]
    changes = [part for setting in settings for part in ("--set", setting)]
    assert emseg("train", "dmcn", "--fold", fold, *changes)[0] == 0
    assert emseg("calibrate", f"runs/single/dmcn-fold{fold}-seed0")[0] == 0
    code, out, _ = emseg("evaluate", f"runs/single/dmcn-fold{fold}-seed0")
    assert code == 0
    assert f"protocol {protocol}" in out
    assert ("(leaks)" in out) == (protocol == "paper")


def test_data_check_reports_and_refuses(tmp_path, stack, emseg):
    write_stack(tmp_path / "good" / "images.tif", stack[0])
    write_stack(tmp_path / "good" / "labels.tif", stack[1])
    code, out, _ = emseg("data", "check", tmp_path / "good")
    assert code == 0
    for fact in ("9 sections of 64 x 64 pixels, uint8", "values 0, 255", "cell interior", "median", "contrast"):
        assert fact in out
    write_stack(tmp_path / "bad" / "images.tif", stack[0])
    write_stack(tmp_path / "bad" / "labels.tif", stack[1][::-1])
    code, out, err = emseg("data", "check", tmp_path / "bad", "--json")
    assert code == 2
    assert "label 0" in err
    assert "label 0" in json.loads(out)["problems"][0]


BAD = {
    "unknown model": (["train", "unet9"], "no model unet9"),
    "unknown key": (["train", "unet2", "--set", "training.epoch=1"], "training.epoch is not a setting"),
    "wrong type": (["train", "unet2", "--set", "training.epochs=soon"], "training.epochs"),
    "too few sections": (["train", "unet2", "--set", "protocol.held_out=9"], "too few"),
    "no such fold": (["train", "unet2", "--fold", "7", "--set", "protocol.name=kfold"], "fold 7 does not exist"),
    "no such fold under heldout": (["train", "unet2", "--fold", "3"], "fold 3 does not exist; protocol heldout has"),
    "negative fold": (["train", "unet2", "--fold", "-1"], "fold -1 does not exist"),
    "no fold of paper": (["train", "unet2", "--fold", "1", "--set", "protocol.name=paper"], "fold 1 does not exist"),
    "no steps": (["train", "unet2", "--maximum-steps", "0"], "--maximum-steps is at least 1, not 0"),
    "negative steps": (["train", "unet2", "--maximum-steps", "-1"], "--maximum-steps is at least 1"),
    "negative seed": (["train", "unet2", "--seed", "-1"], "--seed is a whole number from 0 to 4294967295"),
    "endless seed": (["train", "unet2", "--seed", "9" * 20], "--seed is a whole number"),
    "negative seed of a study": (["tune", "run", "--seed", "-1"], "--seed is a whole number"),
    "no study to take over": (["tune", "apply"], "there is no study cortex-unet2 here; begin it with `emseg tune run`"),
    "no study to report": (["tune", "report", "found", "--name", "mine"], "there is no study mine here"),
    "broken value": (["train", "unet2", "--set", "training.epochs=["], "'training.epochs=[' is not YAML"),
    "prediction of another padding": (
        ["train", "unet2", "--set", "training.prediction=average"],
        "models.unet2.training.prediction is average",
    ),
    "one pixel at the bottom": (
        ["train", "unet2", "--set", "models.unet2.network.depth=5"],
        "models.unet2.training.crop",
    ),
    "too few images to divide": (
        ["train", "unet2", "--set", "protocol.name=paper", "--set", "augment.count=2"],
        "augment.count must be at least 3, not 2",
    ),
    "another number of levels": (
        ["train", "unet2", "--set", "models.unet2.network.dropout=[0.1]"],
        "models.unet2: dropout needs one rate or 5",
    ),
    "too many weights": (
        ["train", "unet2", "--set", "models.unet2.network={base_channels: 512, depth: 8}"],
        "models.unet2.network has",
    ),
    "a depth of the space leaves one pixel": (
        ["tune", "run", "--set", "tuning.space.depth.high=5"],
        "models.unet2.training.crop: 32 x 32 pixels",
    ),
    "unknown source": (["train", "unet2", "--set", "data.source=nobody"], "no source named nobody"),
    "no settings": (["train", "unet2", "--settings", "none.yaml"], "none.yaml does not exist"),
    "no test labels": (["train", "unet2", "--set", "protocol.name=official"], "test-labels.tif"),
    "no record": (["evaluate", "nowhere"], "nowhere holds no run record"),
    "no runs": (["leaderboard"], "no evaluated runs"),
    "nothing to publish": (["publish"], "no run records"),
    "no version": (["promote", "9"], "nothing is registered yet in sqlite:"),
    "nothing to promote": (["promote"], "nothing is registered yet"),
    "no reason": (["promote", "1", "--force", " "], "--force needs a reason"),
    "no champion to go back to": (["rollback"], "nothing is registered yet"),
    "no task": (["registry", "nowhere"], "there is no task nowhere; nothing is registered yet"),
    "no reference": (["lineage", "models:/cortex"], "expected models:/TASK@champion or models:/TASK/NUMBER"),
    "no lineage": (["lineage", "models:/cortex@champion"], "nothing is registered yet"),
    "nothing to serve": (["serve"], "nothing is registered yet"),
    "no input": (["predict", "nothing.tif", "out.tif"], "nothing.tif does not exist"),
    "unknown kind": (["predict", "params.yaml", "out.tif", "--kind", "labels"], "--kind is one of"),
    "no champion": (["predict", "data/sources/cortex/images.tif", "out.tif"], "nothing is registered yet"),
    "no model": (["predict", "data/sources/cortex/images.tif", "out.tif", "--model", "nowhere"], "no model nowhere"),
    "no budget": (["train", "unet2", "--budget-minutes", "0"], "budget_minutes"),
    "no folder": (["data", "check", "nowhere"], "nowhere does not exist"),
    "no origin": (["data", "add", "mine"], "--from FOLDER"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_sentence_exit_code_2_and_nothing_written(project, emseg, case):
    arguments, message = BAD[case]

    def files():
        return sorted(path for path in project.rglob("*") if path.suffix != ".lock")

    before = files()
    code, out, err = emseg(*arguments)
    assert code == 2
    assert message in err
    assert err.count("\n") == 1
    assert not out
    assert files() == before


def test_unreachable_store_is_one_sentence(project, emseg, monkeypatch):
    assert emseg("train", "dmcn", "--set", "training.epochs=1")[0] == 0
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    code, _, err = emseg("publish")
    assert code == 1
    assert "cannot be reached" in err
    assert "Traceback" not in err


@pytest.mark.parametrize("stage", ["command", "pipeline"])
def test_ctrl_c_is_one_line_and_exit_code_130(project, stage):
    if stage == "command":
        command = ["-m", "emseg.cli", "train", "dmcn", "--set", "training.epochs=100000"]
        history = project / "runs/single/dmcn-fold0-seed0/training/history.csv"
    else:
        job = "{model: dmcn, data: cortex, protocol: heldout, set: {training: {epochs: 100000}}}"
        (project / "jobs.yaml").write_text(f"- {job}\n")
        command = ["-m", "emseg.cli", "jobs", "jobs.yaml", "--out", "out"]
        history = project / "out/runs/cortex-default-heldout/dmcn-fold0-seed0/training/history.csv"
    process = subprocess.Popen(
        [sys.executable, *command],
        cwd=project,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # As at a terminal: what a shell puts into the background ignores the signal, and hands that on.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    deadline = time.monotonic() + 120
    while not history.is_file() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=120)
    assert process.returncode == 130, said
    assert said.splitlines()[-1].endswith("stopped; the same command goes on where it can")
    assert "Traceback" not in said
    assert "KeyboardInterrupt" not in said


def test_evaluating_on_other_data_is_refused(project, emseg, stack):
    assert emseg("train", "dmcn", "--set", "training.epochs=1")[0] == 0
    images = stack[0].copy()
    images[0, 0, 0] ^= 1
    write_stack(project / "data/sources/cortex/images.tif", images)
    code, _, err = emseg("evaluate", "runs/single/dmcn-fold0-seed0")
    assert code == 2
    assert "digest" in err


def test_prediction_of_a_record_beats_the_majority(project, emseg):
    network = "models.unet2.network={base_channels: 8, depth: 2, dropout: 0.0, normalization: batch}"
    budget = ["--set", "training.epochs=6", "--set", "training.images_per_epoch=64"]
    assert emseg("train", "unet2", *budget, "--set", network)[0] == 0
    assert emseg("calibrate", "runs/single/unet2-fold0-seed0")[0] == 0
    code, out, _ = emseg("evaluate", "runs/single/unet2-fold0-seed0", "--json")
    assert code == 0
    scores = json.loads(out)
    assert not scores["collapsed"]
    from emseg.data.sources import load_source

    majority = np.mean(~load_source("cortex").labels[-2:])
    assert scores["pixel_error"]["mean"] < majority
