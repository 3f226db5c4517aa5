import functools
import os
import shutil
import sys
import uuid
from pathlib import Path

import hypothesis
import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from evaluated import rewrite

from emseg.cli import main
from emseg.data.io.stack import write_stack
from emseg.data.sources import Source, read_source
from emseg.data.synthetic import make_synthetic
from emseg.evaluation.evaluate import calibrate_and_evaluate
from emseg.records.record import RunRecord
from emseg.settings import Settings, load_settings, merge, read_yaml
from emseg.training.plan import RunPlan
from emseg.training.run import train_model

PROJECT = Path(__file__).parents[1]

# No test asserts a time: a busy machine must not fail one.
hypothesis.settings.register_profile("emseg", deadline=None)
hypothesis.settings.load_profile("emseg")

# One small, fast benchmark for every test that trains.
TINY = {
    "protocol": {"held_out": 2, "validation": 2},
    "augment": {"count": 12, "separation_limit": 24.0},
    "training": {
        "epochs": 3,
        "images_per_epoch": 8,
        "batch": 4,
        "crop": 32,
        "warmup_epochs": 0.0,
        "precision": "float32",
    },
    "models": {
        "dmcn": {"network": {"base_channels": 2}},
        "unet1": {"network": {"base_channels": 2, "depth": 1}, "training": {"crop": 32}},
        "weighted_unet": {"network": {"base_channels": 2, "depth": 2}},
        "unet2": {"network": {"base_channels": 2, "depth": 2}},
        "residual_unet": {"network": {"base_channels": 2, "depth": 1}, "loss": "bce"},
        "deeply_supervised_unet": {"network": {"base_channels": 2, "depth": 1}, "loss": "bce"},
    },
}


@pytest.fixture(autouse=True, scope="session")
def _one_thread():
    # Tiny tensors are slower on more threads.
    torch.set_num_threads(1)


@pytest.fixture(autouse=True, scope="session")
def _synthetic_sections_once():
    # The same on every call, which a test of its own shows; the embedded ones take seconds.
    with pytest.MonkeyPatch.context() as patch:
        once = functools.cache(make_synthetic)
        for user in ("emseg.data.sources", "emseg.data.adding"):
            patch.setattr(
                f"{user}.make_synthetic", lambda *given, **said: tuple(a.copy() for a in once(*given, **said))
            )
        yield


@pytest.fixture(scope="session")
def stack() -> tuple[np.ndarray, np.ndarray]:
    return make_synthetic(sections=9, side=64, seed=3)


@pytest.fixture
def source_folder(tmp_path, stack) -> Path:
    folder = tmp_path / "cortex"
    write_stack(folder / "images.tif", stack[0])
    write_stack(folder / "labels.tif", stack[1])
    return folder


@pytest.fixture
def source(source_folder) -> Source:
    return read_source(source_folder, "cortex")


@pytest.fixture
def tiny_params(tmp_path) -> Path:
    values = read_yaml(PROJECT / "params.yaml")
    merge(values, TINY)
    path = tmp_path / "params.yaml"
    path.write_text(yaml.safe_dump(values, sort_keys=False))
    return path


@pytest.fixture
def tiny_settings(tiny_params) -> Settings:
    return load_settings(tiny_params)


@pytest.fixture(scope="session")
def isbi2012() -> Source:
    folder = os.environ.get("EMSEG_ISBI2012")
    if not folder:
        pytest.skip("EMSEG_ISBI2012 does not name the folder of the real stack")
    return read_source(Path(folder), "isbi2012")


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory) -> Path:
    # Creating the schema takes seconds; every test gets a copy.
    path = tmp_path_factory.mktemp("store") / "mlflow.db"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{path}")
        patch.chdir(path.parent)
        from emseg.tracking.store import connect

        connect()
    return path


@pytest.fixture
def store(tmp_path, empty_store, monkeypatch):
    """A client of an MLflow store of this test's own; the current folder is the test's."""
    shutil.copy(empty_store, tmp_path / "mlflow.db")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'mlflow.db'}")
    from emseg.tracking.store import connect

    return connect()


TRAIN = """
import sys, torch
from pathlib import Path
from emseg.data.sources import load_source
from emseg.settings import load_settings
from emseg.training.plan import RunPlan
from emseg.training.run import train_model
torch.set_num_threads(1)
settings = load_settings(sys.argv[1])
source = load_source("cortex", Path(sys.argv[2]))
train_model(RunPlan("weighted_unet", 0, 0, settings, source), Path(sys.argv[3]))
"""


@pytest.fixture
def train_script(tmp_path) -> Path:
    """A script that trains weighted_unet: its arguments are params.yaml, the folder of sources, the run folder."""
    path = tmp_path / "train.py"
    path.write_text(TRAIN)
    return path


@pytest.fixture
def emseg(monkeypatch, capsys):
    """Run the command in this process; returns exit code, standard output and standard error."""

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["emseg", *map(str, arguments)])
        capsys.readouterr()
        try:
            main()
            code = 0
        except SystemExit as stop:
            code = stop.code or 0
        printed = capsys.readouterr()
        return code, printed.out, printed.err

    return run


@pytest.fixture(scope="session")
def trained():
    """Runs made once in a session, by what they are; tests work on copies."""
    return {}


@pytest.fixture
def evaluated(tmp_path, tmp_path_factory, tiny_settings, source, trained):
    """A function that gives an evaluated tiny run of a network: evaluated(seed, neighbours) -> record."""

    def make(seed=0, neighbours=0):
        if (seed, neighbours) not in trained:
            values = tiny_settings.model_dump()
            changes = (
                {"network": {"neighbours": neighbours}, "training": {"augmentation": "fresh"}} if neighbours else {}
            )
            merge(values["models"]["residual_unet"], changes)
            settings = Settings.model_validate(values)
            folder = tmp_path_factory.mktemp("trained") / "run"
            record = train_model(RunPlan("residual_unet", 0, seed, settings, source), folder / "training")
            calibrate_and_evaluate(record, source)
            trained[seed, neighbours] = folder
        folder = tmp_path / "runs" / f"seed{seed}"
        shutil.copytree(trained[seed, neighbours], folder)
        record = RunRecord(folder / "training")
        # Tests run wherever the working tree is in whatever state.
        lineage = record.read().lineage.model_copy(update={"git_commit": "c" * 40, "git_dirty": False})
        record.update(id=uuid.uuid4().hex, lineage=lineage)
        rewrite(folder)
        return record

    return make


@pytest.fixture
def rescored():
    """A function that changes a record's scores per section: rescored(record, v_rand=[...])."""

    def change(record, **columns):
        run = record.folder.parent
        rewrite(run, pd.read_csv(run / "evaluation" / "scores.csv").assign(**columns))
        return record

    return change
