"""Where a run comes from: commit, data as DVC recorded it, code, packages, machine."""

from __future__ import annotations

import configparser
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING

import yaml

import emseg
from emseg.errors import InputError
from emseg.records.code import PACKAGE, code_digest
from emseg.records.run import Lineage
from emseg.text import without_secrets

if TYPE_CHECKING:
    from emseg.models.own import NetworkFile

_PACKAGES = ("emseg", "torch", "numpy", "scipy", "scikit-image", "tifffile", "mlflow", "optuna", "dvc")


def describe_lineage(device: str, threads: int, networks: NetworkFile | None = None) -> Lineage:
    """Commit, where it and the data can be had, digest of the code, package versions, device.

    Args:
        device: what it runs on.
        threads: of PyTorch.
        networks: the project's file that the network comes from.
    """
    repository = git("rev-parse", "--show-toplevel")
    found = {
        "git_commit": git("rev-parse", "HEAD"),
        "git_dirty": _is_dirty(networks),
        "git_remote": _git_remote(),
        "git_folder": _folder_in_repository(),
        "dvc": dvc_hashes(Path("dvc.lock")),
        "dvc_remote": _dvc_remote(Path(".dvc")),
        "emseg": emseg.__version__,
        "code_digest": code_digest(),
        "code_in_project": repository is not None and PACKAGE.resolve().parent == Path(repository).resolve(),
        "networks_file": networks.name if networks else None,
        "networks_sha256": networks.sha256 if networks else None,
        "packages": {name: found for name in _PACKAGES if (found := _version(name))},
        "python": platform.python_version(),
        "device": device,
        "threads": threads,
    }
    return Lineage.model_validate(found)


def dvc_hashes(lock: Path) -> dict[str, str]:
    """MD5 of the data folders, as dvc.lock has them: {path: md5}; empty without a lock.

    Raises:
        InputError: it is damaged.
    """
    if not lock.is_file():
        return {}
    try:
        stages = (yaml.safe_load(lock.read_text(encoding="utf-8")) or {}).get("stages", {})
        return {
            out["path"]: out["md5"]
            for name, stage in stages.items()
            if name in ("prepare", "augment")
            for out in stage.get("outs", [])
            if "md5" in out
        }
    except (AttributeError, KeyError, TypeError, ValueError, yaml.YAMLError) as error:
        raise InputError(f"{lock} is damaged; bring it back with `git checkout {lock}`") from error


def _folder_in_repository() -> str | None:
    prefix = git("rev-parse", "--show-prefix")
    # A project that git ignores is in no clone.
    return None if prefix is None or git("check-ignore", "params.yaml") is not None else prefix.rstrip("/")


def _is_dirty(networks: NetworkFile | None) -> bool:
    # dvc.lock is written by the very pipeline that trains; it does not make the code dirty.
    known = ("status", "--porcelain", "--untracked-files=no", "--", ":/", ":(exclude,top,glob)**/dvc.lock")
    own = networks is not None and git("status", "--porcelain", "--ignored", "--", networks.name)
    return bool(git(*known) or own)


def _git_remote() -> str | None:
    names = (git("remote") or "").split()
    if not names:
        return None
    return _address(git("remote", "get-url", "origin" if "origin" in names else names[0]))


def _dvc_remote(folder: Path) -> str | None:
    """URL of the default remote in the configuration of DVC's project; None: there is none."""
    config = configparser.ConfigParser(interpolation=None, strict=False)
    try:
        config.read([folder / "config", folder / "config.local"], encoding="utf-8")
    except (configparser.Error, UnicodeDecodeError):
        return None
    name = config.get("core", "remote", fallback="").strip("'\"")
    sections = (f"'remote \"{name}\"'", f'remote "{name}"')
    found = next((config.get(section, "url", fallback=None) for section in sections if section in config), None)
    return _address(found) if name else None


def _address(url: str | None) -> str | None:
    """A URL without user and password, but for the user of ssh, who is no secret and needed."""
    if url is None:
        return None
    return "ssh://git@" + url.removeprefix("ssh://git@") if url.startswith("ssh://git@") else without_secrets(url)


def git(*arguments: str) -> str | None:
    """What git prints in the current folder; None where it fails, or there is none."""
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
