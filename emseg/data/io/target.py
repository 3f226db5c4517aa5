"""Where results go, and what may be replaced there: no file but an earlier result, never the input."""

from __future__ import annotations

import os
import shutil
from collections import Counter
from contextlib import AbstractContextManager, suppress
from pathlib import Path

from emseg.data.io.formats import FORMATS, format_of, readable_kinds, split_place
from emseg.data.io.sections import Format, Sections
from emseg.data.io.tiff import FORMAT as TIFF
from emseg.errors import InputError, RunError
from emseg.files import hold, require_own

_LONGEST_NAME = 160
"""Bytes; file systems take 255, and files are written under longer names until they are whole."""
_ZARR_FILES = (
    *("zarr.json", ".zarray", ".zgroup", ".zattrs", "c/*[0-9]", "[0-9]*[0-9]"),
    *("0/zarr.json", "0/.zarray", "0/.zattrs"),
)


def targets_of(sources: list[Path], output: Path, overwrite: bool) -> list[Path]:
    """Where the result of each source goes: `output`, or, for several, a file of the same name in it.

    Raises:
        InputError: a source does not exist, two sources have one name, or a result may not go where it would: see
            `require_free`.
    """
    places = [split_place(source) for source in sources]
    for source, _ in places:
        if not source.exists():
            raise InputError(f"{source} does not exist; expected {readable_kinds()}")
    if len(sources) == 1:
        targets = [output]
    else:
        names = [Path(os.path.abspath(source)).name for source, _ in places]
        results = [_result_name(name, *place) for name, place in zip(names, places, strict=True)]
        targets = [output / name for name in _apart(names, results)]
    if len(set(targets)) < len(targets):
        raise InputError("two inputs have one name; segment them into different folders")
    for target in targets:
        _require_name(target)
        for source, _ in places:
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
    kind = result_format(sections, target).kind
    _require_absent(target, overwrite)
    if not target.exists():
        return
    if sections.kind == "folder" or kind == "zarr":
        require_own(target, own_files(sections))
    elif not target.is_file():
        raise InputError(f"{target} is a folder, the result of {sections.where} is a file; choose another output")
    _require_result(target)


def result_format(sections: Sections, target: Path) -> Format:
    """The format of a result by the name of its target: that of its input, or TIFF; TIFFs in a folder.

    Raises:
        InputError: the target is named unlike such a result.
    """
    own = [form for form in FORMATS if form.write and form.kind == sections.kind]
    if sections.kind == "folder":
        form, called = TIFF if not target.suffix else None, "a folder, named without a dot"
    else:
        fitting = [*own, *([] if TIFF in own else [TIFF])]
        form = next((each for each in fitting if target.suffix.lower() in each.suffixes), None)
        called = " or ".join(f"a {each.suffixes[0]} {'folder' if each.kind == 'zarr' else 'file'}" for each in fitting)
    if form is None:
        raise InputError(f"{target}: the result of {sections.where} is {called}; name it so")
    return form


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


def _result_name(name: str, source: Path, inner: str) -> str:
    form = format_of(source)
    if form is None or (form.write and not inner):
        return name
    return f"{Path(name).stem}-{inner.strip('/').replace('/', '-')}.tif" if inner else _as_tiff(name)


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
    """Refuse what does not say of itself that emseg wrote it; of a folder, any of its TIFFs."""
    form = format_of(target)
    for file in [target] if form or target.is_file() else sorted(target.glob("*.tif")):
        if not (form or TIFF).is_result(file):
            raise InputError(f"{file} is no result of emseg's and is not replaced; move it, or choose another output")
