"""64 clients for a minute against `emseg serve`, with a promotion in the middle, against one client alone.

python -m benchmarks.serving [--clients 64] [--seconds 60]
"""

import argparse
import io
import os
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from pathlib import Path

import numpy as np
import tifffile

from benchmarks.common import print_machine, sections, trained_run
from emseg.registry.champions import add_link, read_line
from emseg.registry.register import register_record
from emseg.registry.versions import find_version
from emseg.tracking.store import connect

SIDE = 256
PORT = 5118


def register_two(folder: Path) -> None:
    """Two small networks as versions 1 and 2."""
    client = connect()
    for seed in (0, 1):
        register_record(client, trained_run(folder / str(seed), 16, seed))
    make_champion(1)


def make_champion(number: int) -> None:
    """Make a version champion, whatever it is worth."""
    client = connect()
    version = find_version(client, str(number))
    add_link(client, version, read_line(client, version.task), "promoted", "to measure serving")


def resident_megabytes(pid: int) -> float:
    """Memory of a process."""
    for line in Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1]) / 1024
    return 0.0


def ask(body: bytes) -> tuple[float, int, str]:
    """Seconds, HTTP status and version of one request."""
    started = time.perf_counter()
    request = urllib.request.Request(f"http://127.0.0.1:{PORT}/segment?kind=mask", body, method="POST")
    try:
        with urllib.request.urlopen(request, timeout=120) as answer:
            answer.read()
            return time.perf_counter() - started, answer.status, answer.headers["X-Emseg-Model"]
    except OSError as error:
        return time.perf_counter() - started, getattr(error, "code", 0), ""


def load(body: bytes, clients: int, seconds: float, halfway: object = None) -> list[tuple[float, int, str]]:
    """Every answer that `clients` got who asked for `seconds`; `halfway` is called in the middle."""
    answers: list[tuple[float, int, str]] = []
    until = time.monotonic() + seconds

    def client() -> None:
        while time.monotonic() < until:
            answers.append(ask(body))

    threads = [threading.Thread(target=client) for _ in range(clients)]
    for thread in threads:
        thread.start()
    if callable(halfway):
        time.sleep(seconds / 2)
        halfway()
    for thread in threads:
        thread.join()
    return answers


def main() -> None:
    """Print latencies, failures and memory."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=60.0)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        os.environ["MLFLOW_TRACKING_URI"] = f"sqlite:///{folder}/mlflow.db"
        project = os.environ.get("PYTHONPATH", "")
        register_two(Path(folder) / "runs")
        server = subprocess.Popen(
            [sys.executable, "-m", "emseg.cli", "serve", "--port", str(PORT)],
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, [str(Path.cwd()), project]))},
        )
        try:
            _measure(server, arguments.clients, arguments.seconds)
        finally:
            server.terminate()
            server.wait()


def _measure(server: "subprocess.Popen[str]", clients: int, seconds: float) -> None:
    images, _, name = sections(1)
    stream = io.BytesIO()
    tifffile.imwrite(stream, images[0, :SIDE, :SIDE], photometric="minisblack")
    body = stream.getvalue()
    while ask(body)[1] != 200:
        time.sleep(0.5)

    def promote() -> None:
        make_champion(2)

    print_machine()
    print(f"one section of {SIDE} x {SIDE} of the {name} in, its mask out; residual_unet, 16 channels")
    alone = [took for took, _, _ in load(body, 1, min(10.0, seconds))]
    before = resident_megabytes(server.pid)
    answers = load(body, clients, seconds, promote)
    after = resident_megabytes(server.pid)
    times = np.array([took for took, _, _ in answers])
    failed = sum(status != 200 for _, status, _ in answers)
    by_version = {uri[-1:]: sum(u == uri for _, _, u in answers) for uri in sorted({u for _, _, u in answers})}
    p50, p95, p99 = np.quantile(times, [0.5, 0.95, 0.99])
    print(f"one client alone: {len(alone)} requests, median {np.median(alone) * 1000:.0f} ms")
    print(
        f"{clients} clients for {seconds:.0f} s: {len(answers)} requests ({len(answers) / seconds:.1f} per second, "
        f"{len(answers) / seconds * np.median(alone):.2f} of what one client alone would get), {failed} failed; "
        f"latency 50 % {p50:.2f} s, 95 % {p95:.2f} s, 99 % {p99:.2f} s"
    )
    print(f"answers by version, promoted in the middle: {by_version}")
    print(f"memory of the server: {before:.0f} MB before, {after:.0f} MB after")


if __name__ == "__main__":
    main()
