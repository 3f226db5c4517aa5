"""record.json, metrics.json and cells.json: what is written, what is read again, and what is refused."""

import hashlib
import json
import os
import subprocess
import sys

import pytest
from evaluated import make_run, run_facts, write_values

from emseg.errors import InputError
from emseg.records import Run, RunRecord, open_run
from emseg.records.calibration import read_calibration
from emseg.records.evaluation import read_fitting
from emseg.settings import NetworkSettings


@pytest.fixture
def run(tmp_path):
    make_run(tmp_path, "run", 0.05)
    return tmp_path / "run"


def values_of(file):
    return json.loads(file.read_text())


def test_records_are_opened_without_torch():
    code = "import sys; from emseg.records import Run, open_run; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=os.environ)
    assert done.stdout.strip() == "False"


def test_a_run_has_its_settings_as_settings(run):
    opened = open_run(run)
    assert opened == open_run(run / "training") == RunRecord.open(run).read()
    assert isinstance(opened, Run)
    assert opened.settings.training.cells in ("threshold", "agglomeration")
    assert opened.settings.network == NetworkSettings()
    assert opened.name == "unet2-fold0-seed0"
    assert (opened.outcome.epochs, opened.outcome.training_seconds) == (2, 120.0)
    with pytest.raises(InputError, match="holds no run record"):
        open_run(run / "evaluation")


def test_files_say_their_format_and_their_checksum_is_that_of_the_rest(run):
    for file in (run / "training" / "record.json", run / "evaluation" / "metrics.json"):
        values = values_of(file)
        assert values["format"] == 1
        checksum = values.pop("checksum")
        assert checksum == hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def test_changed_entries_are_written_and_the_others_stay_also_those_of_a_later_version(run):
    file = run / "training" / "record.json"
    before = values_of(file) | {"added_later": {"x": [1, None]}}
    write_values(file, before)
    RunRecord.open(run).update(profile="quick", collapsed=True)
    after = values_of(file)
    assert {key for key in after if after[key] != before.get(key)} == {"profile", "collapsed", "checksum"}
    assert after.keys() == before.keys()
    with pytest.raises(ValueError, match="status"):
        RunRecord.open(run).update(status="odd")
    assert values_of(file) == after


def test_what_is_not_known_yet_is_not_in_the_file(run):
    unknown = {"best_epoch", "images_seen", "weights_sha256", "profile", "section_digests"}
    RunRecord.open(run).update(status="running", finished=None, **dict.fromkeys(unknown))
    values = values_of(run / "training" / "record.json")
    assert not unknown & values.keys()
    assert (values["finished"], values["message"], values["maximum_steps"]) == (None, None, None)
    with pytest.raises(ValueError, match="best_epoch"):
        _ = open_run(run).outcome


@pytest.mark.parametrize("file", ["training/record.json", "evaluation/metrics.json"])
def test_a_later_format_is_one_sentence(run, file):
    write_values(run / file, values_of(run / file) | {"format": 2})
    with pytest.raises(InputError, match=r"has format 2, of a later version of emseg.*update emseg"):
        read_fitting(run / "evaluation")


def test_what_earlier_versions_did_not_write_is_read_as_it_was_meant(run):
    for file, added in (
        ("training/record.json", ("format", "checksum", "weights_sha256", "section_digests", "profile", "variation")),
        ("evaluation/metrics.json", ("format", "checksum", "cells", "made_from", "calibration", "files")),
    ):
        earlier = {key: value for key, value in values_of(run / file).items() if key not in added}
        (run / file).write_text(json.dumps(earlier))
    record, evaluated = read_fitting(run / "evaluation")
    assert (record.format, record.weights_sha256, record.section_digests, record.trained_on) == (1, None, None, None)
    evaluation = evaluated.evaluation
    assert (evaluation.format, evaluation.cells, evaluation.made_from, evaluation.files) == (1, "threshold", None, {})


def test_the_fingerprint_is_that_of_what_decides_the_weights():
    facts = run_facts("here")
    keys = ("model", "dataset", "protocol", "fold", "seed", "data_digest", "augmented_digest", "code_digest")
    identity = {key: facts[key] for key in (*keys, "maximum_steps", "settings")}
    text = json.dumps(identity, sort_keys=True)
    assert Run.model_validate(facts).digest == hashlib.sha256(text.encode()).hexdigest()[:32]
    other = Run.model_validate(facts | {"created": "2027-01-01T00:00:00+00:00", "epochs": 3, "profile": None})
    assert other.digest == Run.model_validate(facts).digest
    assert Run.model_validate(facts | {"seed": 1}).digest != other.digest


RULE = {"mean": [0.5], "scale": [1], "weights": [2.0], "bias": -1.0}


def test_an_evaluation_of_before_there_were_calibrations_says_how_cells_are_told_apart(run):
    metrics = {key: value for key, value in values_of(run / "evaluation" / "metrics.json").items() if key != "checksum"}
    earlier = metrics | {"calibration": None, "cells": "agglomeration", "threshold": 0.5, "v_info_threshold": 0.6}
    (run / "evaluation" / "metrics.json").write_text(json.dumps(earlier))
    rules = {"features": ["length"], "rounds": [{"down_to": 0.5, "alone": RULE, "among_neighbours": None}]}
    rules_file = run / "evaluation" / "agglomeration.json"
    rules_file.write_text(json.dumps(rules))
    calibration, checksum = read_calibration(run, open_run(run))
    assert (calibration.cells, calibration.grey_threshold, calibration.curve, checksum) == (
        "agglomeration",
        None,
        [],
        "",
    )
    assert (calibration.thresholds.v_rand, calibration.thresholds.v_info) == (0.5, 0.6)
    assert calibration.agglomeration.model_dump() == rules
    for odd, reason in (
        ({"features": ["length"], "alone": RULE}, "judges borders otherwise"),
        (rules | {"rounds": [{}]}, "agglomeration.rounds.0.down_to: field required"),
        ([], "judges borders otherwise"),
        (7, "int"),
    ):
        rules_file.write_text(json.dumps(odd))
        with pytest.raises(InputError, match=rf"evaluation is damaged \(.*{reason}.*calibrate the run again"):
            read_calibration(run, open_run(run))
    rules_file.unlink()
    assert read_calibration(run, open_run(run))[0].agglomeration is None
    (run / "evaluation" / "metrics.json").unlink()
    with pytest.raises(InputError, match="is not calibrated; run `emseg calibrate"):
        read_calibration(run, open_run(run))
