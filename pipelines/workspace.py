"""A benchmark on other data or with another profile, in a folder of its own, so that git sees no change.

    python -m pipelines.workspace isbi2012 quick      prints workspaces/isbi2012-quick

The folder gets params.yaml with the profile laid over it, the same stages, and links to code and data; it
shares DVC's cache with the project.
"""

import argparse
import os
import shutil
from pathlib import Path

from emseg.errors import InputError
from emseg.files import write_text
from emseg.settings import profile_values, validate_settings
from emseg.settings_file import as_yaml
from pipelines.stage import run_stage

# DVC reads paths from the folder of its config on.
_DVC_CONFIG = """[core]
    no_scm = true
    analytics = false
    check_update = false
[cache]
    dir = ../../../.dvc/cache
"""
_LINKED = ("emseg", "pipelines", "data/sources")


def make_workspace(project: Path, data: str, profile: str) -> Path:
    """Write or refresh the workspace of `data` and `profile`, and return its folder.

    Raises:
        InputError: there is no such profile, it does not fit the settings, or a copy stands where a link belongs.
    """
    values = profile_values(project, profile, {"data": {"source": data}})
    validate_settings(values, f"profiles.yaml, {profile}: ")
    folder = project / "workspaces" / f"{data}-{profile}"
    write_text(folder / "params.yaml", as_yaml(values))
    shutil.copy(project / "dvc.yaml", folder / "dvc.yaml")
    shutil.copy(project / ".dvcignore", folder / ".dvcignore")
    write_text(folder / ".dvc" / "config", _DVC_CONFIG)
    for name in _LINKED:
        _link(folder / name, Path(os.path.relpath(project / name, (folder / name).parent)))
    return folder


def _link(link: Path, target: Path) -> None:
    """Make `link` point to `target`, which is relative, so that it stays right where the project is moved or copied."""
    link.parent.mkdir(parents=True, exist_ok=True)
    if link.is_symlink() and link.readlink() == target:
        return
    if link.exists() and not link.is_symlink():
        raise InputError(f"{link} is no link into the project but a copy; remove it and run the same command again")
    link.unlink(missing_ok=True)
    link.symlink_to(target, target_is_directory=True)


def main() -> None:
    """Make the workspace named on the command line and print its folder."""
    parser = argparse.ArgumentParser()
    parser.add_argument("data")
    parser.add_argument("profile")
    arguments = parser.parse_args()
    print(make_workspace(Path(), arguments.data, arguments.profile))


if __name__ == "__main__":
    run_stage(main)
