"""A large stack on disk through `segment_file`: bounded memory, and a kill in the middle that costs one section.

python -m benchmarks.volume [--sections 200] [--side 2048]
"""

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import tifffile

from benchmarks.common import print_machine, sections

SEGMENT = """
import resource, sys, time
import numpy as np
import torch
from emseg.data.normalization import Normalization, grey_levels
from emseg.inference import Predictor
from emseg.inference.segmenter import Segmenter
from emseg.inference.volume import segment_file
from emseg.models import build_model

def megabytes():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

torch.manual_seed(0)
network = build_model("residual_unet", base_channels=32).eval()
predictor = Predictor(network, Normalization(0, 255), precision="auto")
segmenter = Segmenter(predictor, 0.5, grey_levels(np.linspace(0, 1, 100)), "m", "f")
before = megabytes()
segment_file(segmenter, sys.argv[1], sys.argv[2], "mask", report=lambda done, total: print(done, flush=True))
print(f"peak {megabytes() - before:.0f} {megabytes():.0f}")
"""


def main() -> None:
    """Print peak memory, speed, and what a kill cost."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sections", type=int, default=200)
    parser.add_argument("--side", type=int, default=2048)
    arguments = parser.parse_args()
    images, _, name = sections(4)
    tiles = -(-arguments.side // images.shape[1])
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder) / "stack.tif", Path(folder) / "mask.tif"
        with tifffile.TiffWriter(source, bigtiff=True) as tiff:
            for z in range(arguments.sections):
                section = np.tile(images[z % 4], (tiles, tiles))[: arguments.side, : arguments.side]
                tiff.write(section, photometric="minisblack", compression="zlib")
        command = [sys.executable, "-c", SEGMENT, str(source), str(target)]
        print_machine()
        print(f"{arguments.sections} sections of {arguments.side} x {arguments.side}, tiled from the {name}")
        started = time.perf_counter()
        first = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert first.stdout is not None
        while int(first.stdout.readline()) < arguments.sections // 2:
            pass
        first.send_signal(signal.SIGKILL)
        first.wait()
        kept = {f: f.stat().st_mtime_ns for f in (Path(folder) / ".mask.tif.partial").glob("*.npy")}
        second = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert second.stdout is not None
        again = 0
        for line in second.stdout:
            if line.startswith("peak"):
                _, beyond, peak = line.split()
            elif int(line) == arguments.sections - 1:
                again = sum(f.stat().st_mtime_ns != moment for f, moment in kept.items())
        took = time.perf_counter() - started
        pixels = arguments.sections * arguments.side**2
        print(
            f"{took:.0f} s, {pixels / took / 1e6:.2f} megapixels/s; peak memory {peak} MB, {beyond} MB beyond the model"
        )
        print(f"killed after {len(kept)} sections: {again} of them were done again")
        print(f"result {os.path.getsize(target) / 1e6:.0f} MB; the stack has {pixels / 1e6:.0f} MB")


if __name__ == "__main__":
    main()
