"""What earlier versions wrote is read and used: a run of commit bc8ae45, as its folder was, but for pictures."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from emseg.errors import InputError
from emseg.evaluation.evaluate import calibrate_and_evaluate, evaluate
from emseg.records.evaluation import read_fitting
from emseg.reporting.leaderboard import find_evaluations, make_boards
from emseg.tracking.packaging import segmenter_of_run, write_package
from emseg.training.plan import parts_of_run
from emseg.training.record import RunRecord

KEPT = Path(__file__).parent / "kept" / "bc8ae45"


@pytest.fixture
def run(tmp_path):
    shutil.copytree(KEPT, tmp_path / "run")
    return tmp_path / "run"


def test_an_old_run_is_ranked_and_segments_as_it_was_scored(run, source, stack):
    facts, metrics, table, _ = read_fitting(run / "evaluation")
    assert (facts["model"], metrics["protocol"], list(table["section"])) == ("residual_unet", "heldout", [7, 8])
    (board,) = make_boards(find_evaluations(run.parent))
    assert board.rows[0]["dice"]["mean"] == pytest.approx(table["dice"].mean(), abs=1e-6)
    segmenter = segmenter_of_run(run)
    assert segmenter.threshold == metrics["threshold"]
    probability = next(segmenter.segment([stack[0][7]].__getitem__, 1, "probability"))
    error = np.mean((probability > 0.5) != (stack[1][7] > 0))
    assert error == pytest.approx(table["pixel_error"][0], abs=1e-3)


def test_an_old_run_is_calibrated_before_it_is_scored_or_registered(run, source, tmp_path):
    record = RunRecord.open(run)
    # The same sections; how they are stored has no part in their digest.
    assert record.read()["data_digest"] == source.digest
    with pytest.raises(InputError, match="does not say which weights it was made from"):
        write_package(record, tmp_path / "package")
    with pytest.raises(InputError, match="run `emseg calibrate` on it again"):
        evaluate(record, parts_of_run(record, source).test)
    _, before, _, _ = read_fitting(run / "evaluation")
    after = calibrate_and_evaluate(record, source)
    for name in ("v_rand", "v_info", "dice", "pixel_error", "threshold"):
        assert after[name] == pytest.approx(before[name], abs=1e-4)
    write_package(record, tmp_path / "package")
