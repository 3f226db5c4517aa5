"""What a network on a CPU frees stays with its process, which the system's count of page faults shows."""

import os
import platform
import subprocess
import sys

import pytest

MEASURE = """
import resource, runpy, sys, torch

def page_faults():
    torch.ones(1 << 24)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(5):
        torch.ones(1 << 24)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

before = page_faults()
sys.argv.pop(0)
runpy.run_path(sys.argv[0])
print(before, page_faults())
"""

PREDICT = """
import numpy as np
from emseg.inference import predict
from emseg.models import build_model
predict(build_model("unet2", base_channels=2, depth=1).eval(), np.zeros((1, 32, 32), np.uint8))
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc gives memory back at once")
@pytest.mark.parametrize("work", ["train", "predict"])
def test_freed_memory_is_not_asked_for_again(tmp_path, tiny_params, source_folder, train_script, work):
    measure, predict_script = tmp_path / "measure.py", tmp_path / "predict.py"
    measure.write_text(MEASURE)
    predict_script.write_text(PREDICT)
    script = (
        [train_script, tiny_params, source_folder.parent, tmp_path / "run"] if work == "train" else [predict_script]
    )
    done = subprocess.run(
        [sys.executable, measure, *script],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "CUDA_VISIBLE_DEVICES": ""},
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    before, after = map(int, done.stdout.split()[-2:])
    # Five times 64 MiB are 80,000 pages of 4 KiB, or 160 of 2 MiB.
    assert before > 100
    assert after < before / 2
