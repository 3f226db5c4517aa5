"""Damaged files, and headers that say odd things: read, or refused in one sentence; never a traceback."""

from __future__ import annotations

import io
import json
import random
import shutil
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import tifffile
import zarr
from damage import damaged_bytes, damaged_values
from PIL import Image
from segmenters import small_segmenter

from emseg.data.adding import add_source
from emseg.data.io.stack import read_stack, write_stack
from emseg.errors import InputError, RunError
from emseg.segmentation.volume import segment_file

STACK = np.random.default_rng(0).integers(0, 255, (4, 32, 24), dtype=np.uint8)
ODD_NUMBERS = (0, 1, 2, 3, 7, 9, 255, 4095, 65535, 2**31 - 1, 2**31, 2**32 - 1)
OME = {"axes": "ZYX", "PhysicalSizeX": 0.004, "PhysicalSizeXUnit": "µm", "PhysicalSizeZ": 0.05}


def tiff(**options: object) -> bytes:
    stream = io.BytesIO()
    tifffile.imwrite(stream, STACK, **({"photometric": "minisblack", "metadata": {"axes": "ZYX"}} | options))
    return stream.getvalue()


TIFFS = {
    "plain": tiff(),
    "zlib": tiff(compression="zlib", resolution=(250, 250), resolutionunit=3),
    "imagej": tiff(imagej=True, metadata={"axes": "ZYX", "spacing": 50, "unit": "nm"}, resolution=(0.25, 0.25)),
    "ome": tiff(ome=True, metadata=OME),
    "tiled": tiff(tile=(16, 16), compression="lzw"),
    "jpeg": tiff(compression="jpeg"),
    "palette": tiff(photometric="palette", colormap=np.arange(256, dtype=np.uint16)[None].repeat(3, 0) * 257),
}


def odd_tags(content: bytes, seed: int, count: int) -> Iterator[tuple[str, bytes]]:
    """A TIFF in `count` versions, in each of which a field of an entry of its first page holds something else."""
    draw = random.Random(seed)
    order = "<" if content[:2] == b"II" else ">"
    (start,) = struct.unpack_from(f"{order}I", content, 4)
    (entries,) = struct.unpack_from(f"{order}H", content, start)
    for index in range(count):
        changed = bytearray(content)
        entry = start + 2 + 12 * draw.randrange(entries)
        (tag,) = struct.unpack_from(f"{order}H", content, entry)
        field = draw.choice(("tag", "type", "count", "value", "value", "value"))
        number = draw.choice(ODD_NUMBERS)
        if field == "tag":
            # It is as if the entry were not there.
            struct.pack_into(f"{order}H", changed, entry, 65000)
        elif field == "type":
            struct.pack_into(f"{order}H", changed, entry + 2, number % 16)
        elif field == "count":
            struct.pack_into(f"{order}I", changed, entry + 4, number)
        else:
            struct.pack_into(f"{order}I", changed, entry + 8, number)
        yield f"tag-{tag}-{field}-{number}-{index}", bytes(changed)


def png(stack: np.ndarray = STACK) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(stack[0]).save(stream, "png")
    return stream.getvalue()


def odd_png_headers() -> Iterator[tuple[str, bytes]]:
    """A PNG whose header, with its checksum, says something else."""
    content = png()
    sizes = [(width, height) for width in (0, 1, 24, 25, 2**31 - 1) for height in (0, 32, 100_000)]
    forms = [(8, 0), (16, 0), (1, 0), (8, 3), (8, 6), (3, 9)]
    for (width, height), (bits, colour) in zip(sizes, forms * 3, strict=False):
        header = b"IHDR" + struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
        yield (
            f"{width}x{height}-{bits}-{colour}",
            content[:12] + header + struct.pack(">I", zlib.crc32(header)) + content[33:],
        )


def write_zarr(path: Path, zarr_format: int) -> Path:
    array = zarr.create_array(path, shape=STACK.shape, chunks=(1, 32, 24), dtype="uint8", zarr_format=zarr_format)
    array[:] = STACK
    return path


def damaged_zarrs(folder: Path, zarr_format: int, count: int) -> Iterator[tuple[str, Path]]:
    whole = write_zarr(folder / "whole.zarr", zarr_format)
    header = whole / ("zarr.json" if zarr_format == 3 else ".zarray")
    chunk = next(
        file for file in sorted(whole.rglob("*")) if file.is_file() and file.suffix != ".json" and file.name[0] != "."
    )
    texts = damaged_values(json.loads(header.read_text()), zarr_format, count)
    contents = [(name, header, json.dumps(values).encode()) for name, values in texts]
    contents += [(name, header, content) for name, content in damaged_bytes(header.read_bytes(), 5, count // 2)]
    contents += [(name, chunk, content) for name, content in damaged_bytes(chunk.read_bytes(), 6, count // 2)]
    for index, (name, file, content) in enumerate(contents):
        copy = folder / f"{index}.zarr"
        shutil.copytree(whole, copy)
        (copy / file.relative_to(whole)).write_bytes(content)
        yield name, copy


def cases(folder: Path) -> Iterator[tuple[str, Path]]:
    """Name and path of every damaged stack."""
    for seed, (form, content) in enumerate(TIFFS.items()):
        for name, damaged in [*damaged_bytes(content, seed, 6), *odd_tags(content, seed, 24)]:
            path = folder / f"{form}-{name}.tif"
            path.write_bytes(damaged)
            yield path.name, path
    for name, damaged in [*damaged_bytes(png(), 9, 12), *odd_png_headers()]:
        path = folder / f"{name}.png"
        path.write_bytes(damaged)
        yield path.name, path
    for zarr_format in (2, 3):
        (folder / str(zarr_format)).mkdir()
        yield from damaged_zarrs(folder / str(zarr_format), zarr_format, 16)


@pytest.fixture(scope="module")
def segmenter():
    return small_segmenter(STACK)


def sentence_of(path: Path) -> str | None:
    try:
        assert read_stack(path).ndim == 3
    except InputError as error:
        return str(error)
    return None


def test_damaged_stacks_are_read_or_refused_in_one_sentence(tmp_path):
    sentences = {}
    for name, path in cases(tmp_path):
        sentences[path] = sentence = sentence_of(path)
        assert sentence is None or (str(path) in sentence and "\n" not in sentence), name
    refused = [sentence for sentence in sentences.values() if sentence]
    assert len(sentences) >= 200
    assert len(sentences) / 4 < len(refused) < len(sentences)


def test_predict_leaves_nothing_of_damaged_stacks(tmp_path, segmenter):
    for index, (name, path) in enumerate(cases(tmp_path)):
        if index % 4:
            continue
        folder = tmp_path / f"out-{index}"
        target = folder / f"result{'.zarr' if path.is_dir() else '.tif'}"
        try:
            segment_file(segmenter, path, target, "cells")
        except (InputError, RunError):
            assert not folder.exists(), name
        else:
            assert [file.name for file in folder.iterdir()] == [target.name], name


def test_data_add_leaves_nothing_of_damaged_stacks(tmp_path):
    labels = np.where(STACK > 60, 255, 0).astype(np.uint8)
    write_stack(tmp_path / "labels.tif", labels)
    (tmp_path / "cases").mkdir()
    for index, (name, path) in enumerate(cases(tmp_path / "cases")):
        if index % 5 or path.suffix != ".tif":
            continue
        origin = tmp_path / f"origin-{index}"
        origin.mkdir()
        shutil.copy(tmp_path / "labels.tif", origin / "labels.tif")
        shutil.copy(path, origin / "images.tif")
        sources = tmp_path / f"sources-{index}"
        try:
            add_source("mine", origin, sources)
        except InputError:
            assert not sources.exists(), name
        else:
            assert [file.name for file in sources.iterdir()] == ["mine"], name
