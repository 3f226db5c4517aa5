"""Reading a stack by `open_sections` and `read_stack` against the format's own library.

python -m benchmarks.reading [--sections 100] [--side 1024]
"""

import argparse
import tempfile
import time
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from benchmarks.common import sections
from emseg.data.io.formats import open_sections
from emseg.data.io.stack import read_stack

REPEATS = 5
FORMS = ("zlib.tif", "plain.tif", "plain.zarr", "deep.zarr", "deep.h5", "plain.npy")
WORDS = {"plain": "a section in a page or chunk", "zlib": "a section in a page, zlib", "deep": "16 sections in a chunk"}


def write(path: Path, stack: np.ndarray) -> None:
    chunks = (16 if "deep" in path.name else 1, 256, 256)
    if path.suffix == ".tif":
        import tifffile

        tifffile.imwrite(path, stack, photometric="minisblack", compression="zlib" if "zlib" in path.name else None)
    elif path.suffix == ".zarr":
        import zarr

        zarr.create_array(path, data=stack, chunks=chunks)
    elif path.suffix == ".h5":
        import h5py

        with h5py.File(path, "w") as file:
            file.create_dataset("raw", data=stack, chunks=chunks, compression="gzip", compression_opts=1)
    else:
        np.save(path, stack)


def by_section(path: str | Path, count: int | None = None) -> Iterator[np.ndarray]:
    """Every section by `open_sections`."""
    opened = open_sections(path)
    for z in range(len(opened) if count is None else count):
        yield opened.read(z)
    opened.close()


def by_library(path: str | Path, count: int | None = None) -> Iterator[np.ndarray]:
    """Every section by the library, as one who knows the file would: chunk by chunk."""
    path = Path(path)
    if path.suffix == ".tif":
        import tifffile

        with tifffile.TiffFile(path) as tiff:
            for page in tiff.pages[:count]:
                yield page.asarray()
        return
    if path.suffix == ".npy":
        array = np.load(path, mmap_mode="r")
    elif path.suffix == ".zarr":
        import zarr

        array = zarr.open_array(path, mode="r")
    else:
        import h5py

        array = h5py.File(path, "r")["raw"]
    step = 16 if "deep" in path.name else 1
    for z in range(0, array.shape[0] if count is None else count, step):
        yield from np.array(array[z : z + step])


def consume(found: Iterator[np.ndarray]) -> None:
    """Touch every pixel: what is mapped into memory is not read before."""
    for section in found:
        section.max()


def whole_by_library(path: Path) -> np.ndarray:
    """The whole stack in one call."""
    if path.suffix == ".tif":
        import tifffile

        return np.asarray(tifffile.imread(path))
    if path.suffix == ".npy":
        return np.array(np.load(path))
    if path.suffix == ".zarr":
        import zarr

        return np.asarray(zarr.open_array(path, mode="r")[:])
    import h5py

    with h5py.File(path, "r") as file:
        return np.asarray(file["raw"][:])


def in_turns(calls: list[Callable[[], object]]) -> list[float]:
    """The least processor time of each call, over all threads, so that what else runs does not count."""
    best = [float("inf")] * len(calls)
    for _ in range(REPEATS):
        for index, call in enumerate(calls):
            started = time.process_time()
            call()
            best[index] = min(best[index], time.process_time() - started)
    return best


def peak(read: Callable[[], object]) -> float:
    """Megabytes of arrays at the most."""
    tracemalloc.start()
    read()
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return most / 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sections", type=int, default=100)
    parser.add_argument("--side", type=int, default=1024)
    arguments = parser.parse_args()
    images, _, name = sections(4)
    tiles = -(-arguments.side // images.shape[1])
    tiled = np.tile(images, (1, tiles, tiles))[:, : arguments.side, : arguments.side]
    stack = tiled[np.arange(arguments.sections) % len(tiled)]
    print(f"{len(stack)} sections of {arguments.side} x {arguments.side}, from the {name}, {stack.nbytes / 1e6:.0f} MB")
    with tempfile.TemporaryDirectory() as folder:
        for form in FORMS:
            path = Path(folder) / form
            write(path, stack)
            assert np.array_equal(read_stack(path), stack)
            assert np.array_equal(whole_by_library(path), stack)
            for read in (by_section, by_library):
                assert all(np.array_equal(section, stack[z]) for z, section in enumerate(read(path)))
            calls: list[Callable[[], object]] = [
                lambda path=path: consume(by_section(path)),  # type: ignore[misc]
                lambda path=path: consume(by_library(path)),  # type: ignore[misc]
                lambda path=path: read_stack(path),  # type: ignore[misc]
                lambda path=path: whole_by_library(path),  # type: ignore[misc]
            ]
            each, library, whole, library_whole = in_turns(calls)
            memory = [peak(call) for call in calls]
            print(
                f"{path.suffix[1:]}, {WORDS[path.stem]}: section by section {each:.3f} s, {each / library:.2f} of the "
                f"library's time, {memory[0]:.0f} MB (library {memory[1]:.0f} MB); at once {whole:.3f} s, "
                f"{whole / library_whole:.2f}, {memory[2]:.0f} MB ({memory[3]:.0f} MB)"
            )


if __name__ == "__main__":
    main()
