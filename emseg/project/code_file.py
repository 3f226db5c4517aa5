"""code.yaml: which emseg a project was last run with, so that DVC sees where another one would give other results."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import emseg
from emseg.errors import InputError
from emseg.files import write_text
from emseg.records.code import DECIDES, PACKAGE, code_digests
from emseg.settings.file import as_yaml, read_yaml

CODE_FILE = "code.yaml"
_HEADER = """\
# The emseg that this project's results are of, and a digest of its code for each stage of the pipeline. `emseg init`
# writes this file; commit it. After another emseg was installed, run `emseg init` again: what is stale then runs again.
"""


def holds_package(project: Path) -> bool:
    """Whether emseg itself lies in the project's folder, so that DVC depends on its files instead of code.yaml."""
    return PACKAGE.resolve().parent == project.resolve()


def installed_code() -> dict[str, str]:
    """What code.yaml should say."""
    return {"emseg": emseg.__version__, **code_digests()}


def read_code_file(project: Path) -> dict[str, Any] | None:
    """What code.yaml says; None: there is none.

    Raises:
        InputError: it is damaged.
    """
    file = project / CODE_FILE
    return read_yaml(file) if file.is_file() else None


def write_code_file(project: Path) -> None:
    """Write code.yaml for the emseg that runs."""
    write_text(project / CODE_FILE, _HEADER + as_yaml(installed_code()))


def require_noted_code(project: Path) -> None:
    """Refuse to work with an emseg that DVC does not know of.

    Raises:
        InputError: code.yaml was written for another one, or is damaged; or the project has an emseg of its own.
    """
    own = project / PACKAGE.name
    if (own / "records" / "code.py").is_file() and code_digests(own) != code_digests():
        raise InputError(
            f"DVC depends on the emseg in this folder, but {PACKAGE} runs; activate the environment of this "
            "folder, which `make environment` makes"
        )
    noted = read_code_file(project)
    if noted is None or noted == installed_code():
        return
    version = noted.get("emseg")
    which = f"emseg {version}" if version != emseg.__version__ else f"other code of emseg {version}"
    raise InputError(
        f"{CODE_FILE} notes {which}, not the emseg {emseg.__version__} that is installed; run `emseg init` to note it; "
        "what is stale then runs again"
    )


def stale_stages(noted: dict[str, Any]) -> list[str]:
    """The stages whose code is not what code.yaml says; those that read their results follow where these change.

    Args:
        noted: what `read_code_file` gives.
    """
    installed = code_digests()
    return [stage for stage in DECIDES if noted.get(stage) != installed[stage]]
