"""manifest.json: what an exported folder holds, so that a changed, missing or added file is known before it is read."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from emseg.errors import InputError
from emseg.files import foreign_files
from emseg.records.checked import file_digest, read_checked, write_checked
from emseg.records.run import RecordPart
from emseg.text import plain

MANIFEST_FILE = "manifest.json"
_REMEDY = "export the model again (emseg export)"
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class Manifest(RecordPart):
    """What an exported folder is.

    Attributes:
        name: of the run that the model was trained in, such as unet2-fold0-seed0.
        version: of the registry that it was, such as models:/cortex/3; None: it came from a run folder.
        digest: of the package, as `package_digest` gives it.
        files: SHA-256 of each file by its name.
        needs: what a machine must have besides emseg, in a sentence; None: nothing.
    """

    format: Literal[1] = 1
    name: str
    version: str | None
    digest: Sha256
    files: dict[str, Sha256]
    needs: str | None


def is_exported(folder: Path) -> bool:
    """Whether a folder was made by `emseg export`, or was and lost its manifest."""
    # A run keeps its check nowhere; only packages have one.
    return any((folder / name).exists() for name in (MANIFEST_FILE, "check.npz"))


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write manifest.json into an exported folder."""
    write_checked(folder / MANIFEST_FILE, manifest)


def digests_of_files(folder: Path, names: list[str]) -> dict[str, str]:
    """SHA-256 of each of these files."""
    return {name: file_digest(folder / name) for name in names}


def require_manifest(folder: Path, names: list[str]) -> Manifest:
    """The manifest of an exported folder, which holds the files that it names as they were, and no others.

    Args:
        folder: that was exported.
        names: of the files that such a folder has, besides the manifest.

    Raises:
        InputError: it has no manifest, or a damaged one; or a file was changed, is missing or was added.
    """
    manifest = read_checked(folder / MANIFEST_FILE, Manifest, _REMEDY)[0]
    if sorted(manifest.files) != sorted(names):
        raise InputError(f"{folder / MANIFEST_FILE} is damaged (it names other files than a model has); {_REMEDY}")
    if added := foreign_files(folder, [*names, MANIFEST_FILE]):
        raise InputError(f"{folder} holds {plain(added[0])}, which was not exported; remove it, or {_REMEDY}")
    for name in names:
        if not (folder / name).is_file():
            raise InputError(f"{folder} lacks {name}; {_REMEDY}")
        if file_digest(folder / name) != manifest.files[name]:
            raise InputError(f"{folder / name} is not as it was exported; do not use it, {_REMEDY}")
    return manifest
