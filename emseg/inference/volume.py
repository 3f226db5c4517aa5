"""Segment stacks on disk, section by section: bounded memory, and a killed job goes on where it was.

Finished sections are kept in a folder beside the result until all are there; then the result is written in one go
and renamed, so that it is whole or absent.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from emseg.data.sections import Sections, open_sections
from emseg.errors import InputError
from emseg.files import atomic_folder, atomic_path, write_json
from emseg.inference.segmenter import OUTPUT_TYPES, Output, Segmenter

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
    """Segment a TIFF stack, a folder of sections, one image or a Zarr array into the like of it.

    Args:
        segmenter: the model.
        source: what to segment.
        target: where the result goes: a .tif for a TIFF or an image, a folder for a folder, a .zarr for a Zarr array.
            Axes, resolution and compression are those of the source.
        output: see `Segmenter.segment`.
        overwrite: replace `target` if it exists.
        report: told about every finished section.
        warn: told in a sentence when the sections look unlike the training data.

    Returns:
        `target`.

    Raises:
        InputError: see `open_sections`; or `target` exists, is of the wrong kind, or cannot be written.
    """
    source, target = Path(source), Path(target)
    if target.exists() and not overwrite:
        raise InputError(f"{target} exists; give --overwrite to replace it")
    sections = open_sections(source)
    try:
        _check_target(sections, target)
        sampled = np.linspace(0, len(sections) - 1, min(_SAMPLED, len(sections))).round().astype(int)
        # One section at a time: a section may be large.
        sentences = {segmenter.difference(sections.read(int(z))[None]) for z in sampled} - {None}
        if sentences:
            warn(f"{source} is unlike the training data: {sorted(map(str, sentences))[0]}; expect a poor result")
        partial = target.with_name(f".{target.name}.partial")
        _begin(partial, _identity(segmenter, sections, output))
        files = [partial / f"{z:06d}.npy" for z in range(len(sections))]
        missing = {z for z, file in enumerate(files) if not file.is_file()}
        results = segmenter.segment(sections.read, len(sections), output, sorted(missing))
        for z, file in enumerate(files):
            if z in missing:
                try:
                    result = next(results)
                except InputError as error:
                    raise InputError(f"{source}, {error}") from error
                with atomic_path(file) as temporary, temporary.open("wb") as stream:
                    np.save(stream, result, allow_pickle=False)
            report(z + 1, len(sections))
        _assemble(partial, sections, target, output)
        shutil.rmtree(partial)
    finally:
        sections.close()
    return target


def targets_of(sources: list[Path], output: Path, overwrite: bool) -> list[Path]:
    """Where the result of each source goes: `output`, or, for several, a file of the same name in it.

    Raises:
        InputError: a source does not exist, a result does, or two sources have one name.
    """
    for source in sources:
        if not source.exists():
            raise InputError(
                f"{source} does not exist; expected a TIFF stack, a folder of images, an image or a Zarr array"
            )
    if len(sources) == 1:
        targets = [output]
    else:
        targets = [output / (f"{s.stem}.tif" if s.suffix.lower() == ".png" else s.name) for s in sources]
    if len(set(targets)) < len(targets):
        raise InputError("two inputs have one name; segment them into different folders")
    for target in targets:
        if target.exists() and not overwrite:
            raise InputError(f"{target} exists; give --overwrite to replace it")
    return targets


def _check_target(sections: Sections, target: Path) -> None:
    if target.resolve() == sections.path.resolve():
        raise InputError(f"{target} is the input itself; choose another output")
    expected = {"tiff": (".tif", ".tiff"), "image": (".tif", ".tiff"), "zarr": (".zarr",), "folder": ("",)}
    if target.suffix.lower() not in expected[sections.kind]:
        kind = {"tiff": "a .tif file", "image": "a .tif file", "zarr": "a .zarr folder", "folder": "a folder"}
        raise InputError(f"{target}: the result of {sections.path} is {kind[sections.kind]}; name it so")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{target.parent} cannot be made: {error.strerror}; choose another output") from error


def _identity(segmenter: Segmenter, sections: Sections, output: str) -> dict[str, Any]:
    path = sections.path
    files = [path] if path.is_file() else sorted(file for file in path.rglob("*") if file.is_file())
    return {
        "model": segmenter.fingerprint,
        "mode": segmenter.predictor.mode,
        "test_time_augmentation": segmenter.predictor.test_time_augmentation,
        "threshold": segmenter.threshold,
        "agglomeration": segmenter.agglomeration and segmenter.agglomeration.as_dict(),
        "output": output,
        "shape": list(sections.shape),
        "files": [[file.name, file.stat().st_size, file.stat().st_mtime_ns] for file in files],
    }


def _begin(partial: Path, identity: dict[str, Any]) -> None:
    """Keep what an earlier, identical job has finished; drop what another one has."""
    manifest = partial / "job.json"
    if manifest.is_file() and json.loads(manifest.read_text(encoding="utf-8")) == json.loads(json.dumps(identity)):
        return
    shutil.rmtree(partial, ignore_errors=True)
    write_json(manifest, identity)


def _assemble(partial: Path, sections: Sections, target: Path, output: Output) -> None:
    def result(z: int) -> np.ndarray:
        return np.load(partial / f"{z:06d}.npy", mmap_mode="r")

    if sections.kind == "zarr":
        with atomic_folder(target, ()) as folder:
            _write_zarr(folder, sections, result, output)
    elif sections.kind == "folder":
        with atomic_folder(target, ()) as folder:
            for z, name in enumerate(sections.names):
                _write_tiff(folder / f"{Path(name).stem}.tif", sections, [result(z)], output)
    else:
        with atomic_path(target) as temporary:
            _write_tiff(temporary, sections, (result(z) for z in range(len(sections))), output)


def _write_tiff(path: Path, sections: Sections, results: Any, output: Output) -> None:
    import tifffile

    facts = sections.page
    pages = 1 if sections.kind == "folder" else len(sections)
    shape = (pages, *sections.shape[1:]) if facts.get("is_stack") and pages >= 1 else sections.shape[1:]
    size = int(np.prod(shape)) * OUTPUT_TYPES[output].itemsize
    options: dict[str, Any] = {"compression": facts.get("compression")}
    metadata: dict[str, Any] = {"axes": "ZYX" if len(shape) == 3 else "YX"}
    imagej = facts.get("imagej")
    # ImageJ's own form knows no compression, and no more than 4 GiB.
    as_imagej = imagej is not None and options["compression"] is None and size < 2**32
    if as_imagej and imagej:
        metadata |= {key: imagej[key] for key in ("spacing", "unit") if key in imagej}
    if facts.get("ome") is not None:
        metadata |= facts["ome"]
    if facts.get("resolution"):
        options["resolution"] = facts["resolution"]
        options["resolutionunit"] = facts["resolution_unit"]
    with tifffile.TiffWriter(
        path, imagej=as_imagej, ome=facts.get("ome") is not None, bigtiff=size > 2**31 and not as_imagej
    ) as tiff:
        tiff.write(
            iter(results),
            shape=shape,
            dtype=OUTPUT_TYPES[output],
            photometric="minisblack",
            metadata=metadata,
            **options,
        )


def _write_zarr(folder: Path, sections: Sections, result: Callable[[int], np.ndarray], output: Output) -> None:
    import zarr

    _, height, width = sections.shape
    array = zarr.create_array(
        folder,
        shape=sections.shape,
        chunks=(1, min(height, 1024), min(width, 1024)),
        dtype=OUTPUT_TYPES[output],
        overwrite=True,
        **sections.page,
    )
    for z in range(len(sections)):
        array[z] = result(z)
