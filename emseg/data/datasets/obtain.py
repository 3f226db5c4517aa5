"""The sections that a card speaks of: downloaded, or taken from a folder or a file, and read as the card says."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from emseg.data.datasets.card import Card, Origin, RemoteFile, Stack, split_location, stack_name
from emseg.data.datasets.download import Progress, download
from emseg.data.labelled import Labelled, read_labelled, read_parts, stack_folders
from emseg.errors import InputError
from emseg.files import hold, writing

_DAMAGED_ZIP = (zipfile.BadZipFile, zlib.error, RuntimeError, NotImplementedError, EOFError)
_NOT_SECTIONS = ("__MACOSX", ".DS_Store", "Thumbs.db")


@dataclass(frozen=True)
class Obtained:
    """Sections as their files have them.

    Attributes:
        found: the sections.
        origins: what was downloaded.
        are_files_known: whether they come from files that the card knows the SHA-256 of.
    """

    found: Labelled
    origins: list[Origin]
    are_files_known: bool


def obtain(
    card: Card,
    stack: Stack,
    origin: Path | None,
    downloads: Path,
    progress: Progress | None = None,
    warn: Callable[[str], None] = lambda sentence: None,
) -> Obtained:
    """Bring the sections of a stack here and read them.

    Args:
        card: of the dataset.
        stack: of the card.
        origin: the folder, archive or HDF5 file to take them from; None downloads them.
        downloads: folder for what is downloaded. It is emptied once the sections were read; what is partial stays.
        progress: told of the download.
        warn: told in a sentence what the user should know.

    Raises:
        InputError: they cannot be downloaded, are not where the card says, or are damaged; or their labels are of a
            kind that is not read.
        RunError: the disk is full.
    """
    if origin is not None:
        if not origin.exists():
            raise InputError(f"{origin} does not exist; expected a folder, or a file of {card.name}")
        are_known = bool(stack.files) and all(_is_known(file, _local(origin, file)) for file in stack.files)
        with _opened(origin, stack) as (root, located):
            return Obtained(_read(root, located, warn), [], are_known)
    if not stack.files:
        raise InputError(f"the card of {card.name} names no files to download; say --from FOLDER")
    if card.fetched is False:
        warn(
            f"the card of {card.name} was never tried on its real host; should something not fit, fetch it elsewhere "
            "and use --from"
        )
    with hold(downloads, f"another command downloads to {downloads}; wait for it"):
        origins = [download(file, downloads / file.name, progress) for file in stack.files]
        with tempfile.TemporaryDirectory(dir=downloads) as temporary:
            root = Path(temporary)
            for file in stack.files:
                if not file.name.endswith(".zip"):
                    (downloads / file.name).rename(root / file.name)
                else:
                    try:
                        _unpack(downloads / file.name, stack.locations, root)
                    except InputError:
                        (downloads / file.name).unlink()
                        raise
            found = _read(root, stack, warn)
        shutil.rmtree(downloads)
    with suppress(OSError):
        downloads.parent.rmdir()  # where nothing else is being downloaded
    return Obtained(found, origins, all(file.sha256 for file in stack.files))


def obtain_several(
    card: Card, stacks: list[Stack], origin: Path, warn: Callable[[str], None] = lambda sentence: None
) -> list[tuple[Stack, Obtained]]:
    """Read those of several stacks that are in a folder or a file.

    Args:
        card: of the dataset.
        stacks: of the card.
        origin: the folder, archive or HDF5 file to take them from.
        warn: told in a sentence what the user should know, such as which stacks are not there.

    Raises:
        InputError: none is there, or one is damaged.
    """
    if len(stacks) == 1:
        return [(stacks[0], obtain(card, stacks[0], origin, origin, warn=warn))]
    if origin.is_dir() and not any(stack.locations for stack in stacks) and not stack_folders(origin):
        return _cut(card, stacks, read_labelled(origin, warn), origin)
    found, missing = [], []
    for stack in stacks:
        if _is_there(origin, stack):
            found.append((stack, obtain(card, stack, origin, origin, warn=warn)))
        else:
            missing.append(str(stack.name))
    if not found:
        raise InputError(f"{origin} holds no stack of {card.name}; expected {' or '.join(map(_named, stacks))}")
    if missing:
        there = ", ".join(str(stack.name) for stack, _ in found)
        warn(f"{origin} does not hold {', '.join(missing)} of {card.name}; the source is of {there}")
    return found


def _cut(card: Card, stacks: list[Stack], whole: Labelled, origin: Path) -> list[tuple[Stack, Obtained]]:
    """Stacks that lie one after the other, as `write_source` writes them."""
    found, start = [], 0
    for stack, length in zip(stacks, card.lengths_of(whole.images, origin).values(), strict=True):
        part = slice(start, start + length)
        # The test stack is of all of them.
        tested = (None, None) if start else (whole.test_images, whole.test_labels)
        own = Labelled(whole.images[part], whole.labels[part], *tested, whole.voxel_size)
        found.append((stack, Obtained(own, [], False)))
        start += length
    return found


def _is_there(origin: Path, stack: Stack) -> bool:
    if origin.is_file() and not zipfile.is_zipfile(origin):
        return {split_location(location)[0] for location in stack.locations} == {origin.name}
    with _opened(origin, stack) as (root, _):
        if stack.locations and all(_locate(root, location) for location in stack.locations):
            return True
        return _folder_of(root, stack) != root


@contextmanager
def _opened(origin: Path, stack: Stack) -> Iterator[tuple[Path, Stack]]:
    """The folder that holds the parts of a stack, and the stack as it lies there."""
    if origin.is_dir():
        yield origin, stack
    elif zipfile.is_zipfile(origin):
        with tempfile.TemporaryDirectory() as temporary:
            _unpack(origin, stack.locations, Path(temporary))
            inside = list(Path(temporary).iterdir())
            is_wrapped = not stack.locations and len(inside) == 1 and inside[0].is_dir()
            yield inside[0] if is_wrapped else Path(temporary), stack
    elif len({split_location(location)[0] for location in stack.locations}) == 1:
        yield origin.parent, _renamed(stack, origin.name)
    else:
        raise InputError(f"{origin} is no ZIP archive; expected one, or a folder that holds {_named(stack)}")


def _renamed(stack: Stack, name: str) -> Stack:
    """A stack all of whose parts are in one file, under another name of that file."""
    parts = {part: getattr(stack, part) for part in ("images", "labels", "test_images", "test_labels")}
    return stack.model_copy(
        update={part: name + split_location(location)[1] for part, location in parts.items() if location}
    )


def _named(stack: Stack) -> str:
    return ", ".join(stack.locations) or "images and labels"


def _unpack(archive: Path, locations: list[str], folder: Path) -> None:
    """Unpack what `locations` speak of, wherever in the archive it is; of no locations, all of it."""
    wanted = [PurePosixPath(split_location(location)[0]) for location in locations]
    try:
        with zipfile.ZipFile(archive) as contents:
            for member in contents.infolist():
                path = PurePosixPath(member.filename.replace("\\", "/"))
                is_litter = path.name.startswith("._") or any(part in _NOT_SECTIONS for part in path.parts)
                if member.is_dir() or is_litter or ".." in path.parts or path.is_absolute():
                    continue
                if (inner := _inside(path, wanted) if wanted else path) is None:
                    continue
                target = folder / inner
                with writing(target):
                    target.parent.mkdir(parents=True, exist_ok=True)
                    with contents.open(member) as packed, target.open("wb") as file:
                        shutil.copyfileobj(packed, file)
    except _DAMAGED_ZIP as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise InputError(f"{archive} is damaged ({reason[:120]}); fetch it again") from error


def _inside(path: PurePosixPath, wanted: list[PurePosixPath]) -> PurePosixPath | None:
    """`path` without the folders that an archive has around what is wanted; None: it is not wanted."""
    for location in wanted:
        for start in range(len(path.parts) - len(location.parts) + 1):
            if path.parts[start : start + len(location.parts)] == location.parts:
                return PurePosixPath(*path.parts[start:])
    return None


def _require_no_meanings(folder: Path) -> None:
    """Refuse what emseg brought in itself where labels alone would not say all that is known.

    Raises:
        InputError: cells by number or pixels to ignore lie beside the labels.
    """
    if found := [name for name in ("cells.tif", "ignore.tif") if (folder / name).is_file()]:
        raise InputError(
            f"{folder} was brought in by emseg, with {' and '.join(found)}, which its labels do not hold; take the "
            "folder that it was made from"
        )


def _read(root: Path, stack: Stack, warn: Callable[[str], None]) -> Labelled:
    if not stack.files and not stack.test_images:
        # A lab's own folder, in which the user may have named files.
        _require_no_meanings(_folder_of(root, stack))
        return read_labelled(_folder_of(root, stack), warn, stack.images, stack.labels)
    return read_parts(
        _required(root, stack.images or "", "images"),
        _required(root, stack.labels or "", "labels"),
        _locate(root, stack.test_images) if stack.test_images else None,
        _locate(root, stack.test_labels) if stack.test_labels else None,
        warn,
    )


def _folder_of(root: Path, stack: Stack) -> Path:
    """The folder of a stack's name, where stacks have one each; else `root`."""
    folders = stack_folders(root, stack.images, stack.labels)
    return next((each for each in folders if stack_name(each.name) == stack.name), root)


def _required(root: Path, location: str, what: str) -> Path:
    found = _locate(root, location)
    if found is None:
        raise InputError(f"{root} has no {location}, where the card says that {what} are")
    return found


def _locate(root: Path, location: str) -> Path | None:
    """Where a part of a stack is, in a folder or in the one folder inside it that an archive was packed from."""
    name, inner = split_location(location)
    for folder in (root, *sorted(each for each in root.iterdir() if each.is_dir())):
        if (folder / name).exists():
            return folder / (name + inner)
    return None


def _local(origin: Path, file: RemoteFile) -> Path:
    return origin / file.name if origin.is_dir() else origin


def _is_known(file: RemoteFile, path: Path) -> bool:
    if file.sha256 is None or not path.is_file():
        return False
    with path.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest() == file.sha256
