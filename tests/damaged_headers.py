"""Opens damaged copies of a file of a format; run in a process of its own, which may not outlive a crash of a library.

python -m damaged_headers FORMAT FOLDER COUNT
"""

from __future__ import annotations

import io
import json
import random
import resource
import signal
import struct
import sys
import warnings
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import tifffile
from damage import damaged_values
from PIL import Image

from emseg.data.io.stack import read_stack
from emseg.errors import InputError

STACK = np.random.default_rng(0).integers(0, 120, (4, 32, 24), dtype=np.uint8)
HANG_SECONDS = 60
NUMBERS = (0, 1, 2, 3, 7, 255, 4095, 65535, 10**6, 2**31 - 1, 2**31, 2**32 - 1)


def whole_files(form: str, folder: Path) -> list[tuple[Path, int]]:
    """Intact files, and where their headers end."""
    path = folder / f"whole.{form}"
    if form == "tif":
        voxel = {"axes": "ZYX", "spacing": 50, "unit": "nm"}
        kinds: list[dict] = [{}, {"compression": "zlib"}, {"imagej": True, "metadata": voxel}, {"tile": (16, 16)}]
        files = []
        for index, options in enumerate(kinds):
            stream = io.BytesIO()
            tifffile.imwrite(stream, STACK, **({"photometric": "minisblack"} | options))
            (folder / f"whole{index}.tif").write_bytes(stream.getvalue())
            files.append((folder / f"whole{index}.tif", 500))
        return files
    if form == "png":
        Image.fromarray(STACK[0]).save(path)
        return [(path, 60)]
    if form == "npy":
        np.save(path, STACK)
        return [(path, 128)]
    if form == "mrc":
        import mrcfile

        mrcfile.write(path, STACK.astype(np.int16))
        return [(path, 1024)]
    if form == "nrrd":
        import nrrd

        files = []
        for encoding in ("raw", "gzip"):
            whole = folder / f"whole-{encoding}.nrrd"
            axes = {"spacings": [4, 4, 50], "units": ["nm", "nm", "nm"], "encoding": encoding}
            nrrd.write(str(whole), STACK, axes, index_order="C")
            files.append((whole, whole.read_bytes().index(b"\n\n") + 8))
        return files
    import h5py

    with h5py.File(path, "w") as file:
        file.create_dataset("volumes/raw", data=STACK, chunks=(1, 32, 24), compression="gzip")
        file["volumes/raw"].attrs["resolution"] = (50.0, 4.0, 4.0)
    return [(path, path.stat().st_size)]


def damaged(content: bytes, header: int, draw: random.Random) -> bytes:
    """A copy with a bit, a byte, a number or a stretch of its header changed, or without an end or a middle."""
    changed = bytearray(content)
    place = draw.randrange(min(header, len(changed)))
    kind = draw.choice(("bit", "byte", "number", "number", "stretch", "end", "gap"))
    if kind == "bit":
        changed[place] ^= 1 << draw.randrange(8)
    elif kind == "byte":
        changed[place] = draw.randrange(256)
    elif kind == "number":
        place -= place % 4
        form = draw.choice(("<I", ">I", "<Q"))
        packed = struct.pack(form, draw.choice(NUMBERS))[: len(changed) - place]
        changed[place : place + len(packed)] = packed
    elif kind == "stretch":
        stop = min(len(changed), place + draw.randrange(1, 32))
        changed[place:stop] = draw.randbytes(stop - place)
    elif kind == "end":
        del changed[place:]
    else:
        del changed[place : place + draw.randrange(1, 9)]
    if content[:4] == b"\x89PNG" and draw.random() < 0.8 and len(changed) >= 33:
        changed[29:33] = struct.pack(">I", zlib.crc32(changed[12:29]))
    return bytes(changed)


def damaged_files(form: str, folder: Path, count: int) -> Iterator[Path]:
    """Paths of damaged files, one at a time."""
    draw = random.Random(form)
    files = whole_files(form, folder)
    for index in range(count):
        whole, header = files[index % len(files)]
        path = folder / f"{index}.{form}"
        path.write_bytes(damaged(whole.read_bytes(), header, draw))
        yield path
        path.unlink()


def damaged_zarrs(folder: Path, count: int) -> Iterator[Path]:
    """Folders in which a header says something else: an array of either format, and an OME-Zarr image."""
    import zarr

    draw = random.Random(0)
    entry = {
        "axes": [{"name": name, "type": "space", "unit": "nanometer"} for name in "zyx"],
        "datasets": [{"path": "0", "coordinateTransformations": [{"type": "scale", "scale": [50, 4, 4]}]}],
    }
    headers = []
    for zarr_format in (2, 3):
        for kind in ("array", "image"):
            whole = folder / f"{kind}{zarr_format}.zarr"
            inner = whole / "0" if kind == "image" else whole
            if kind == "image":
                group = zarr.create_group(whole, zarr_format=zarr_format)
                group.attrs.update({"multiscales": [entry]} if zarr_format == 2 else {"ome": {"multiscales": [entry]}})
                headers.append((whole, whole / ("zarr.json" if zarr_format == 3 else ".zattrs")))
            zarr.create_array(inner, data=STACK, chunks=(1, 32, 24), zarr_format=zarr_format)
            headers.append((whole, inner / ("zarr.json" if zarr_format == 3 else ".zarray")))
    each = -(-count // len(headers))
    for whole, header in headers:
        content = header.read_bytes()
        texts = [json.dumps(value).encode() for _, value in damaged_values(json.loads(content), each, each * 2 // 3)]
        texts += [damaged(content, len(content), draw) for _ in range(each - len(texts))]
        for text in texts:
            header.write_bytes(text)
            yield whole
        header.write_bytes(content)


def main() -> None:
    form, folder, count = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
    warnings.simplefilter("error")
    read = largest = 0
    sentences: dict[str, str] = {}
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    paths = damaged_zarrs(folder, count) if form == "zarr" else damaged_files(form, folder, count)
    for index, path in enumerate(paths):
        signal.alarm(HANG_SECONDS)
        print(path.name, file=sys.stderr, flush=True)
        try:
            largest = max(largest, read_stack(path, labels=index % 2 == 1).nbytes)
            read += 1
        except InputError as error:
            sentences[f"{index} {path}"] = str(error)
        signal.alarm(0)
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
    odd = [text for name, text in sentences.items() if name.split()[1] not in text or "\n" in text]
    found = {"read": read, "refused": len(sentences), "odd": odd, "bytes beyond the largest": grown - largest}
    print(json.dumps(found))


if __name__ == "__main__":
    main()
