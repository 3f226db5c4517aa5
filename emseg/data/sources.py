"""Where labelled sections come from: the ISBI 2012 challenge, the synthetic generator, or a lab's own folder."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import urllib.request
import zipfile
import zlib
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from urllib.error import URLError

import numpy as np

from emseg.data.check import check_stacks, require_sound
from emseg.data.labelled import Labelled, read_labelled
from emseg.data.labels import as_interior
from emseg.data.stack import stack_digest, write_stack
from emseg.data.synthetic import make_synthetic
from emseg.errors import InputError
from emseg.files import atomic_folder, hold, refusal, require_own

SOURCES_FOLDER = Path("data/sources")
SOURCE_FILES = ("images.tif", "labels.tif", "test-volume.tif", "test-labels.tif")
"""What `write_source` writes."""

ISBI2012_URL = "https://downloads.imagej.net/ISBI-2012-challenge.zip"
ISBI2012_PIXELS = {
    "train-volume.tif": "200da3d452d726e6c9ca1ce04b869d4edb727320d23b516d01cce707dc8c4760",
    "train-labels.tif": "a7cb64000a1a7e542682927e19c91339f58f9f178e0bcce4e207371116f0ca36",
    "test-volume.tif": "1b58fa7ec1d0ff9d39a855622db3ff66a97863036339b0d04be51b2f5a99b0e9",
}
"""SHA-256 of the pixels in C order; the containers in circulation differ."""

_LONGEST_NAME = 100


@dataclass(frozen=True)
class Source:
    """Labelled sections: a training stack and, where there is one, a test stack.

    `images` and `test_images` are uint8 or uint16 (Z, Y, X); `labels` and `test_labels` are bool, True for cell
    interior. The test arrays have no sections where the source has none.
    """

    name: str
    images: np.ndarray
    labels: np.ndarray
    test_images: np.ndarray
    test_labels: np.ndarray

    @property
    def digest(self) -> str:
        """Digest of every pixel and label, 32 hexadecimal digits."""
        return stack_digest(self.images, self.labels, self.test_images, self.test_labels)


def load_source(name: str, folder: str | Path = SOURCES_FOLDER) -> Source:
    """Load what `emseg data add NAME` brought in; `synthetic` needs no adding.

    Raises:
        InputError: nothing of that name was added, or its files are damaged.
    """
    location = Path(folder) / name
    if location.is_dir():
        return read_source(location, name)
    if name == "synthetic":
        images, labels = make_synthetic()
        return _source(name, Labelled(images, labels))
    known = sorted(place.name for place in Path(folder).glob("*") if place.is_dir() and not place.name.startswith("."))
    there = f"there are {', '.join(known)}; " if known else ""
    add = f"emseg data add {name}" + ("" if name == "isbi2012" else " --from FOLDER")
    raise InputError(f"no source named {name} in {folder}; {there}bring it in with `{add}`")


def read_source(folder: Path, name: str) -> Source:
    """Read a folder that holds images and labels, and perhaps a test stack; see `read_labelled`.

    Raises:
        InputError: images or labels are missing, damaged, or differ in number or size.
    """
    return _source(name, read_labelled(folder), folder)


def add_source(
    name: str,
    origin: Path | None,
    folder: Path = SOURCES_FOLDER,
    progress: Progress | None = None,
    warn: Callable[[str], None] = lambda sentence: None,
    overwrite: bool = False,
) -> Path:
    """Bring a source in: check it, then write it to `folder`/`name`, whole or not at all.

    Args:
        name: `isbi2012`, `synthetic`, or the name to give to a lab's own sections.
        origin: the folder to copy from; None downloads isbi2012 or generates synthetic.
        folder: where sources live.
        progress: called with bytes done and bytes in all while downloading.
        warn: see `read_labelled`.
        overwrite: replace other sections of that name.

    Returns:
        The folder that now holds images.tif and labels.tif.

    Raises:
        InputError: the sections are missing, damaged, or do not pass `check_stacks`; or they cannot be written.
        RunError: the disk is full.
    """
    if not name or name.startswith(".") or any(not (c.isalnum() or c in "-_.") for c in name):
        raise InputError(f"'{name}' cannot name a source; use letters, digits, '-', '_' and '.'")
    if len(os.fsencode(name)) > _LONGEST_NAME:
        raise InputError(f"{name[:20]}... is longer than {_LONGEST_NAME} bytes; choose a shorter name")
    if name == "synthetic" and origin is not None:
        raise InputError("synthetic names the sections that emseg generates; give your own another name")
    if name == "synthetic":
        source = _source(name, Labelled(*make_synthetic()))
    elif name == "isbi2012":
        source = read_source(origin, name) if origin else _downloaded(folder, progress)
        _verify_isbi2012(source)
        require_sound(check_stacks(source.images, source.labels, source.test_images, source.test_labels), name)
    elif origin is None:
        raise InputError(f"{name} is not a built-in source (isbi2012, synthetic); say --from FOLDER")
    else:
        found = read_labelled(origin, warn)
        require_sound(check_stacks(found.images, found.labels, found.test_images, found.test_labels), str(origin))
        source = _source(name, found, origin)
    target = folder / name
    with _held(target):
        if target.is_dir() and not overwrite:
            _require_same(target, source)
        with atomic_folder(target, SOURCE_FILES) as temporary:
            write_source(temporary, source)
    return target


def _require_same(folder: Path, source: Source) -> None:
    """Refuse to replace other sections, from which runs may have been trained."""
    require_own(folder, SOURCE_FILES)
    try:
        known = read_source(folder, source.name).digest
    except InputError:
        known = "damaged"
    if known != source.digest:
        raise InputError(
            f"{folder} holds other sections (digest {known[:8]}, the new ones have {source.digest[:8]}); "
            "choose another name, or give --overwrite to replace them"
        )


def _held(path: Path) -> AbstractContextManager[None]:
    return hold(path, f"another command is writing {path}; wait for it")


def write_source(folder: Path, source: Source) -> None:
    """Write the stacks of a source into a folder, as `read_source` finds them."""
    stacks = {
        "images.tif": source.images,
        "labels.tif": source.labels,
        "test-volume.tif": source.test_images,
        "test-labels.tif": source.test_labels,
    }
    for file, stack in stacks.items():
        if len(stack):
            write_stack(folder / file, stack)


Progress = Callable[[int, int], None]


def download(url: str, path: Path, progress: Progress | None = None) -> None:
    """Download `url` to `path`, continuing a partial download that an earlier call left behind.

    Raises:
        InputError: the server cannot be reached or ends early; the partial file stays, to be continued.
    """
    partial = path.with_name(path.name + ".partial")
    partial.parent.mkdir(parents=True, exist_ok=True)
    done = partial.stat().st_size if partial.exists() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={done}-"} if done else {})
    try:
        with urllib.request.urlopen(request, timeout=30) as response:
            if done and response.status != 206:
                done = 0
            total = done + int(response.headers.get("Content-Length", 0))
            with partial.open("ab" if done else "wb") as file:
                while block := response.read(1 << 18):
                    file.write(block)
                    done += len(block)
                    if progress:
                        progress(done, total)
    except (URLError, OSError) as error:
        if getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS):
            raise refusal(partial, error) from error
        if getattr(error, "code", None) != 416:  # 416: the partial file is already complete
            raise InputError(
                f"cannot download {url} ({getattr(error, 'reason', error)}); "
                "try again to continue, or fetch it elsewhere and use --from FOLDER"
            ) from error
        total = done
    if done < total:
        raise InputError(f"{url} ended after {done} of {total} bytes; try again to continue")
    partial.replace(path)


def _downloaded(folder: Path, progress: Progress | None) -> Source:
    archive = folder / ".isbi2012.zip"
    with _held(archive):
        if not archive.exists():
            download(ISBI2012_URL, archive, progress)
    with atomic_folder(folder / ".isbi2012", ("*.tif",)) as temporary:
        try:
            with zipfile.ZipFile(archive) as contents:
                for member in contents.infolist():
                    file = Path(member.filename).name
                    if file in ISBI2012_PIXELS or file == "test-labels.tif":
                        (temporary / file).write_bytes(contents.read(member))
        except (zipfile.BadZipFile, zlib.error, RuntimeError, EOFError) as error:
            archive.unlink()
            raise InputError(f"{ISBI2012_URL} did not give a ZIP archive; try again, or use --from FOLDER") from error
        source = read_source(temporary, "isbi2012")
    shutil.rmtree(folder / ".isbi2012")
    return source


def _verify_isbi2012(source: Source) -> None:
    stacks = {
        "train-volume.tif": source.images,
        "train-labels.tif": source.labels.astype(np.uint8) * 255,
        "test-volume.tif": source.test_images,
    }
    for file, stack in stacks.items():
        if file == "test-volume.tif" and not len(stack):
            continue
        if hashlib.sha256(np.ascontiguousarray(stack).data).hexdigest() != ISBI2012_PIXELS[file]:
            raise InputError(f"the pixels of {file} are not those of the ISBI 2012 challenge; fetch it again")


def _source(name: str, found: Labelled, folder: Path | None = None) -> Source:
    where = str(folder or name)
    images, labels = found.images, found.labels
    test_images = images[:0] if found.test_images is None else found.test_images
    test_labels = labels[:0] if found.test_labels is None else found.test_labels
    pairs = [("images", images, "labels", labels)]
    if len(test_labels):
        pairs.append(("test-volume", test_images, "test-labels", test_labels))
    for image_name, image, label_name, label in pairs:
        if len(image) != len(label):
            raise InputError(
                f"{where}: {len(image)} sections in {image_name} but {len(label)} in {label_name}; "
                "every section needs its label"
            )
        if image.shape != label.shape:
            raise InputError(
                f"{where}: {image_name} are {image.shape[1]} x {image.shape[2]} pixels but {label_name} are "
                f"{label.shape[1]} x {label.shape[2]}"
            )
    for image_name, image in (("images", images), ("test-volume", test_images)):
        if image.dtype not in (np.uint8, np.uint16):
            raise InputError(f"{where}: {image_name} are {image.dtype}; expected 8-bit or 16-bit grey levels")
    return Source(
        name,
        images,
        as_interior(labels, f"{where}: labels"),
        test_images,
        as_interior(test_labels, f"{where}: test-labels"),
    )
