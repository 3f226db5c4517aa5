"""Evaluated runs without any training."""

import json
import uuid

import numpy as np

from emseg.metrics import score_stack
from emseg.metrics.scoring import Scores


def make_run(
    folder, name, error, protocol="heldout", seed=0, model="unet2", variation="", profile="best", dataset="cortex"
):
    """A run whose prediction has a share `error` of its pixels wrong, as it lies on disk."""
    label = np.random.default_rng(9).random((5, 40, 40)) < 0.8
    wrong = np.random.default_rng(seed).random(label.shape) < error
    table = score_stack(label ^ wrong, label)
    table["v_rand_oracle"], table["v_info_oracle"] = table["v_rand"], table["v_info"]
    scores = Scores(protocol, "d" * 32, table)
    run = folder / name
    for part in ("training", "evaluation"):
        (run / part).mkdir(parents=True)
    facts = {
        "id": uuid.uuid4().hex,
        "model": model,
        "fold": 0,
        "seed": seed,
        "profile": profile,
        "variation": variation,
        "epochs": 2,
        "training_seconds": 120.0,
        "flop_per_crop": 10**9,
        "images_seen": 2400,
        "settings": {"architecture": model},
        "lineage": {
            "device": "a box",
            "threads": 2,
            "packages": {"torch": "2"},
            "git_commit": "c" * 40,
            "git_dirty": False,
        },
    }
    (run / "training" / "record.json").write_text(json.dumps(facts))
    (run / "training" / "history.csv").write_text("epoch,train_loss,validation_pixel_error\n1,0.5,0.2\n2,0.3,0.1\n")
    metrics = {
        "model": model,
        "dataset": dataset,
        "protocol": protocol,
        "leaks": scores.leaks,
        "data_digest": "d" * 32,
        "fold": 0,
        "seed": seed,
        "threshold": 0.7,
        "collapsed": False,
        "parameters": 1234,
        "seconds_per_epoch": 60.0,
        **scores.summary(),
    }
    (run / "evaluation" / "metrics.json").write_text(json.dumps(metrics))
    table.to_csv(run / "evaluation" / "scores.csv", index=False)
    table.assign(model="baseline: threshold").to_csv(run / "evaluation" / "baselines.csv", index=False)
    return table
