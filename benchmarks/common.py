"""What the benchmarks share: sections, timing, and where they ran."""

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from emseg.data.sources import Source, read_source
from emseg.data.synthetic import make_synthetic
from emseg.evaluation.evaluate import calibrate_and_evaluate
from emseg.inference.device import device_name
from emseg.records.lineage import describe_lineage
from emseg.records.record import RunRecord
from emseg.settings import profile_values, validate_settings
from emseg.training.plan import RunPlan
from emseg.training.run import train_model


def sections(count: int) -> tuple[np.ndarray, np.ndarray, str]:
    """Images uint8 and labels bool (count, 512, 512), and what they are."""
    if folder := os.environ.get("EMSEG_ISBI2012"):
        source = read_source(Path(folder), "isbi2012")
        return source.images[:count], source.labels[:count], "ISBI 2012 training stack"
    images, labels = make_synthetic(count, 512)
    return images, labels > 0, "synthetic sections"


def trained_run(folder: Path, channels: int, seed: int = 0) -> RunRecord:
    """A `residual_unet` of profile `best`, trained for 80 steps and evaluated, without test-time augmentation."""
    images, labels, _ = sections(12)
    source = Source("benchmark", images, labels, images[:0], labels[:0])
    changes = {
        "protocol": {"validation": 1, "held_out": 2},
        "augment": {"count": 2},
        "training": {"epochs": 1, "images_per_epoch": 320, "warmup_epochs": 0.0, "test_time_augmentation": False},
        "models": {"residual_unet": {"network": {"base_channels": channels}}},
    }
    settings = validate_settings(profile_values(Path(), "best", changes), "")
    record = train_model(RunPlan("residual_unet", 0, seed, settings, source), folder / "training")
    calibrate_and_evaluate(record, source)
    return record


def seconds(call: Callable[[], Any], repeats: int) -> float:
    """Median wall time of a call, after one that does not count."""
    call()
    times = []
    for _ in range(repeats):
        started = time.perf_counter()
        call()
        times.append(time.perf_counter() - started)
    return float(np.median(times))


def print_machine() -> None:
    """One line about the machine."""
    lineage = describe_lineage(device_name(torch.device("cpu")), torch.get_num_threads())
    print(f"{lineage.device}, torch {torch.__version__}, {torch.get_num_threads()} threads")
