"""Evaluated runs as they lie on disk, or in the records.zip that a report keeps of them."""

from __future__ import annotations

import shutil
import tempfile
import weakref
import zipfile
import zlib
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

import pandas as pd

from emseg.errors import InputError, RunError
from emseg.files import atomic_path, writing
from emseg.metrics.scoring import Scores
from emseg.records.calibration import CELLS_FILE
from emseg.records.earlier import AGGLOMERATION_FILE
from emseg.records.evaluation import BASELINES_FILE, METRICS_FILE, SCORES_FILE, Evaluation, read_fitting, scores_of
from emseg.records.record import RunRecord
from emseg.records.run import Run
from emseg.reporting.leaderboard import find_evaluations

_LARGEST_CONTENT = 2**30
"""Bytes of a records.zip, unpacked. Tables compress well, but not without end."""
_MOST_FILES = 50_000
_KEPT = (
    "training/record.json",
    "training/history.csv",
    *(f"evaluation/{name}" for name in (METRICS_FILE, SCORES_FILE, BASELINES_FILE, AGGLOMERATION_FILE)),
    CELLS_FILE,
)
_EPOCH = (1980, 1, 1, 0, 0, 0)
"""Of every file in a records.zip: the earliest that the format knows."""
_UNREADABLE = (OSError, EOFError, ValueError, RuntimeError, zipfile.BadZipFile, zlib.error)


class _Unpacked:
    """A temporary folder, removed with the last run that lies in it."""

    def __init__(self) -> None:
        with writing(tempfile.gettempdir()):
            self.folder = Path(tempfile.mkdtemp(prefix="emseg-records-"))
        weakref.finalize(self, shutil.rmtree, self.folder, ignore_errors=True)


@dataclass(frozen=True)
class EvaluatedRun:
    """One run with its scores; `place` is where it lies below the folder, or in the zip file, that was searched."""

    place: Path
    folder: Path
    record: RunRecord
    run: Run
    evaluation: Evaluation
    table: pd.DataFrame
    unpacked: _Unpacked | None = field(default=None, repr=False, compare=False)

    @property
    def model(self) -> str:
        """The model and, where the run came from a list of jobs, its profile."""
        return f"{self.run.model} ({self.run.profile})" if self.run.profile else self.run.model

    @property
    def variation(self) -> str:
        """What a list of jobs calls this variation of the profile: FAMILY, FAMILY/CHANGE, or nothing."""
        return self.run.variation or ""

    @property
    def scores(self) -> Scores:
        """Scores per section, with the seed."""
        return scores_of(self.evaluation, self.table)


def read_runs(*sources: Path) -> list[EvaluatedRun]:
    """Every evaluated run of `sources`; where two have one at the same place, that of the later source.

    Args:
        sources: folders below which runs are, and zip files that `keep_runs` wrote.

    Raises:
        InputError: a run's files are damaged or missing, or a zip file holds anything but runs.
        RunError: there is no room to unpack a zip file.
    """
    found: dict[Path, tuple[Path, _Unpacked | None, Path]] = {}
    for source in sources:
        unpacked = _unpack(source) if source.is_file() else None
        folder = unpacked.folder if unpacked else source
        for evaluation in find_evaluations(folder):
            found[evaluation.parent.relative_to(folder)] = (evaluation, unpacked, source)
    runs = []
    for place, (evaluation, unpacked, source) in sorted(found.items()):
        try:
            run, evaluated = read_fitting(evaluation)
        except InputError as error:
            if not unpacked:
                raise
            raise InputError(str(error).replace(str(unpacked.folder), str(source))) from error
        record = RunRecord.open(evaluation.parent)
        runs.append(EvaluatedRun(place, evaluation, record, run, evaluated.evaluation, evaluated.table, unpacked))
    return runs


def keep_runs(runs: list[EvaluatedRun], path: Path) -> None:
    """Write `runs` without weights and pictures to a zip file that `read_runs` reads; the same runs, the same bytes.

    Raises:
        InputError, RunError: the file cannot be written, or would be one that `read_runs` refuses.
    """
    files = {
        (run.place / name).as_posix(): file
        for run in runs
        for name in _KEPT
        if (file := run.folder.parent / name).is_file()
    }
    with atomic_path(path) as temporary, zipfile.ZipFile(temporary, "w") as kept:
        for name, file in sorted(files.items()):
            member = zipfile.ZipInfo(name, _EPOCH)
            member.create_system, member.external_attr = 3, 0o644 << 16  # alike on every system
            kept.writestr(member, file.read_bytes(), zipfile.ZIP_DEFLATED, 9)
        if wrong := _wrong(kept.infolist()):
            raise InputError(f"{path} cannot keep these runs: {wrong}")


def _unpack(path: Path) -> _Unpacked:
    """The files of a records.zip; what it says of them is checked before anything is unpacked."""
    unpacked = _Unpacked()
    try:
        with zipfile.ZipFile(path) as kept:
            members = kept.infolist()
            if wrong := _wrong(members):
                raise InputError(f"{path} is not the records of a report: {wrong}")
            for member in members:
                content = kept.read(member)
                target = unpacked.folder / member.filename
                with writing(target):
                    target.parent.mkdir(parents=True, exist_ok=True)
                    target.write_bytes(content)
    except (InputError, RunError):
        raise
    except _UNREADABLE as error:
        reason = " ".join(str(error).split())
        raise InputError(f"{path} is not the records of a report, or is damaged: {reason}") from error
    return unpacked


def _wrong(members: list[zipfile.ZipInfo]) -> str | None:
    if len(members) > _MOST_FILES:
        return f"it holds {len(members):,} files, the most is {_MOST_FILES:,}"
    if len({member.filename for member in members}) < len(members):
        return "it holds a file twice"
    size = sum(member.file_size for member in members)
    if size > _LARGEST_CONTENT:
        return f"unpacked it is {size / 2**20:,.0f} MiB large, the most is {_LARGEST_CONTENT / 2**20:,.0f}"
    for member in members:
        path = PurePosixPath(member.filename)
        is_plain = path.as_posix() == member.filename and member.filename.isprintable()
        is_inside = not path.is_absolute() and not {"..", "\\", ":"} & {*path.parts, *member.filename}
        is_kept = path.name in _KEPT or "/".join(path.parts[-2:]) in _KEPT
        if not (is_plain and is_inside and is_kept):
            return f"it holds {member.filename[:80]!r}, which no report keeps"
        if member.flag_bits & 1 or member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            return f"{member.filename} is encrypted or compressed in an unknown way"
    return None
