"""Puts the files of `pipelines`, which `emseg init` lays down, into the package; all else is in pyproject.toml."""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py


class BuildWithTemplates(build_py):
    """Copies them when a wheel is built; an editable installation reads them where they are."""

    def run(self) -> None:
        """Build."""
        super().run()
        if not self.editable_mode:
            shutil.copytree(Path("pipelines"), Path(self.build_lib, "emseg/project/templates"), dirs_exist_ok=True)


setup(cmdclass={"build_py": BuildWithTemplates})
