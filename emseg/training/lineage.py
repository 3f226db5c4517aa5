"""Where a run comes from: commit, data as DVC recorded it, code, packages, machine."""

from __future__ import annotations

import hashlib
import platform
import subprocess
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
import yaml

import emseg

_PACKAGES = ("emseg", "torch", "numpy", "scipy", "scikit-image", "tifffile", "mlflow", "optuna", "dvc")
_CODE_THAT_TRAINS = ("data", "inference", "metrics", "models", "training")
_CODE_AFTER_TRAINING = tuple(
    f"inference/{name}.py" for name in ("regions", "agglomeration", "segmenter", "volume", "target", "result")
)
"""Only ever sees finished networks, so a change to it leaves an unfinished run its epochs."""


def describe_lineage(device: torch.device) -> dict[str, Any]:
    """Commit and dirty flag, DVC hashes, digest of the code, package versions, device."""
    return {
        "git_commit": _git("rev-parse", "HEAD"),
        # dvc.lock is written by the very pipeline that trains; it does not make the code dirty.
        "git_dirty": bool(_git("status", "--porcelain", "--untracked-files=no", "--", ":/", ":!:/dvc.lock")),
        "dvc": dvc_hashes(Path("dvc.lock")),
        "code_digest": code_digest(),
        "packages": {name: found for name in _PACKAGES if (found := _version(name))},
        "python": platform.python_version(),
        "device": _device_name(device),
        "threads": torch.get_num_threads(),
    }


def dvc_hashes(lock: Path) -> dict[str, str]:
    """MD5 of the data folders, as dvc.lock has them: {path: md5}; empty without a lock."""
    if not lock.is_file():
        return {}
    stages = (yaml.safe_load(lock.read_text(encoding="utf-8")) or {}).get("stages", {})
    return {
        out["path"]: out["md5"]
        for name, stage in stages.items()
        if name in ("prepare", "augment")
        for out in stage.get("outs", [])
        if "md5" in out
    }


@lru_cache
def code_digest() -> str:
    """SHA-256 over the source files that decide what weights come out."""
    digest = hashlib.sha256()
    root = Path(emseg.__file__).parent
    for room in _CODE_THAT_TRAINS:
        for file in sorted((root / room).glob("*.py")):
            name = file.relative_to(root).as_posix()
            if name not in _CODE_AFTER_TRAINING:
                digest.update(name.encode())
                digest.update(file.read_bytes())
    return digest.hexdigest()[:32]


def _git(*arguments: str) -> str | None:
    try:
        done = subprocess.run(["git", *arguments], capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _device_name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    try:
        models = [
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
            if line.startswith("model name")
        ]
    except OSError:
        models = []
    return f"{models[0] if models else platform.processor() or platform.machine()}, {len(models) or '?'} cores"
