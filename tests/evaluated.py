"""Evaluated runs without any training."""

import hashlib
import json
from pathlib import Path

import numpy as np

from emseg.files import write_json
from emseg.metrics import score_stack
from emseg.metrics.scoring import Scores
from emseg.records.calibration import CELLS_FILE, read_calibration
from emseg.records.checked import CHECKSUM, checksum, write_checked
from emseg.records.evaluation import METRICS_FILE, Evaluation, write_evaluation
from emseg.records.record import RunRecord
from emseg.records.run import Run
from emseg.settings import load_settings

PROJECT = Path(__file__).parents[1]
DIGEST = "d" * 32


def run_facts(place, protocol="heldout", seed=0, model="unet2", variation="", profile="best"):
    """record.json of a finished run."""
    settings = load_settings(PROJECT / "params.yaml")
    return {
        "id": hashlib.md5(str(place).encode()).hexdigest(),
        "fingerprint": DIGEST,
        "status": "finished",
        "message": None,
        "resumed": 0,
        "created": "2026-01-01T00:00:00+00:00",
        "finished": "2026-01-01T00:02:00+00:00",
        "model": model,
        "dataset": "cortex",
        "protocol": protocol,
        "fold": 0,
        "seed": seed,
        "data_digest": DIGEST,
        "augmented_digest": DIGEST,
        "code_digest": DIGEST,
        "maximum_steps": None,
        "settings": {
            "architecture": model,
            "network": {},
            "loss": "bce",
            "dice_weight": 1.0,
            "weight_map": None,
            "training": settings.training.model_dump(),
            "protocol": settings.protocol.model_dump(),
            "augment": settings.augment.model_dump(),
        },
        "parameters": 1234,
        "flop_per_crop": 10**9,
        "normalization": {"low": 0.0, "high": 255.0},
        "grey_levels": {"0.5": 0.5},
        "split": {"training": [0], "validation": [1], "test": [2, 3, 4, 5, 6]},
        "lineage": {
            "device": "a box",
            "threads": 2,
            "packages": {"torch": "2"},
            "git_commit": "c" * 40,
            "git_dirty": False,
            "dvc": {},
            "code_digest": DIGEST,
        },
        "best_epoch": 2,
        "epochs": 2,
        "collapsed": False,
        "seconds_per_epoch": 60.0,
        "training_seconds": 120.0,
        "images_seen": 2400,
        "weights_sha256": "e" * 64,
        "profile": profile,
        "variation": variation,
    }


def make_run(folder, name, error, protocol="heldout", seed=0, model="unet2", variation="", profile="best", **facts):
    """A run whose prediction has a share `error` of its pixels wrong, as it lies on disk."""
    label = np.random.default_rng(9).random((5, 40, 40)) < 0.8
    wrong = np.random.default_rng(seed).random(label.shape) < error
    table = score_stack(label ^ wrong, label)
    run = folder / name
    for part in ("training", "evaluation"):
        (run / part).mkdir(parents=True)
    facts = run_facts(run, protocol, seed, model, variation, profile) | facts
    table["section"] += len(table) * facts["fold"]
    table["v_rand_oracle"], table["v_info_oracle"] = table["v_rand"], table["v_info"]
    scores = Scores(protocol, facts["data_digest"], table)
    record = Run.model_validate(facts)
    write_checked(run / "training" / "record.json", record)
    (run / "training" / "history.csv").write_text("epoch,train_loss,validation_pixel_error\n1,0.5,0.2\n2,0.3,0.1\n")
    table.to_csv(run / "evaluation" / "scores.csv", index=False)
    table.assign(model="baseline: threshold").to_csv(run / "evaluation" / "baselines.csv", index=False)
    evaluation = Evaluation(
        **{key: facts[key] for key in ("model", "dataset", "protocol", "data_digest", "fold", "seed", "parameters")},
        leaks=scores.leaks,
        sections=len(table),
        pixel_threshold=0.5,
        cells="threshold",
        threshold=0.7,
        v_info_threshold=0.7,
        oracle_threshold=0.7,
        collapsed=False,
        epochs=2,
        seconds_per_epoch=facts["seconds_per_epoch"],
        metrics=scores.summary(),
        made_from=record.made_from,
        calibration="0" * 64,
        files={},
    )
    write_evaluation(run / "evaluation", evaluation)
    return table


def rewrite(run, table=None, **changes):
    """Change the scores per section of a run, or entries of its metrics.json, as an evaluation would have written."""
    folder = run / "evaluation"
    record = RunRecord.open(run).read()
    values = json.loads((folder / METRICS_FILE).read_text())
    if table is not None:
        table.to_csv(folder / "scores.csv", index=False)
        summary = Scores(values["protocol"], values["data_digest"], table).summary()
        values |= {name: interval.model_dump() for name, interval in summary.items()}
    if (run / CELLS_FILE).is_file():
        cells = json.loads((run / CELLS_FILE).read_text())
        write_values(run / CELLS_FILE, cells | {"made_from": record.made_from.model_dump()})
        values["calibration"] = read_calibration(run, record)[1]
    values |= changes | {"made_from": record.made_from}
    write_evaluation(folder, Evaluation.model_validate({k: v for k, v in values.items() if k != CHECKSUM}))


def write_values(path, values):
    """Write JSON-like values, whatever they are, under a right checksum."""
    values = {key: value for key, value in values.items() if key != CHECKSUM}
    write_json(path, values | {CHECKSUM: checksum(values)})
