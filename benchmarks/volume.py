"""A large stack on disk through `segment_file`: bounded memory, and a kill in the middle that costs one section.

python -m benchmarks.volume [--sections 100] [--side 2048]
"""

import argparse
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import tifffile

from benchmarks.common import print_machine, sections, trained_run

CHANNELS = 32
SEGMENT = """
import dataclasses, resource, sys
from emseg.segmentation.volume import segment_file
from emseg.registry.package import segmenter_of_run

def megabytes():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

run, cells, source, target = sys.argv[1:]
segmenter = segmenter_of_run(run)
if cells == "threshold":
    segmenter = dataclasses.replace(segmenter, agglomeration=None)
before = megabytes()
segment_file(segmenter, source, target, "mask", report=lambda done, total: print(done, flush=True))
print(f"peak {megabytes() - before:.0f} {megabytes():.0f}")
"""


def main() -> None:
    """Print peak memory, speed, and what a kill cost."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sections", type=int, default=100)
    parser.add_argument("--side", type=int, default=2048)
    arguments = parser.parse_args()
    images, _, name = sections(4)
    tiles = -(-arguments.side // images.shape[1])
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "stack.tif"
        with tifffile.TiffWriter(source, bigtiff=True) as tiff:
            for z in range(arguments.sections):
                section = np.tile(images[z % 4], (tiles, tiles))[: arguments.side, : arguments.side]
                tiff.write(section, photometric="minisblack", compression="zlib")
        run = trained_run(Path(folder) / "run", CHANNELS)
        print_machine()
        pixels = arguments.sections * arguments.side**2
        print(
            f"{arguments.sections} sections of {arguments.side} x {arguments.side}, tiled from the {name} "
            f"({pixels / 1e6:.0f} MB); residual_unet, {CHANNELS} channels"
        )
        for cells in ("threshold", "agglomeration"):
            segment_in_two(run.folder.parent, cells, source, arguments.sections, pixels)


def segment_in_two(run: Path, cells: str, source: Path, count: int, pixels: int) -> None:
    """Segment a stack of `count` sections in a process that is killed halfway, then in another that goes on."""
    target = source.with_name(f"{cells}.tif")
    command = [sys.executable, "-c", SEGMENT, str(run), cells, str(source), str(target)]
    started = time.perf_counter()
    first = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert first.stdout is not None
    while int(first.stdout.readline()) < count // 2:
        pass
    first.send_signal(signal.SIGKILL)
    first.wait()
    kept = {f: f.stat().st_mtime_ns for f in target.with_name(f".{target.name}.partial").glob("*.npy")}
    second = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert second.stdout is not None
    again = 0
    for line in second.stdout:
        if line.startswith("peak"):
            _, beyond, peak = line.split()
        elif int(line) == count - 1:
            again = sum(f.stat().st_mtime_ns != moment for f, moment in kept.items())
    took = time.perf_counter() - started
    print(
        f"cells by {cells}: {took:.0f} s, {pixels / took / 1e6:.2f} megapixels/s; peak memory {peak} MB, {beyond} MB "
        f"beyond the model; killed after {len(kept)} sections, {again} of them were done again"
    )


if __name__ == "__main__":
    main()
