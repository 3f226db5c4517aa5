"""Downloads that go on where they were cut, from the first address that gives the right file."""

from __future__ import annotations

import errno
import hashlib
import http.client
import urllib.request
import zipfile
from collections.abc import Callable
from pathlib import Path
from urllib.error import URLError

from emseg.data.datasets.card import Origin, RemoteFile
from emseg.errors import InputError
from emseg.files import refusal, writing

Progress = Callable[[int, int], None]
"""Called with bytes done and bytes in all; 0 in all where a server does not say how many."""
_PATIENCE = 30.0
"""Seconds without a byte."""
_BLOCK = 2**18
_NO_SUCH_RANGE, _PARTIAL_CONTENT = 416, 206
_LOCAL = (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS)


class _UnavailableError(Exception):
    """An address gave nothing, or not all."""


def download(file: RemoteFile, path: Path, progress: Progress | None = None) -> Origin:
    """Download a file to `path`, continuing a partial download that an earlier call left behind.

    Its addresses are tried in their order. What one of them gave in part the next one continues. A file of the wrong
    size or SHA-256, or one that ends in .zip and is no ZIP archive, is thrown away.

    Returns:
        Where it came from.

    Raises:
        InputError: no address gave the file; a sentence says why for each. What is partial stays, to be continued.
        RunError: the disk is full.
    """
    partial = path.with_name(f".{path.name}.part")
    with writing(partial):
        partial.parent.mkdir(parents=True, exist_ok=True)
    reasons = []
    for url in file.urls:
        try:
            fault = _get(url, file, partial, progress)
        except _UnavailableError as error:
            reasons.append(f"{url}: {error}")
            continue
        if fault is None:
            origin = Origin(url=url, sha256=_sha256(partial), bytes=partial.stat().st_size)
            partial.replace(path)
            return origin
        partial.unlink()
        reasons.append(f"{url} {fault}")
    raise InputError(
        f"cannot download {file.name} ({'; '.join(reasons)}); "
        "try again to continue, or fetch it elsewhere and use --from"
    )


def _get(url: str, file: RemoteFile, partial: Path, progress: Progress | None) -> str | None:
    """What is wrong with the file that an address gave; None: nothing."""
    was_begun = partial.exists()
    _transfer(url, file, partial, progress)
    fault = _fault(partial, file)
    if fault and was_begun:
        # Its beginning may be of another file, which the address gave then.
        partial.unlink()
        _transfer(url, file, partial, progress)
        fault = _fault(partial, file)
    return fault


def _transfer(url: str, file: RemoteFile, partial: Path, progress: Progress | None) -> None:
    done = partial.stat().st_size if partial.exists() else 0
    headers = {"User-Agent": "emseg"} | ({"Range": f"bytes={done}-"} if done else {})
    request = urllib.request.Request(url, headers=headers)
    total = done
    try:
        with urllib.request.urlopen(request, timeout=_PATIENCE) as response:
            if done and response.status != _PARTIAL_CONTENT:
                done = 0
            length = int(response.headers.get("Content-Length", 0))
            total = done + length if length else file.bytes or 0
            with partial.open("ab" if done else "wb") as written:
                while block := response.read(_BLOCK):
                    written.write(block)
                    done += len(block)
                    if progress:
                        progress(done, total)
    except (URLError, OSError, ValueError, http.client.HTTPException) as error:
        if getattr(error, "errno", None) in _LOCAL:
            raise refusal(partial, error) from error  # type: ignore[arg-type]
        # No such range: the file here is whole, or longer than the one there, which its digest tells.
        if getattr(error, "code", None) != _NO_SUCH_RANGE or not done:
            raise _UnavailableError(str(getattr(error, "reason", None) or error) or type(error).__name__) from error
        return
    if done < total:
        raise _UnavailableError(f"ended after {done:,} of {total:,} bytes")


def _fault(path: Path, file: RemoteFile) -> str | None:
    size = path.stat().st_size
    if file.bytes and size != file.bytes:
        return f"gave {size:,} bytes, not {file.bytes:,}"
    if file.sha256 and (found := _sha256(path)) != file.sha256:
        return f"gave another file: its SHA-256 is {found[:12]}, not {file.sha256[:12]}"
    if file.name.endswith(".zip") and not zipfile.is_zipfile(path):
        return "did not give a ZIP archive"
    return None


def _sha256(path: Path) -> str:
    with path.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()
