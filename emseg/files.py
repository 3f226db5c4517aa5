"""Files that are whole or absent, safe from a power cut once written, and written by one process at a time."""

from __future__ import annotations

import errno
import json
import os
import secrets
import shutil
import socket
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from emseg.errors import InputError, RunError

_NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO})
_PARTIAL, _REPLACED = "partial", "replaced"
_LITTER = (".DS_Store", "._*", "Thumbs.db", ".*.lock", ".*.partial*", ".*.replaced*")
"""What systems and killed commands leave in folders; no loss."""


class HeldError(InputError):
    """Another process is writing there."""


@contextmanager
def writing(path: str | Path) -> Iterator[None]:
    """What the system refuses while `path` is written becomes one sentence.

    Raises:
        RunError: the disk is full or failed.
        InputError: anything else, such as a place that may not be written to.
    """
    try:
        yield
    except OSError as error:
        raise refusal(path, error) from error


def refusal(path: str | Path, error: OSError) -> InputError | RunError:
    """The sentence for an error of the system at `path`; see `writing`."""
    reason = (error.strerror or str(error)).lower()
    # numpy tells a full disk by how much of an array it has written, without a number.
    if error.errno in _NO_ROOM or (error.errno is None and "requested and" in str(error)):
        return RunError(f"{path} cannot be written ({reason}); make room and run the same command again")
    return InputError(f"{path} cannot be written ({reason}); choose another place, or mend its permissions")


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on success it becomes `path`, on failure it is removed.

    What killed processes left behind for the same path is removed first.

    Raises:
        InputError, RunError: see `writing`.
    """
    path = Path(path)
    with writing(path):
        if path.is_symlink():
            path = path.resolve()
        if path.exists() and not path.is_file():
            raise InputError(f"{path} is not a file that can be replaced; choose another place")
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove_leftovers(path)
        temporary = _beside(path, _PARTIAL)
        try:
            # Made here, so that it has the permissions that the umask says, whoever writes it.
            temporary.touch()
            mode = temporary.stat().st_mode
            yield temporary
            temporary.chmod(mode)
            _to_disk(temporary)
            os.replace(temporary, path)
            _to_disk(path.parent)
        finally:
            temporary.unlink(missing_ok=True)


@contextmanager
def atomic_folder(path: str | Path, own: Iterable[str]) -> Iterator[Path]:
    """Yield an empty temporary folder beside `path`; on success it replaces `path`, on failure it is removed.

    Args:
        path: of the folder.
        own: patterns of the files that emseg writes there (`fnmatch`, from the folder), such as `panels/*.png`. A
            folder that holds other files is not replaced.

    Raises:
        InputError, RunError: see `writing`; or the folder there holds files that emseg did not write.
    """
    path = Path(path)
    with writing(path):
        require_own(path, own)
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove_leftovers(path)
        temporary, replaced = _beside(path, _PARTIAL), _beside(path, _REPLACED)
        temporary.mkdir()
        try:
            yield temporary
            for file in temporary.rglob("*"):
                _to_disk(file)
            if path.exists():
                os.replace(path, replaced)
            try:
                os.replace(temporary, path)
            except OSError:
                if replaced.exists():
                    os.replace(replaced, path)
                raise
            _to_disk(path.parent)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
            shutil.rmtree(replaced, ignore_errors=True)


def require_own(folder: Path, own: Iterable[str]) -> None:
    """Refuse to replace a folder that holds files which emseg did not write.

    Args:
        folder: that may not exist.
        own: see `atomic_folder`.

    Raises:
        InputError: it is not a folder, or holds such a file.
    """
    if not folder.exists() and not folder.is_symlink():
        return
    if folder.is_symlink() or not folder.is_dir():
        raise InputError(f"{folder} is not a folder of emseg's; move it, or choose another place")
    foreign = foreign_files(folder, own)
    if foreign:
        more = f" and {len(foreign) - 3} more" if len(foreign) > 3 else ""
        raise InputError(
            f"{folder} holds files that emseg did not write ({', '.join(foreign[:3])}{more}); "
            "move them, or choose another place"
        )


def foreign_files(folder: Path, own: Iterable[str]) -> list[str]:
    """Files of a folder, as paths from it in order, that fit none of the patterns `own` and are no litter of systems.

    Args:
        folder: that exists.
        own: see `atomic_folder`.
    """
    patterns = list(own)
    return sorted(
        file.relative_to(folder).as_posix()
        for file in folder.rglob("*")
        if not file.is_dir() and not _is_own(file.relative_to(folder), patterns)
    )


def _is_own(file: Path, patterns: list[str]) -> bool:
    return any(fnmatchcase(file.as_posix(), pattern) for pattern in patterns) or any(
        fnmatchcase(file.name, pattern) for pattern in _LITTER
    )


@contextmanager
def hold(path: str | Path, busy: str, patience: float = 0.0) -> Iterator[None]:
    """Hold `path`, which need not exist, against other processes that hold it.

    Args:
        path: what is held. The lock is a hidden file beside it, gone when it is released.
        busy: the sentence for who comes second.
        patience: seconds to wait for who holds it.

    Raises:
        HeldError: another process holds it.
        InputError, RunError: see `writing`.
    """
    from filelock import FileLock, Timeout

    path = Path(path)
    file = path.with_name(f".{path.name}.lock")
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(file, timeout=patience)
        try:
            lock.acquire()
        except Timeout:
            raise HeldError(busy) from None
    try:
        yield
    finally:
        # While it is held: who opened it in the meantime finds it unlinked and makes another.
        with suppress(OSError):
            file.unlink()
        lock.release()


def write_text(path: str | Path, text: str) -> None:
    """Write UTF-8 `text` to `path`, whole or not at all."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: str | Path, value: Any) -> None:
    """Write `value` as indented JSON to `path`, whole or not at all."""
    write_text(path, json.dumps(value, indent=2) + "\n")


def put_back(path: str | Path) -> None:
    """Put back the folder that a killed process of this machine was about to replace, if there is none at `path`."""
    path = Path(path)
    if not path.exists():
        _remove_leftovers(path)


def is_alive(process: int) -> bool:
    """Whether a process of this machine runs."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass  # another user's, and alive
    return True


def _beside(path: Path, state: str) -> Path:
    # The suffix stays: some writers go by it.
    return path.with_name(f".{path.name}.{_host()}.{os.getpid()}-{secrets.token_hex(4)}.{state}{path.suffix}")


def _remove_leftovers(path: Path) -> None:
    """Remove what killed processes of this machine left beside `path`; put back what one was about to replace."""
    begin = f".{path.name}.{_host()}."
    with suppress(OSError):
        for file in [file for file in path.parent.iterdir() if file.name.startswith(begin)]:
            owner, _, state = file.name.removeprefix(begin).partition(".")
            state = state.removesuffix(path.suffix) if path.suffix else state
            process = owner.partition("-")[0]
            if state not in (_PARTIAL, _REPLACED) or not process.isdigit() or _writes_still(int(process)):
                continue
            if state == _REPLACED and not path.exists():
                os.replace(file, path)
            elif file.is_dir():
                shutil.rmtree(file, ignore_errors=True)
            else:
                file.unlink(missing_ok=True)


def _writes_still(process: int) -> bool:
    # This process writes one thing at a time to a place; in a container the one before had its number too.
    return process != os.getpid() and is_alive(process)


def _host() -> str:
    return socket.gethostname().replace(".", "-")


def _to_disk(path: Path) -> None:
    """Ask the system to put a file, or the names in a folder, on the disk."""
    if path.is_dir() and os.name == "nt":
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        # Some shared file systems know no fsync of folders.
        with suppress(OSError) if path.is_dir() else nullcontext():
            os.fsync(descriptor)
    finally:
        os.close(descriptor)
