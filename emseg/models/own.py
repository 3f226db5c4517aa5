"""Networks of a project's own: the file that `code` in params.yaml names."""

from __future__ import annotations

import hashlib
import sys
import traceback
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from emseg.errors import InputError
from emseg.models.catalog import forget_models, list_models
from emseg.settings import read_yaml

_MODULE = "emseg_project_networks"


@dataclass(frozen=True)
class NetworkFile:
    """A file of the project, as it was when it registered its networks."""

    name: str
    """From the project's folder."""
    sha256: str


_loaded: dict[str, NetworkFile] = {}
"""Name of a network to the file that registered it; one file at a time."""


def load_networks(code: str, project: Path = Path()) -> NetworkFile:
    """Run the file `code` of a project, which registers its networks by `emseg.models.register_model`.

    A file that was run before and has not changed since is not run again; the networks of another are forgotten.

    Raises:
        InputError: it is missing, is no Python, fails, or registers nothing.
    """
    path = project / code
    try:
        source = path.read_bytes()
    except OSError as error:
        raise InputError(
            f"{path}, which params.yaml names as code, cannot be read ({(error.strerror or str(error)).lower()}); "
            "bring it back, or set code: null"
        ) from error
    file = NetworkFile(code, hashlib.sha256(source).hexdigest())
    if file in _loaded.values():
        return file
    forget_models(list(_loaded))
    _loaded.clear()
    known = set(list_models())
    try:
        _run(source, path)
    except BaseException:
        forget_models([name for name in list_models() if name not in known])
        raise
    names = [name for name in list_models() if name not in known]
    if not names:
        raise InputError(f"{path} registers no network; call emseg.models.register_model in it, or set code: null")
    _loaded.update(dict.fromkeys(names, file))
    return file


def origin_of(model: str) -> NetworkFile | None:
    """The file of the project that registered a network; None: it is emseg's or another package's."""
    return _loaded.get(model)


def require_networks_of_project(model: str, sha256: str) -> NetworkFile:
    """Load the current project's own networks for a trained one.

    Args:
        model: name of the trained network.
        sha256: of the file it was trained with.

    Returns:
        The file, which may have changed since.

    Raises:
        InputError: params.yaml in the current folder names no file that registers it.
    """
    settings = Path("params.yaml")
    code = read_yaml(settings).get("code") if settings.is_file() else None
    file = load_networks(code) if isinstance(code, str) else None
    if file is None or origin_of(model) is None:
        raise InputError(
            f"the network {model} comes from a file of the project that it was trained in (SHA-256 {sha256[:12]}); "
            "run this in that project, where `code` in params.yaml names the file"
        )
    return file


def _run(source: bytes, path: Path) -> None:
    module = ModuleType(_MODULE)
    module.__file__ = str(path)
    # Classes look up their module by name.
    sys.modules[_MODULE] = module
    try:
        exec(compile(source, str(path), "exec"), vars(module))
    except SyntaxError as error:
        raise InputError(f"{error.filename}, line {error.lineno}: {error.msg}") from error
    except (Exception, SystemExit) as error:
        lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
        place = f"{path}, line {lines[-1]}" if lines else str(path)
        raise InputError(f"{place}: {type(error).__name__}: {error}") from error
