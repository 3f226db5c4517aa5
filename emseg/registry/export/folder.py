"""A model as a folder, with which `emseg predict --model FOLDER` works on a machine without a registry."""

from __future__ import annotations

import shutil
from pathlib import Path

from emseg.files import atomic_folder
from emseg.registry.export.model import ModelToExport
from emseg.registry.manifest import MANIFEST_FILE, Manifest, digests_of_files, write_manifest
from emseg.registry.package import PACKAGE_FILES


def write_folder(model: ModelToExport, folder: Path) -> None:
    """Write the files of a model's package with a manifest of their digests.

    Raises:
        InputError: the folder is there and holds files that emseg did not write.
        RunError: the disk is full.
    """
    names = list(PACKAGE_FILES)
    with atomic_folder(folder, [*names, MANIFEST_FILE]) as temporary:
        for name in names:
            shutil.copyfile(model.package / name, temporary / name)
        files = digests_of_files(temporary, names)
        write_manifest(
            temporary,
            Manifest.model_validate(
                {
                    "name": model.run.name,
                    "version": model.version,
                    "digest": model.digest,
                    "files": files,
                    "needs": model.needs,
                }
            ),
        )
