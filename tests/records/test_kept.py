"""What earlier versions wrote is read and used: a run of commit bc8ae45, as its folder was, but for pictures."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from emseg.errors import InputError
from emseg.evaluation.evaluate import calibrate_and_evaluate, evaluate
from emseg.records import RunRecord, open_run
from emseg.records.evaluation import read_fitting
from emseg.registry.package import segmenter_of_run, write_package
from emseg.reporting.leaderboard import find_evaluations, make_boards
from emseg.training.plan import parts_of_run

KEPT = Path(__file__).parent / "kept" / "bc8ae45"


def test_an_old_record_is_opened_and_written_in_the_form_of_today(run):
    opened = open_run(run)
    assert (opened.format, opened.settings.training.cells, opened.trained_on) == (1, "threshold", None)
    assert opened.digest == opened.fingerprint
    before = json.loads((run / "training" / "record.json").read_text())
    RunRecord.open(run).update(profile="best")
    after = json.loads((run / "training" / "record.json").read_text())
    assert after.pop("checksum")
    # What was not noted then is noted as unknown.
    assert after.pop("lineage").items() >= before.pop("lineage").items()
    assert after == before | {"format": 1, "profile": "best"}


@pytest.fixture
def run(tmp_path):
    shutil.copytree(KEPT, tmp_path / "run")
    return tmp_path / "run"


def test_an_old_run_is_ranked_and_segments_as_it_was_scored(run, source, stack):
    record, evaluated = read_fitting(run / "evaluation")
    evaluation, table = evaluated.evaluation, evaluated.table
    assert (record.model, evaluation.protocol, list(table["section"])) == ("residual_unet", "heldout", [7, 8])
    (board,) = make_boards(find_evaluations(run.parent))
    assert board.rows[0].metrics["dice"].mean == pytest.approx(table["dice"].mean(), abs=1e-6)
    segmenter = segmenter_of_run(run)
    assert segmenter.threshold == evaluation.threshold
    probability = next(segmenter.segment([stack[0][7]].__getitem__, 1, "probability"))
    error = np.mean((probability > 0.5) != (stack[1][7] > 0))
    assert error == pytest.approx(table["pixel_error"][0], abs=1e-3)


def test_an_old_run_is_calibrated_before_it_is_scored_or_registered(run, source, tmp_path):
    record = RunRecord.open(run)
    # The same sections; how they are stored has no part in their digest.
    assert record.read().data_digest == source.digest
    with pytest.raises(InputError, match="does not say which weights it was made from"):
        write_package(record, tmp_path / "package")
    with pytest.raises(InputError, match="run `emseg calibrate` on it again"):
        evaluate(record, parts_of_run(record, source).test)
    before = read_fitting(run / "evaluation")[1].evaluation
    after = calibrate_and_evaluate(record, source)
    for name in ("v_rand", "v_info", "dice", "pixel_error"):
        assert after.metrics[name].mean == pytest.approx(before.metrics[name].mean, abs=1e-4)
    assert after.threshold == pytest.approx(before.threshold, abs=1e-4)
    write_package(record, tmp_path / "package")
