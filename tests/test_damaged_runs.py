"""Run folders in which something was changed, cut or lost: each is one sentence, and damages only itself."""

import json
import shutil
import zlib

import pytest
import torch
from damage import damaged_bytes, damaged_values
from evaluated import write_values

from emseg.errors import InputError, RunError
from emseg.evaluation.evaluate import calibrate_and_evaluate
from emseg.records.bundle import pack_run, unpack_run
from emseg.records.evaluation import read_fitting
from emseg.records.record import RunRecord
from emseg.registry.package import segmenter_of_run
from emseg.settings import Settings, merge
from emseg.training.plan import RunPlan
from emseg.training.recorder import Recorder
from emseg.training.run import train_model

FILES = (
    "training/record.json",
    "training/history.csv",
    "training/weights.safetensors",
    "evaluation/metrics.json",
    "evaluation/scores.csv",
    "evaluation/baselines.csv",
    "cells.json",
)
WITH_CHECKSUM = ("training/record.json", "evaluation/metrics.json", "cells.json")
READERS = {
    "training/record.json": {"board", "model"},
    "training/history.csv": set(),
    "training/weights.safetensors": {"model"},
    "cells.json": {"board", "model"},
}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """An evaluated run with cells by agglomeration, made once."""
    from conftest import PROJECT, TINY

    from emseg.data.io.stack import write_stack
    from emseg.data.sources import read_source
    from emseg.data.synthetic import make_synthetic
    from emseg.settings import read_yaml

    folder = tmp_path_factory.mktemp("made")
    for name, stack in zip(("images", "labels"), make_synthetic(sections=9, side=64, seed=3), strict=True):
        write_stack(folder / "cortex" / f"{name}.tif", stack)
    values = read_yaml(PROJECT / "params.yaml")
    merge(values, TINY)
    merge(values, {"training": {"augmentation": "fresh", "cells": "agglomeration"}})
    settings, source = Settings.model_validate(values), read_source(folder / "cortex", "cortex")
    record = train_model(RunPlan("residual_unet", 0, 0, settings, source), folder / "run" / "training")
    calibrate_and_evaluate(record, source)
    assert all((folder / "run" / file).is_file() for file in FILES)
    return folder / "run"


@pytest.fixture
def run(made, tmp_path):
    shutil.copytree(made, tmp_path / "runs" / "damaged")
    shutil.copytree(made, tmp_path / "runs" / "sound")
    return tmp_path / "runs" / "damaged"


def outcomes(run):
    """What those who use a run make of it: a sentence, or None where they find nothing wrong."""
    users = {
        "board": lambda: read_fitting(run / "evaluation"),
        "history": lambda: RunRecord.open(run).history(),
        "model": lambda: segmenter_of_run(run),
    }
    found = {}
    for name, use in users.items():
        try:
            use()
            found[name] = None
        except (InputError, RunError) as error:
            found[name] = str(error)
            assert "\n" not in found[name]
    return found


def test_an_undamaged_run_has_nothing_wrong(run):
    assert set(outcomes(run).values()) == {None}


@pytest.mark.parametrize("file", FILES)
def test_a_file_that_was_changed_or_cut_is_told_by_all_who_read_it(run, file):
    whole = (run / file).read_bytes()
    readers = READERS.get(file, {"board"})
    for name, content in damaged_bytes(whole, seed=zlib.crc32(file.encode()), count=18):
        (run / file).write_bytes(content)
        told = outcomes(run)
        same = json_equal(content, whole) if file.endswith(".json") else content == whole
        for reader in readers:
            assert same or told[reader], (file, name, reader)
    (run / file).unlink()
    assert all(outcomes(run)[reader] for reader in readers - ({"board"} if file == "cells.json" else set())), file


def json_equal(content, whole):
    try:
        return json.loads(content) == json.loads(whole)
    except ValueError:
        return False


@pytest.mark.parametrize("file", WITH_CHECKSUM)
def test_odd_values_under_a_right_checksum_are_no_traceback(run, file):
    values = json.loads((run / file).read_text())
    for _, odd in damaged_values(values, seed=len(file), count=60):
        if isinstance(odd, dict):
            write_values(run / file, odd)
            outcomes(run)


def test_odd_rules_for_cells_are_no_traceback(run):
    cells = json.loads((run / "cells.json").read_text())
    refused = 0
    for _, odd in damaged_values(cells["agglomeration"], seed=5, count=60):
        write_values(run / "cells.json", cells | {"agglomeration": odd})
        refused += outcomes(run)["model"] is not None
    # Another finite number is a rule like any other.
    assert refused > 40


@pytest.mark.parametrize("file", FILES)
def test_the_board_names_the_damaged_run_and_ranks_the_others(run, file, emseg, monkeypatch):
    monkeypatch.chdir(run.parents[1])
    (run / file).write_bytes((run / file).read_bytes()[:-20])
    code, out, err = emseg("leaderboard", "--json")
    touched = file not in ("training/history.csv", "training/weights.safetensors")
    assert code == (1 if touched else 0)
    assert ("passed by" in err and "damaged" in err) == touched
    assert "residual_unet" in out


@pytest.mark.parametrize("file", ["training/record.json", "training/weights.safetensors", "evaluation/metrics.json"])
def test_commands_end_with_a_sentence_and_leave_nothing(run, file, emseg, monkeypatch):
    monkeypatch.chdir(run.parents[1])
    whole = (run / file).read_bytes()
    before = sorted(run.parents[1].rglob("*"))
    for name, content in damaged_bytes(whole, seed=7, count=6):
        (run / file).write_bytes(content)
        for command in (["predict", "nothing.tif", "out.tif", "--model", run], ["evaluate", run]):
            code, _, err = emseg(*command)
            assert code == 2, (name, command)
            assert err.count("\n") == 1
            assert sorted(run.parents[1].rglob("*")) == before


def test_a_damaged_bundle_is_no_traceback_and_leaves_nothing(made, tmp_path):
    pack_run(RunRecord.open(made), tmp_path / "run.zip")
    whole = (tmp_path / "run.zip").read_bytes()
    for name, content in damaged_bytes(whole, seed=11, count=60):
        (tmp_path / "odd.zip").write_bytes(content)
        try:
            record = unpack_run(tmp_path / "odd.zip", tmp_path / "runs")
        except InputError:
            assert not (tmp_path / "runs").exists() or not list((tmp_path / "runs").iterdir()), name
        else:
            assert record.read() == RunRecord.open(made).read()
            shutil.rmtree(tmp_path / "runs")


def test_a_damaged_checkpoint_never_changes_the_weights(made, tmp_path):
    record = Recorder(tmp_path / "run")
    shutil.copytree(made / "training", record.folder)
    run = record.read()
    record.update(status="running", finished=None)
    state = {"epoch": 1, "state": {"epoch": 1}, "network": {"weight": torch.arange(2000.0)}, "average": None}
    file = record.folder / "checkpoint.pt"
    record.save_checkpoint(state)
    whole = file.read_bytes()
    for name, content in damaged_bytes(whole, seed=13, count=80):
        file.write_bytes(content)
        found = record.load_checkpoint()
        assert found is None or torch.equal(found["network"]["weight"], state["network"]["weight"]), name
    assert record.read().id == run.id
