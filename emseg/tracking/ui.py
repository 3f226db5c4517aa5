"""The MLflow UI on the store."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import suppress

from emseg.text import plain
from emseg.tracking.address import bound
from emseg.tracking.store import asking, connect, project_root, store_name, store_uri

_HOST = "127.0.0.1"


def serve_ui(port: int) -> int:
    """Run MLflow's server on loopback until it is stopped; prints where to look first. Returns its exit code.

    A store that is a server already has its own pages; then it prints where they are.

    Raises:
        InputError: the port is taken.
        RunError: the store refuses.
    """
    is_server = store_uri().startswith(("http://", "https://"))
    if not is_server:
        bound(_HOST, port).close()
    client = connect()
    address = store_name().rstrip("/") if is_server else f"http://{_HOST}:{port}"
    with asking("list its experiments"):
        experiments = [e for e in client.search_experiments() if e.name != "Default"]
    print(f"{address}/#/experiments?workflowType=machine_learning")
    for experiment in experiments:
        print(
            f"  {plain(experiment.name)}: {address}/#/experiments/{experiment.experiment_id}/runs"
            "?workflowType=machine_learning&compareRunsMode=CHART"
        )
    if is_server:
        return 0
    command = [sys.executable, "-m", "mlflow", "server", "--host", _HOST, "--port", str(port), "--workers", "1"]
    environment = os.environ | {
        # Not on the command line, which every user of the machine can read: it may hold a password.
        "MLFLOW_BACKEND_STORE_URI": store_uri(),
        # The job runner costs seven processes, and nothing here uses it.
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "MLFLOW_DISABLE_TELEMETRY": "true",
    }
    # A session of its own: what stops this process stops the server, and all that it started, in order.
    server = subprocess.Popen(command, env=environment, cwd=project_root(), start_new_session=True)
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        return server.wait()
    except KeyboardInterrupt:
        return 0
    finally:
        _stop(server.pid)
        signal.signal(signal.SIGTERM, before)


def _stop(process: int) -> None:
    """End a process and those that it started; who does not end within five seconds is killed."""
    import psutil

    with suppress(psutil.NoSuchProcess):
        server = psutil.Process(process)
        family = [*server.children(recursive=True), server]
        for member in family:
            with suppress(psutil.NoSuchProcess):
                member.terminate()
        for member in psutil.wait_procs(family, timeout=5)[1]:
            with suppress(psutil.NoSuchProcess):
                member.kill()
