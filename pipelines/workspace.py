"""A benchmark on other data or with another profile, in a folder of its own, so that git sees no change.

    python -m pipelines.workspace isbi2012 quick      prints workspaces/isbi2012-quick

The folder gets params.yaml with the profile laid over it, the same stages, and links to code and data; it
shares DVC's cache with the project.
"""

import argparse
import shutil
from pathlib import Path

from emseg.files import write_text
from emseg.settings import profile_values, validate_settings
from emseg.settings_file import as_yaml
from pipelines.stage import run_stage

_LINKED = ("emseg", "pipelines", "data/sources")


def make_workspace(project: Path, data: str, profile: str) -> Path:
    """Write or refresh the workspace of `data` and `profile`, and return its folder.

    Raises:
        InputError: there is no such profile, or the profile does not fit the settings.
    """
    values = profile_values(project, profile, {"data": {"source": data}})
    validate_settings(values, f"profiles.yaml, {profile}: ")
    folder = project / "workspaces" / f"{data}-{profile}"
    write_text(folder / "params.yaml", as_yaml(values))
    shutil.copy(project / "dvc.yaml", folder / "dvc.yaml")
    shutil.copy(project / ".dvcignore", folder / ".dvcignore")
    write_text(
        folder / ".dvc" / "config",
        "[core]\n    no_scm = true\n    analytics = false\n    check_update = false\n"
        f"[cache]\n    dir = {project.resolve() / '.dvc' / 'cache'}\n",
    )
    for name in _LINKED:
        link = folder / name
        link.parent.mkdir(parents=True, exist_ok=True)
        if not link.is_symlink():
            link.symlink_to((project / name).resolve(), target_is_directory=True)
    return folder


def main() -> None:
    """Make the workspace named on the command line and print its folder."""
    parser = argparse.ArgumentParser()
    parser.add_argument("data")
    parser.add_argument("profile")
    arguments = parser.parse_args()
    print(make_workspace(Path(), arguments.data, arguments.profile))


if __name__ == "__main__":
    run_stage(main)
