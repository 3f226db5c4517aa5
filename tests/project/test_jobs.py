"""Lists of trainings on a machine without MLflow, and the way back."""

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import yaml
from evaluated import run_facts

from emseg.errors import InputError
from emseg.inference.trained import load_network
from emseg.project.jobs import claim, job_settings, read_jobs
from emseg.records.bundle import pack_run, unpack_run
from emseg.records.record import RunRecord
from emseg.records.run import FINISHED
from emseg.reporting.imported import import_run
from emseg.reporting.leaderboard import find_evaluations, make_boards

JOB = {"model": "dmcn", "data": "cortex", "protocol": "heldout"}


@pytest.fixture
def project(tmp_path, tiny_params, source_folder, monkeypatch):
    """A folder with params.yaml, one profile and data, and the current one."""
    (tmp_path / "profiles.yaml").write_text("short:\n  training: {epochs: 2}\n")
    (tmp_path / "data" / "sources").mkdir(parents=True)
    source_folder.rename(tmp_path / "data" / "sources" / "cortex")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(project, *jobs) -> Path:
    path = project / "jobs.yaml"
    path.write_text(yaml.safe_dump([JOB | job for job in jobs]))
    return path


def run(*arguments, forbidden=("mlflow", "optuna", "dvc", "matplotlib")):
    code = "import sys\n"
    code += "".join(f"sys.modules[{name!r}] = None\n" for name in forbidden)
    code += "sys.argv = ['emseg', 'jobs', *sys.argv[1:]]\nimport torch; torch.set_num_threads(1)\n"
    code += "from emseg.cli import main\nmain()\n"
    return subprocess.run([sys.executable, "-c", code, *map(str, arguments)], capture_output=True, text=True)


def test_jobs_run_without_tracking_and_come_back_as_runs(project, store):
    jobs = write(project, {"profile": "short"}, {"profile": "short", "name": "wide", "set": {"seeds": [0]}})
    done = run(jobs, "--out", "out", "--pack")
    assert done.returncode == 0, done.stderr
    bundles = sorted((project / "out" / "packed").glob("*.zip"))
    assert [bundle.name for bundle in bundles] == [
        "cortex-short-heldout--dmcn-fold0-seed0.zip",
        "cortex-short-heldout-wide--dmcn-fold0-seed0.zip",
    ]
    from emseg.tracking.publish import publish_record

    first, second = [import_run(bundle) for bundle in bundles]
    assert (first.folder.parent / "evaluation" / "panels").is_dir()
    assert len(first.history()) == 2
    assert load_network(first)
    names = {store.get_run(publish_record(store, record)).info.run_name for record in (first, second)}
    assert names == {"dmcn-fold0-seed0-short", "dmcn-fold0-seed0-short-wide"}
    assert publish_record(store, first) == publish_record(store, import_run(bundles[0]))
    (board,) = make_boards(find_evaluations(project / "out" / "runs" / "cortex-short-heldout"))
    assert board.rows[0].model == "dmcn"


def test_started_again_it_keeps_what_is_finished(project):
    jobs = write(project, {"profile": "short"})
    assert run(jobs, "--out", "out").returncode == 0
    record = RunRecord(project / "out/runs/cortex-short-heldout/dmcn-fold0-seed0/training")
    before = record.read()
    assert run(jobs, "--out", "out").returncode == 0
    assert record.read() == before


def test_out_of_time_it_stops_after_an_epoch_and_goes_on_later(project):
    jobs = write(project, {"profile": "short"}, {"profile": "short", "seed": 1})
    stopped = run(jobs, "--out", "out", "--minutes", "0.0001")
    assert stopped.returncode == 0
    assert "out of time" in stopped.stderr
    done = run(jobs, "--out", "out")
    assert done.returncode == 0
    statuses = [
        RunRecord(path.parent).read().status for path in (project / "out").glob("runs/*/*/training/record.json")
    ]
    assert statuses == [FINISHED] * 2


def test_started_twice_at_once_the_processes_share_the_list(project):
    jobs = write(project, {"profile": "short"}, {"profile": "short", "seed": 1})
    runs = project / "out" / "runs" / "cortex-short-heldout"
    with claim(runs / "dmcn-fold0-seed0") as is_ours:
        assert is_ours
        done = run(jobs, "--out", "out")
        assert done.returncode == 0
        assert "seed0, left to the process that is at it" in done.stderr
        assert [path.parent.name for path in runs.glob("*/evaluation")] == ["dmcn-fold0-seed1"]
    assert run(jobs, "--out", "out").returncode == 0
    assert len(list(runs.glob("*/evaluation"))) == 2


@pytest.mark.parametrize(
    ("job", "sentence"),
    [
        ({"modle": "dmcn"}, "modle"),
        ({"protocol": "hold"}, "protocol"),
        ({"profile": "long"}, "no profile long"),
        ({"set": {"training": {"epoch": 3}}}, "epoch is not a setting"),
        ({"data": "nothing"}, "no source named nothing"),
        ({"model": "resnet"}, "resnet"),
        (
            {"set": {"models": {"dmcn": {"network": {"padding": "valid"}}}}, "name": "odd"},
            "heldout-odd/dmcn-fold0-seed0: models",
        ),
    ],
)
def test_a_wrong_job_is_one_sentence_before_any_job_is_begun(project, job, sentence):
    done = run(write(project, {"seed": 1}, job), "--out", "out")
    assert done.returncode == 2
    assert sentence in done.stderr
    assert "Traceback" not in done.stderr
    assert not (project / "out").exists()


def test_a_run_named_twice_and_a_file_that_is_no_list(project):
    with pytest.raises(InputError, match="twice"):
        read_jobs(write(project, {}, {}))
    (project / "jobs.yaml").write_text("model: dmcn")
    with pytest.raises(InputError, match="list of jobs"):
        read_jobs(project / "jobs.yaml")


def test_a_job_changes_only_what_it_names(project):
    plain, changed = read_jobs(write(project, {}, {"set": {"training": {"batch": 2}}, "name": "small"}))
    assert job_settings(plain, project).training.batch == 4
    assert job_settings(changed, project).training.batch == 2


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 not really", b"text"])
def test_a_file_that_is_no_bundle_is_refused(tmp_path, content):
    path = tmp_path / "run.zip"
    path.write_bytes(content)
    with pytest.raises(InputError, match="not a packed run"):
        unpack_run(path, tmp_path / "runs")
    assert not list((tmp_path / "runs").glob("*")) if (tmp_path / "runs").exists() else True


def pack(path, files, **facts):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as bundle:
        bundle.writestr("training/record.json", json.dumps(run_facts("packed") | facts))
        for name, content in files.items():
            bundle.writestr(name, content)
    return path


@pytest.mark.parametrize(
    ("files", "facts", "reason"),
    [
        ({"../../escaped": "x"}, {}, "which no run has"),
        ({"/tmp/escaped.csv": "x"}, {}, "which no run has"),
        ({"evaluation/../../escaped.csv": "x"}, {}, "which no run has"),
        ({"evaluation/run.py": "x"}, {}, "which no run has"),
        ({"evaluation/scores.csv": b"0" * (2**30 + 1)}, {}, "MiB large, the most is"),
        ({"evaluation/metrics.json": b" " * 2**25}, {}, "JSON files are larger"),
        ({f"evaluation/panels/section-{index}.png": "x" for index in range(1001)}, {}, "files, the most is"),
        ({}, {"dataset": "../../dmcn"}, "no proper dataset"),
        ({}, {"id": "0123' OR 1=1"}, "no proper id"),
        ({}, {"id": 7}, "no proper id"),
    ],
)
def test_a_bundle_is_bounded_before_it_is_unpacked(tmp_path, files, facts, reason):
    path = pack(tmp_path / "run.zip", files, **facts)
    with pytest.raises(InputError, match=reason):
        unpack_run(path, tmp_path / "runs")
    assert sorted(file.name for file in tmp_path.rglob("*")) in (["run.zip"], ["run.zip", "runs"])


def test_a_pipe_in_place_of_a_bundle_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "run.zip")
    with pytest.raises(InputError, match="is not a file"):
        unpack_run(tmp_path / "run.zip", tmp_path / "runs")


def test_weights_that_make_a_bundle_too_large_stay_behind(project, monkeypatch):
    assert run(write(project, {"profile": "short"}), "--out", "out").returncode == 0
    record = RunRecord(project / "out/runs/cortex-short-heldout/dmcn-fold0-seed0/training")
    monkeypatch.setattr("emseg.records.bundle.LARGEST_BUNDLE", 1)
    pack_run(record, project / "small.zip")
    imported = import_run(project / "small.zip")
    with pytest.raises(InputError, match="no weights"):
        load_network(imported)
    assert imported.history() == record.history()
