"""The MLflow UI on the store."""

from __future__ import annotations

import os
import subprocess
import sys

from emseg.tracking.store import connect, project_root, store_uri


def serve_ui(port: int) -> int:
    """Run MLflow's server on loopback until it is stopped; prints where to look first. Returns its exit code."""
    client = connect()
    experiments = [e for e in client.search_experiments() if e.name != "Default"]
    print(f"http://127.0.0.1:{port}/#/experiments?workflowType=machine_learning")
    for experiment in experiments:
        print(
            f"  {experiment.name}: http://127.0.0.1:{port}/#/experiments/{experiment.experiment_id}/runs"
            "?workflowType=machine_learning&compareRunsMode=CHART"
        )
    command = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", store_uri()]
    command += ["--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    # The job runner costs seven processes, and nothing here uses it.
    environment = os.environ | {
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "MLFLOW_DISABLE_TELEMETRY": "true",
    }
    try:
        return subprocess.run(command, env=environment, cwd=project_root(), check=False).returncode
    except KeyboardInterrupt:
        return 0
