"""Workers on a real PostgreSQL, started here on loopback as an unprivileged user."""

import shutil
import signal
import subprocess
import sys

import pytest
import yaml
from servers import POSTGRESQL, postgresql

from emseg.data.sources import load_source
from emseg.settings import load_settings, merge, read_yaml
from emseg.tuning.study import open_study


@pytest.fixture(scope="module")
def database():
    """URL of an empty database; the server is stopped after."""
    if not POSTGRESQL:
        pytest.skip("no PostgreSQL here (Debian: apt-get install postgresql)")
    with postgresql("optuna") as url:
        yield url


WORKER = """
import os, sys, torch
torch.set_num_threads(1)
from emseg.data.sources import load_source
from emseg.settings import load_settings
from emseg.tuning.study import open_study
from emseg.tuning.worker import Events, run_worker
settings = load_settings(sys.argv[1])
source = load_source("cortex")
study = open_study(settings, source, "shared", sys.argv[2], heartbeat_seconds=1)
def began(trial, point):
    print(trial.number, flush=True)
run_worker(study, settings, source, Events(began=began))
"""


def test_three_workers_share_a_database_and_a_killed_ones_trial_is_retried(tiny_params, source_folder, database):
    values = read_yaml(tiny_params)
    space = {"learning_rate": {"low": 0.001, "high": 0.01, "log": True}}
    tuning = {
        "model": "residual_unet",
        "metric": "dice",
        "trials": 12,
        "cost": None,
        "resource": "epochs",
        "minimum_resource": 4,
        "largest_gflop": None,
    }
    values["tuning"] = tuning | {"space": space}
    merge(values, {"data": {"source": "cortex"}, "training": {"epochs": 12, "images_per_epoch": 16}})
    tiny_params.write_text(yaml.safe_dump(values, sort_keys=False))
    folder = tiny_params.parent
    shutil.copytree(source_folder, folder / "data" / "sources" / "cortex")
    command = [sys.executable, "-c", WORKER, tiny_params, database]
    # All at once on an empty database: its tables are created once all the same.
    workers = [
        subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(3)
    ]
    begun = int(workers[0].stdout.readline())
    workers[0].send_signal(signal.SIGKILL)
    workers[0].wait()
    for worker in workers[1:]:
        _, errors = worker.communicate(timeout=240)
        assert worker.returncode == 0, errors
    study = open_study(load_settings(tiny_params), load_source("cortex", source_folder.parent), "shared", database)
    assert study.trials[begun].state.name == "FAIL"
    retried = [t for t in study.trials if t.system_attrs.get("failed_trial") == begun]
    assert len(retried) == 1
    assert retried[0].params == study.trials[begun].params
    assert sum(trial.state.is_finished() for trial in study.trials) >= 12
    assert study.best_trial.state.name == "COMPLETE"
