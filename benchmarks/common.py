"""What the benchmarks share: sections, timing, and where they ran."""

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from emseg.data.sources import read_source
from emseg.data.synthetic import make_synthetic
from emseg.training.lineage import describe_lineage


def sections(count: int) -> tuple[np.ndarray, np.ndarray, str]:
    """Images uint8 and labels bool (count, 512, 512), and what they are."""
    if folder := os.environ.get("EMSEG_ISBI2012"):
        source = read_source(Path(folder), "isbi2012")
        return source.images[:count], source.labels[:count], "ISBI 2012 training stack"
    images, labels = make_synthetic(count, 512)
    return images, labels > 0, "synthetic sections"


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
    lineage = describe_lineage(torch.device("cpu"))
    print(f"{lineage['device']}, torch {torch.__version__}, {torch.get_num_threads()} threads")
