"""Where artifacts of a local store lie: beside its database, also after the folder was moved or copied.

MLflow writes absolute paths to the database, of the folder that the first command happened to run in.
"""

from __future__ import annotations

import os
import re
import sqlite3
from contextlib import closing
from pathlib import Path
from urllib.parse import unquote, urlsplit

_SQLITE = "sqlite:///"
_COLUMNS = (
    ("runs", "artifact_uri"),
    ("logged_models", "artifact_location"),
    ("model_versions", "storage_location"),
    ("model_versions", "source"),
    ("experiments", "artifact_location"),
)
"""Where the database holds paths."""
_PROOF = 2
"""So many of these columns name folders that are of one run or model alone: found elsewhere, they were moved."""


def database_file(uri: str) -> Path | None:
    """The file of a SQLite store; None for a store of another kind."""
    return Path(uri.removeprefix(_SQLITE)) if uri.startswith(_SQLITE) else None


def artifact_location(uri: str, experiment: str) -> str | None:
    """Where the artifacts of a new experiment go: beside a local database; None: a server decides."""
    if (database := database_file(uri)) is None:
        return None
    folder = re.sub(r"[^\w.-]", "-", experiment).lstrip(".")
    return (database.resolve().parent / "mlruns" / folder).as_uri()


def follow_moved_artifacts(database: Path) -> None:
    """Where runs and models lie beside the database but are recorded elsewhere, record where they are.

    Paths that lead to files which did not come along stay as they are.
    """
    here = database.resolve().parent
    if not database.is_file() or not os.access(database, os.W_OK):
        return
    with closing(sqlite3.connect(database, timeout=60)) as connection:
        tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        columns = [column for column in _COLUMNS if column[0] in tables]
        for origin in _origins(connection, [column for column in columns if column in _COLUMNS[:_PROOF]], here):
            for table, column in columns:
                _rewrite(connection, table, column, origin, here)
        connection.commit()


def _origins(connection: sqlite3.Connection, columns: list[tuple[str, str]], here: Path) -> list[Path]:
    """Folders that recorded paths begin with whose continuation is found below `here`, the longest first."""
    origins: set[Path] = set()
    for table, column in columns:
        for (location,) in connection.execute(f"SELECT DISTINCT {column} FROM {table}"):
            path = _local_path(location)
            if path is None or path.is_relative_to(here) or any(path.is_relative_to(origin) for origin in origins):
                continue
            # The folder of one run or model: its name is in no other store.
            own = path.parent if path.name == "artifacts" else path
            found = next((p for p in own.parents if (here / own.relative_to(p)).is_dir() and p != own.parent), None)
            if found is not None:
                origins.add(found)
    return sorted(origins, key=lambda origin: -len(origin.parts))


def _rewrite(connection: sqlite3.Connection, table: str, column: str, origin: Path, here: Path) -> None:
    for before, after in ((origin.as_uri(), here.as_uri()), (str(origin), str(here))):
        # What is here already may begin like the origin: a copy that lies inside the original.
        connection.execute(
            f"UPDATE {table} SET {column} = ? || substr({column}, ?) "
            f"WHERE substr({column}, 1, ?) = ? AND substr({column}, 1, ?) != ?",
            (after, len(before) + 1, len(before) + 1, f"{before}/", len(after) + 1, f"{after}/"),
        )


def _local_path(location: str | None) -> Path | None:
    if not location:
        return None
    if location.startswith("/"):
        return Path(location)
    parts = urlsplit(location)
    return Path(unquote(parts.path)) if parts.scheme == "file" and not parts.netloc else None
