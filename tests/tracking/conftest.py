import shutil
import uuid

import pandas as pd
import pytest
from evaluated import rewrite

from emseg.evaluation.evaluate import calibrate_and_evaluate
from emseg.settings import Settings, merge
from emseg.training.plan import RunPlan
from emseg.training.record import RunRecord
from emseg.training.run import train_model


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
        lineage = record.read()["lineage"] | {"git_commit": "c" * 40, "git_dirty": False}
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
