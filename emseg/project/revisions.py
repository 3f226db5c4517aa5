"""The labelled sections of a project as they were: data/prepared at a revision of git, from DVC's cache."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from emseg.data.sources import PREPARED_FOLDER, Source, read_source
from emseg.errors import InputError
from emseg.records.lineage import git


def sections_at(revision: str) -> Source:
    """Read data/prepared of the project in the current folder, as dvc.lock names it at a revision.

    What is not in DVC's cache is looked for on its remote. Neither the cache nor the working tree changes.

    Args:
        revision: a commit, a branch, a tag, HEAD~1.

    Raises:
        InputError: there is no such revision, data/prepared was not there or cannot be had, or DVC is not installed.
    """
    top = git("rev-parse", "--show-toplevel")
    commit = git("rev-parse", "--verify", "--quiet", "--end-of-options", f"{revision}^{{commit}}")
    if top is None or commit is None:
        why = "which is in no git repository" if top is None else "such as HEAD, a tag or a commit"
        raise InputError(f"{revision} is neither a folder nor a revision of this project, {why}")
    place = "/" + (git("rev-parse", "--show-prefix") or "") + PREPARED_FOLDER.as_posix()
    files = _files_at(top, commit)
    known: Any = {}
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / PREPARED_FOLDER.name
        try:
            known = files.info(place)
            if known.get("md5"):
                files.get(place, str(target), recursive=True)
        except Exception as error:  # DVC's own, those of its index, of git and of the storage of a remote
            if known.get("md5"):
                raise InputError(
                    f"{PREPARED_FOLDER} of {revision} is neither in DVC's cache nor on a remote that can be reached; "
                    f"`dvc push` where it was made, and `dvc pull` in a checkout of {revision}, bring it here"
                ) from error
        if not known.get("md5"):
            raise InputError(
                f"{revision} has no {PREPARED_FOLDER}: its dvc.lock does not name it; `dvc repro prepare` and a commit "
                "of dvc.lock keep a version"
            )
        return read_source(target, revision)


def _files_at(repository: str, commit: str) -> Any:
    """The files of git and of DVC at a commit; projects may lie in folders of the repository."""
    try:
        from dvc.api import DVCFileSystem
    except ImportError as error:
        raise InputError("versions of data are kept by DVC; `pip install emseg[versioning]` to read them") from error
    return DVCFileSystem(repository, rev=commit, subrepos=True)
