"""What a CPU training frees stays with its process, which the system's count of page faults shows."""

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

untrained = page_faults()
sys.argv.pop(0)
runpy.run_path(sys.argv[0])
print(untrained, page_faults())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc gives memory back at once")
def test_memory_freed_in_training_is_not_asked_for_again(tmp_path, tiny_params, source_folder, train_script):
    measure = tmp_path / "measure.py"
    measure.write_text(MEASURE)
    done = subprocess.run(
        [sys.executable, measure, train_script, tiny_params, source_folder.parent, tmp_path / "run"],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "CUDA_VISIBLE_DEVICES": ""},
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    untrained, trained = map(int, done.stdout.split()[-2:])
    # Five times 64 MiB are 80,000 pages of 4 KiB, or 160 of 2 MiB.
    assert untrained > 100
    assert trained < untrained / 10
