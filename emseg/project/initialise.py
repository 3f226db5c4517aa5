"""Begin a project: settings, pipeline and ignore files in a folder, with nothing overwritten."""

from __future__ import annotations

import os
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

import emseg
from emseg.data.sources import SOURCES_FOLDER, require_source_name
from emseg.errors import InputError
from emseg.files import write_text
from emseg.project.code_file import CODE_FILE, holds_package, read_code_file, stale_stages, write_code_file
from emseg.records.code import DECIDES
from emseg.settings import merge
from emseg.settings.commented import change_settings
from emseg.settings.file import profile_of, read_file

_TEMPLATES = {name: name for name in ("README.md", "params.yaml", "profiles.yaml", "dvc.yaml", ".gitignore")} | {
    ".dvcignore": ".dvcignore",
    "networks.py": "networks.py.example",
}
"""File of a project to the file that it begins as."""
_NETWORKS = "networks.py"
_PLACEHOLDER = SOURCES_FOLDER / "synthetic" / ".gitkeep"
_DVC_CONFIG = """\
[core]
    analytics = false
    check_update = false
"""
_NO_GIT = "    no_scm = true\n"
_DVC_IGNORED = "/config.local\n/tmp\n/cache\n"
_UNUSABLE = re.compile(r"[\x00-\x1f?]")


@dataclass(frozen=True)
class Initialised:
    """What `initialise` did."""

    written: list[str]
    kept: list[str]
    """What was there before and differs from what would have been written."""
    stale: list[str] | None
    """Stages whose code is another than code.yaml said; None: it said nothing yet, or emseg lies in the project."""
    notes: list[str]


def initialise(folder: Path, data: str | None = None, profile: str | None = None) -> Initialised:
    """Write what a project needs to a folder; a file that is there stays as it is, except code.yaml.

    Args:
        folder: made if it is not there.
        data: name of the labelled sections; None: as params.yaml has it.
        profile: of profiles.yaml; None: params.yaml as it is.

    Raises:
        InputError: there is no such profile, the name cannot be one of data, something is in the way, or the folder
            cannot be written to. Nothing is written then.
    """
    _require_usable(folder)
    noted = read_code_file(folder)
    files = _files(folder, data, profile)
    notes = []
    for name in (*files, CODE_FILE):
        _require_place(folder, folder / name)
    kept = [name for name, text in files.items() if (folder / name).exists() and _differs(folder / name, text)]
    written = [name for name in files if not (folder / name).exists()]
    for name in written:
        write_text(folder / name, files[name])
    stale = None
    if not holds_package(folder):
        stale = None if noted is None else stale_stages(noted)
        write_code_file(folder)
        written += [CODE_FILE] if noted is None else []
    if ".gitignore" in kept and (lacking := _lacking(folder / ".gitignore", files[".gitignore"])):
        notes.append(f".gitignore lacks {' '.join(lacking)}")
    if ".dvc/config" in kept and _NO_GIT.strip() in (folder / ".dvc/config").read_text() and _is_in_git(folder):
        notes.append("DVC works without git here; `dvc config --unset core.no_scm` lets it use the repository")
    if "params.yaml" in kept and (data or profile):
        notes.append("params.yaml was there, so --data and --profile changed nothing")
    return Initialised(written, kept, stale, notes)


def render_pipeline(template: str, in_repository: bool) -> str:
    """dvc.yaml for a project.

    Args:
        template: dvc.yaml of a project that emseg is installed for: its code is in code.yaml and networks.py.
        in_repository: whether emseg lies in the project's folder; DVC then depends on its files.
    """
    if not in_repository:
        return template
    for stage, parts in DECIDES.items():
        begin = template.index(f"  {stage}:\n")
        end = template.find("\n\n", begin)
        block = template[begin:end]
        block = block.replace(f"    params: [{CODE_FILE}: [{stage}]]\n", "").replace(f"{CODE_FILE}: [{stage}], ", "")
        block = re.sub(rf"      - {_NETWORKS}.*\n", "", block)
        code = "".join(f"      - emseg/{part}\n" for part in parts)
        template = template[:begin] + block.replace("    deps:\n", f"    deps:\n{code}") + template[end:]
    return template


def templates() -> Path:
    """The folder of what a project begins with: part of the package, beside it in its repository."""
    packaged = Path(__file__).parent / "templates"
    return packaged if packaged.is_dir() else Path(emseg.__file__).parents[1] / "pipelines"


def _files(folder: Path, data: str | None, profile: str | None) -> dict[str, str]:
    """What a project holds at first: file to text."""
    place = templates()
    files = {name: (place / template).read_text(encoding="utf-8") for name, template in _TEMPLATES.items()}
    changes = profile_of(place, profile) if profile is not None else {}
    if data is not None:
        require_source_name(data)
        merge(changes, {"data": {"source": data}})
    if changes:
        files["params.yaml"] = change_settings(files["params.yaml"], changes, "params.yaml")
    in_repository = holds_package(folder)
    files["dvc.yaml"] = render_pipeline(files["dvc.yaml"], in_repository)
    if in_repository:
        del files[_NETWORKS]
    files[_PLACEHOLDER.as_posix()] = ""
    files[".dvc/config"] = _DVC_CONFIG + ("" if _is_in_git(folder) else _NO_GIT)
    files[".dvc/.gitignore"] = _DVC_IGNORED
    return files


def _require_usable(folder: Path) -> None:
    name = str(folder.resolve())
    if found := _UNUSABLE.search(name):
        raise InputError(
            f"{folder} cannot hold a project: MLflow's database takes no {found[0]!r} in the names of folders; "
            "choose another"
        )
    try:
        name.encode()
    except UnicodeEncodeError:
        raise InputError(f"{folder} cannot hold a project: its name is not UTF-8; choose another") from None


def _require_place(folder: Path, file: Path) -> None:
    """Refuse a place where a file can neither be nor be made."""
    if file.is_symlink() and not file.exists():
        raise InputError(f"{file} is a link that leads nowhere; remove it")
    if file.exists() and not file.is_file():
        raise InputError(f"{file} is in the way: it is not a file; move it")
    for parent in file.parents:
        if parent.is_dir():
            if not os.access(parent, os.W_OK | os.X_OK):
                raise InputError(f"{parent} cannot be written to; mend its permissions, or choose another folder")
            return
        if parent.exists() or parent.is_symlink():
            raise InputError(f"{parent} is in the way: it is not a folder; move it, or choose another folder")


def _differs(file: Path, text: str) -> bool:
    return read_file(file).replace(b"\r\n", b"\n") != text.encode()


def _lacking(file: Path, text: str) -> list[str]:
    known = set(file.read_text(encoding="utf-8", errors="replace").split("\n"))
    return [line for line in text.split("\n") if line and not line.startswith("#") and line not in known]


def _is_in_git(folder: Path) -> bool:
    """Whether git would keep what is written there: it lies in a work tree, and is not ignored."""
    place = next(parent for parent in (folder, *folder.resolve().parents) if parent.is_dir())
    inside = _git(place, "rev-parse", "--is-inside-work-tree")
    if inside is None or inside.stdout.strip() != "true":
        return False
    ignored = _git(place, "check-ignore", "--quiet", "--", str(folder.resolve() / "params.yaml"))
    return ignored is not None and ignored.returncode == 1


def _git(place: Path, *arguments: str) -> subprocess.CompletedProcess[str] | None:
    try:
        return subprocess.run(["git", "-C", str(place), *arguments], capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.SubprocessError):
        return None
