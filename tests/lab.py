"""A project as a lab has it: a folder in which the real commands run, small."""

import json
import os
import subprocess
import sys
from pathlib import Path

import yaml

from emseg.settings import merge, read_yaml

TINY = {
    "protocol": {"held_out": 2, "validation": 2},
    "augment": {"count": 8, "separation_limit": 24.0},
    "training": {"epochs": 2, "images_per_epoch": 8, "crop": 32},
    "benchmark": ["weighted_unet", "unet2"],
    "models": {
        "weighted_unet": {"network": {"base_channels": 2, "depth": 2}},
        "unet2": {"network": {"base_channels": 2, "depth": 2}},
    },
}


class Lab:
    """Commands in a project.

    Args:
        folder: the project.
        path: folders to look for commands in first.
        packages: folders to look for packages in first; None: as the tests do.
    """

    def __init__(self, folder, path=(Path(sys.executable).parent,), packages=None):
        self.folder = folder
        self.environment = os.environ | {"DVC_NO_ANALYTICS": "1", "OMP_NUM_THREADS": "1"}
        self.environment["PATH"] = os.pathsep.join([*map(str, path), os.environ["PATH"]])
        self.environment.pop("MLFLOW_TRACKING_URI", None)
        if packages is not None:
            self.environment["PYTHONPATH"] = os.pathsep.join(map(str, packages))

    def begin_repository(self):
        self.run("git", "init", "--quiet", "--initial-branch", "main")
        self.name_committer()

    def name_committer(self):
        self.run("git", "config", "user.email", "test@example.org")
        self.run("git", "config", "user.name", "test")

    def commit(self, message):
        self.run("git", "add", "--all")
        self.run("git", "commit", "--quiet", "--message", message)

    def run(self, *command, code=0, where="."):
        done = subprocess.run(
            [str(part) for part in command],
            cwd=self.folder / where,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=600,
        )
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout + done.stderr

    def json(self, *command):
        """What a command prints for a script to read."""
        done = subprocess.run(command, cwd=self.folder, env=self.environment, capture_output=True, timeout=600)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def change(self, **changes):
        values = read_yaml(self.folder / "params.yaml")
        merge(values, changes)
        (self.folder / "params.yaml").write_text(yaml.dump(values, sort_keys=False))

    def record(self, name):
        return json.loads((self.folder / f"runs/benchmark/{name}/training/record.json").read_text())

    def md5(self, path):
        lock = yaml.safe_load((self.folder / "dvc.lock").read_text())
        return next(
            out["md5"] for stage in lock["stages"].values() for out in stage.get("outs", []) if out["path"] == path
        )
