"""Five hundred damaged headers of each format: read, or refused in a sentence, in little memory, and in the end."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[2]


@pytest.mark.parametrize("form", ["tif", "png", "npy", "mrc", "nrrd", "zarr", "h5"])
def test_damaged_headers(tmp_path, form):
    paths = os.pathsep.join([str(TESTS), *sys.path])
    command = [sys.executable, "-X", "faulthandler", "-m", "damaged_headers", form, str(tmp_path), "500"]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"PYTHONPATH": paths})
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout)
    assert found["read"] + found["refused"] >= 500
    assert found["read"] > 0
    assert found["odd"] == []
    assert found["refused"] > 100
    # Beyond what the files say they hold, which is what is asked for.
    assert found["bytes beyond the largest"] < 200e6
