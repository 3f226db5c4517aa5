"""Where results go, and what may be replaced there: no file but an earlier result, never the input."""

from __future__ import annotations

import json
import os
import shutil
from collections import Counter
from contextlib import AbstractContextManager, suppress
from pathlib import Path

from emseg.data.sections import Sections
from emseg.errors import InputError, RunError
from emseg.files import hold, require_own

SOFTWARE = "emseg"
"""The Software entry of a TIFF result, and an attribute of a Zarr result: what tells them from other files."""
SOFTWARE_ATTRIBUTE = "software"
_LONGEST_NAME = 160
"""Bytes; file systems take 255, and files are written under longer names until they are whole."""
_ZARR_FILES = ("zarr.json", ".zarray", ".zattrs", "c/*[0-9]", "[0-9]*[0-9]")
_FORMS = {
    "tiff": ((".tif", ".tiff"), "a .tif file"),
    "image": ((".tif", ".tiff"), "a .tif file"),
    "zarr": ((".zarr",), "a .zarr folder"),
    "folder": (("",), "a folder, named without a dot"),
}
"""By kind of sections: suffixes of the result, and what to call it."""


def targets_of(sources: list[Path], output: Path, overwrite: bool) -> list[Path]:
    """Where the result of each source goes: `output`, or, for several, a file of the same name in it.

    Raises:
        InputError: a source does not exist, two sources have one name, or a result may not go where it would: see
            `require_free`.
    """
    for source in sources:
        if not source.exists():
            raise InputError(
                f"{source} does not exist; expected a TIFF stack, a folder of images, an image or a Zarr array"
            )
    if len(sources) == 1:
        targets = [output]
    else:
        names = [Path(os.path.abspath(source)).name for source in sources]
        results = [_as_tiff(name) if name.lower().endswith(".png") else name for name in names]
        targets = [output / name for name in _apart(names, results)]
    if len(set(targets)) < len(targets):
        raise InputError("two inputs have one name; segment them into different folders")
    for target in targets:
        _require_name(target)
        for source in sources:
            _require_apart(source, target)
        _require_absent(target, overwrite)
        if target.exists():
            _require_result(target)
    return targets


def require_free(sections: Sections, target: Path, overwrite: bool) -> None:
    """Refuse a target that cannot be the result of these sections, or at which something would be lost.

    Raises:
        InputError: it is named unlike such a result; it is a link, the input itself, above or inside it; it exists and
            is not to be overwritten; or it is a folder that holds anything but an earlier result.
    """
    _require_name(target)
    _require_apart(sections.path, target)
    suffixes, form = _FORMS[sections.kind]
    if target.suffix.lower() not in suffixes:
        raise InputError(f"{target}: the result of {sections.path} is {form}; name it so")
    _require_absent(target, overwrite)
    if not target.exists():
        return
    if sections.kind in ("folder", "zarr"):
        require_own(target, own_files(sections))
    elif not target.is_file():
        raise InputError(f"{target} is a folder, the result of {sections.path} is {form}; choose another output")
    _require_result(target)


def own_files(sections: Sections) -> tuple[str, ...]:
    """Patterns of the files in the folder that is the result of a folder or a Zarr array; see `require_own`."""
    return tuple(result_names(sections.names)) if sections.kind == "folder" else _ZARR_FILES


def result_names(names: list[str]) -> list[str]:
    """The name of the result of each section of a folder, as many as there are: s1.png gives s1.tif.

    >>> result_names(["a.png", "a.tif", "b.png"])
    ['a.png.tif', 'a.tif', 'b.tif']
    """
    found = _apart(names, [_as_tiff(name) for name in names])
    return found if len(set(found)) == len(names) else [f"{name}.tif" for name in names]


def partial_of(target: Path) -> Path:
    """The folder with the finished sections of a job that is not done."""
    return target.with_name(f".{target.name}.partial")


def hold_target(target: Path) -> AbstractContextManager[None]:
    """Hold a target, and its folder of finished sections, against other commands; see `hold`."""
    return hold(target, f"another command is writing {target}; wait for it, or choose another output")


def _as_tiff(name: str) -> str:
    return f"{Path(name).stem}.tif"


def _apart(names: list[str], results: list[str]) -> list[str]:
    """Results that would have one name get that of their input in front."""
    often = Counter(result.lower() for result in results)
    return [
        result if often[result.lower()] == 1 or result == name else f"{name}.tif"
        for name, result in zip(names, results, strict=True)
    ]


def _require_name(target: Path) -> None:
    if target.name in ("", ".."):
        raise InputError(f"{target} is the name of no result; name the file or folder that shall be written")
    if len(os.fsencode(target.name)) > _LONGEST_NAME:
        raise InputError(f"{target.name[:20]}... is longer than {_LONGEST_NAME} bytes; choose a shorter name")
    if target.is_symlink():
        raise InputError(f"{target} is a link; name the place that it leads to, or remove it")


def _require_apart(source: Path, target: Path) -> None:
    """Refuse a target that is the input, or holds it, or lies in it; links are followed."""
    origin, place = source.resolve(), target.resolve()
    if place == origin or (target.exists() and os.path.samefile(source, target)):
        raise InputError(f"{target} is the input itself; choose another output")
    if place in origin.parents:
        raise InputError(f"{target} holds the input {source}, which would be lost; choose another output")
    if origin in place.parents:
        raise InputError(f"{target} lies inside the input {source}; choose another output")


def _require_absent(target: Path, overwrite: bool) -> None:
    if target.exists() and not overwrite:
        _clear_finished(target)
        raise InputError(f"{target} exists; give --overwrite to replace it")


def _clear_finished(target: Path) -> None:
    """Remove what a job left that was killed when its result was there already; so does taking its lock."""
    partial = partial_of(target)
    manifest = partial / "job.json"
    # No more than tidiness: a folder that may not be written to has no part in the refusal.
    with suppress(InputError, RunError, OSError), hold_target(target):
        if not manifest.is_file() or manifest.stat().st_mtime_ns < target.stat().st_mtime_ns:
            shutil.rmtree(partial, ignore_errors=True)


def _require_result(target: Path) -> None:
    """Refuse what does not say of itself that emseg wrote it: a TIFF, a Zarr array, every TIFF of a folder."""
    is_zarr = any((target / name).is_file() for name in ("zarr.json", ".zarray"))
    for file in [target] if is_zarr or target.is_file() else sorted(target.glob("*.tif")):
        if not (_is_zarr_result(file) if is_zarr else _is_tiff_result(file)):
            raise InputError(f"{file} is no result of emseg's and is not replaced; move it, or choose another output")


def _is_tiff_result(file: Path) -> bool:
    import tifffile

    try:
        with tifffile.TiffFile(file) as tiff:
            return bool(tiff.pages.first.software == SOFTWARE)
    except Exception:  # whatever it is, it is no result
        return False


def _is_zarr_result(folder: Path) -> bool:
    try:
        version_3 = folder / "zarr.json"
        text = (version_3 if version_3.is_file() else folder / ".zattrs").read_text(encoding="utf-8")
        attributes = json.loads(text)
        return bool((attributes["attributes"] if version_3.is_file() else attributes)[SOFTWARE_ATTRIBUTE] == SOFTWARE)
    except (OSError, ValueError, KeyError, TypeError):
        return False
