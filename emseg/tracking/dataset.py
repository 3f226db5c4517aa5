"""The labelled sections as an MLflow dataset: a digest of all their bytes, and where DVC keeps them."""

from __future__ import annotations

import tempfile
from typing import Any

from mlflow.data.dataset_source import DatasetSource


class PreparedDatasetSource(DatasetSource):
    """A folder that DVC versions.

    Args:
        path: of the folder in the repository.
        md5: DVC's hash of it, where dvc.lock had one.
        revision: git commit.
        name: of the data.
    """

    def __init__(self, path: str, md5: str | None, revision: str | None, name: str) -> None:
        self.path, self.md5, self.revision, self.name = path, md5, revision, name

    @staticmethod
    def _get_source_type() -> str:
        return "dvc"

    @staticmethod
    def _can_resolve(raw_source: Any) -> bool:
        return False

    @classmethod
    def _resolve(cls, raw_source: Any) -> PreparedDatasetSource:
        raise NotImplementedError("make it from a run record")

    def load(self) -> str:
        """Fetch the folder from DVC into a temporary one and return its path."""
        from dvc.api import DVCFileSystem

        target = tempfile.mkdtemp()
        DVCFileSystem(rev=self.revision).get(self.path, target, recursive=True)
        return target

    def to_dict(self) -> dict[str, Any]:
        """The source as plain values."""
        return {key: value for key, value in vars(self).items() if value is not None}

    @classmethod
    def from_dict(cls, source_dict: dict[str, Any]) -> PreparedDatasetSource:
        """The source from plain values."""
        return cls(
            source_dict["path"],
            source_dict.get("md5"),
            source_dict.get("revision"),
            source_dict.get("name", ""),
        )
