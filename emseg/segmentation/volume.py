"""Segment stacks on disk, section by section: bounded memory, and a killed job goes on where it was.

Finished sections are kept in a folder beside the result until all are there; then the result is written in one go
and renamed, so that it is whole or absent.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np

from emseg.data.io.formats import open_sections
from emseg.data.io.metadata import Metadata
from emseg.data.io.sections import Format, Sections
from emseg.data.io.target import hold_target, own_files, partial_of, require_free, result_format, result_names
from emseg.data.io.target import targets_of as targets_of
from emseg.data.normalization import warning_of_difference
from emseg.errors import InputError
from emseg.files import atomic_folder, atomic_path, require_own, write_json
from emseg.segmentation.result import metadata_of_result
from emseg.segmentation.segmenter import OUTPUT_TYPES, Output, Segmenter, read_finite

Report = Callable[[int, int], None]
"""Called with sections done and sections in all."""
_SAMPLED = 3
"""Sections whose grey levels are compared with the training data."""


def segment_file(
    segmenter: Segmenter,
    source: str | Path,
    target: str | Path,
    output: Output = "probability",
    overwrite: bool = False,
    report: Report = lambda done, total: None,
    warn: Callable[[str], None] = lambda sentence: None,
) -> Path:
    """Segment sections in any format into the like of them, or into a TIFF.

    Args:
        segmenter: the model.
        source: what to segment; see `open_sections`.
        target: where the result goes: a folder for a folder, else a file that is named like the source or `.tif`.
            Axes, voxel size and compression are those of the source.
        output: see `Segmenter.segment`.
        overwrite: replace `target` if it is there; a folder only if it holds nothing but an earlier result.
        report: told about every finished section.
        warn: told in a sentence what the user should know: sections that look unlike the training data, gaps in the
            numbers of a folder's files, a compression that is not kept.

    Returns:
        `target`.

    Raises:
        InputError: see `open_sections` and `require_free`; the sections are of another type than the training data
            and look unlike them; another command writes to `target`, or it cannot be written.
        RunError: the disk is full; the same command goes on where it stopped.
    """
    target = Path(target)
    with closing(open_sections(source)) as sections:
        require_free(sections, target, overwrite)
        form = result_format(sections, target)
        metadata, sentence = metadata_of_result(sections, form, output)
        for remark in [*sections.remarks, *([sentence] if sentence else [])]:
            warn(remark)
        _compare_grey_levels(segmenter, sections, warn)
        with _folders_for(target), hold_target(target):
            # Another command may have finished it since.
            require_free(sections, target, overwrite)
            partial = partial_of(target)
            try:
                _segment_missing(segmenter, sections, partial, output, report)
                _assemble(partial, sections, form, metadata, target, output)
            except InputError as error:
                # Bad input stays so, and there is nothing to go on with; what the system refuses may be mended.
                if getattr(error.__cause__, "errno", None) is None:
                    shutil.rmtree(partial, ignore_errors=True)
                raise
            shutil.rmtree(partial, ignore_errors=True)
    return target


def _compare_grey_levels(segmenter: Segmenter, sections: Sections, warn: Callable[[str], None]) -> None:
    sampled = np.linspace(0, len(sections) - 1, min(_SAMPLED, len(sections))).round().astype(int)
    sentences = set()
    for z in sampled:
        # One section at a time: a section may be large.
        with _named(sections):
            sentences.add(segmenter.difference(read_finite(sections.read, int(z))[None]))
    if not (differences := sorted(sentence for sentence in sentences if sentence)):
        return
    if (normalization := segmenter.predictor.normalization) is not None:
        warn(warning_of_difference(differences[0], sections.where, sections.dtype, segmenter.name, normalization))


def _segment_missing(segmenter: Segmenter, sections: Sections, partial: Path, output: Output, report: Report) -> None:
    """Segment what an earlier, killed job has not: one file per section in `partial`."""
    _begin(partial, _identity(segmenter, sections, output))
    missing = {z for z in range(len(sections)) if not _is_whole(partial, z, sections, output)}
    results = segmenter.segment(sections.read, len(sections), output, sorted(missing))
    for z in range(len(sections)):
        if z in missing:
            with _named(sections):
                result = next(results)
            with atomic_path(_finished(partial, z)) as temporary, temporary.open("wb") as stream:
                np.save(stream, result, allow_pickle=False)
        report(z + 1, len(sections))


@contextmanager
def _named(sections: Sections) -> Iterator[None]:
    """A sentence about a section says of which file."""
    try:
        yield
    except InputError as error:
        if str(error).startswith(str(sections.path)):
            raise
        raise InputError(f"{sections.where}, {error}") from error


def _finished(partial: Path, z: int) -> Path:
    return partial / f"{z:06d}.npy"


def _is_whole(partial: Path, z: int, sections: Sections, output: Output) -> bool:
    try:
        found = np.load(_finished(partial, z), mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return False
    return found.shape == sections.shape[1:] and found.dtype == OUTPUT_TYPES[output]


@contextmanager
def _folders_for(target: Path) -> Iterator[None]:
    """Folders that are made for `target` go again when the work is refused."""
    absent = [folder for folder in target.parents if not folder.exists()]
    try:
        yield
    except InputError:
        for folder in absent:
            with suppress(OSError):
                folder.rmdir()
        raise


def _identity(segmenter: Segmenter, sections: Sections, output: str) -> dict[str, Any]:
    path = sections.path
    files = [path] if path.is_file() else sorted(file for file in path.rglob("*") if file.is_file())
    return {
        "model": segmenter.fingerprint,
        "mode": segmenter.predictor.mode,
        "test_time_augmentation": segmenter.predictor.test_time_augmentation,
        "threshold": segmenter.threshold,
        "agglomeration": segmenter.agglomeration and segmenter.agglomeration.as_rules().model_dump(),
        "output": output,
        "array": sections.inner,
        "shape": list(sections.shape),
        "files": [[file.name, file.stat().st_size, file.stat().st_mtime_ns] for file in files],
    }


def _begin(partial: Path, identity: dict[str, Any]) -> None:
    """Keep what an earlier, identical job has finished; drop what another one has."""
    manifest = partial / "job.json"
    with suppress(OSError, ValueError):
        if json.loads(manifest.read_text(encoding="utf-8")) == json.loads(json.dumps(identity)):
            return
    require_own(partial, ("job.json", "*.npy"))
    shutil.rmtree(partial, ignore_errors=True)
    write_json(manifest, identity)


def _assemble(
    partial: Path, sections: Sections, form: Format, metadata: Metadata, target: Path, output: Output
) -> None:
    def result(z: int) -> np.ndarray:
        return np.load(_finished(partial, z), mmap_mode="r", allow_pickle=False)

    assert form.write is not None
    dtype, shape = OUTPUT_TYPES[output], sections.shape
    if sections.kind == "folder":
        with atomic_folder(target, own_files(sections)) as folder:
            for z, name in enumerate(result_names(sections.names)):
                form.write(folder / name, lambda _, z=z: result(z), (1, *shape[1:]), dtype, metadata)  # type: ignore[misc]
    elif form.kind == "zarr":
        with atomic_folder(target, own_files(sections)) as folder:
            form.write(folder, result, shape, dtype, metadata)
    else:
        with atomic_path(target) as temporary:
            form.write(temporary, result, shape, dtype, metadata)
