"""Zarr of both formats: arrays, groups, OME-Zarr images."""

import numpy as np
import pytest
import zarr

from emseg.data.io.formats import open_sections
from emseg.data.io.stack import read_stack
from emseg.errors import InputError

SECTION = np.random.default_rng(0).integers(0, 255, (23, 18), dtype=np.uint8)
STACK = np.random.default_rng(1).integers(0, 255, (7, 23, 18), dtype=np.uint8)


@pytest.mark.parametrize("zarr_format", [2, 3])
@pytest.mark.parametrize("dtype", [">u2", ">f4", "<u2"])
def test_zarr_of_either_byte_order(tmp_path, zarr_format, dtype):
    stack = np.stack([SECTION] * 3).astype(dtype)
    array = zarr.create_array(tmp_path / "a.zarr", shape=stack.shape, dtype=dtype, zarr_format=zarr_format)
    array[:] = stack
    found = read_stack(tmp_path / "a.zarr")
    assert found.dtype == np.dtype(dtype).newbyteorder("=")
    assert found.dtype.isnative
    np.testing.assert_array_equal(found, stack)


def test_a_zarr_that_says_it_has_more_sections_than_there_can_be(tmp_path):
    zarr.create_array(tmp_path / "a.zarr", shape=(10**12, 8, 8), chunks=(1, 8, 8), dtype="uint8")
    with pytest.raises(InputError, match="says it has 1,000,000,000,000 sections"):
        open_sections(tmp_path / "a.zarr")


def test_a_stack_larger_than_memory_is_refused_where_it_is_read_whole(tmp_path):
    zarr.create_array(tmp_path / "a.zarr", shape=(10**6, 2**14, 2**14), chunks=(1, 2**14, 2**14), dtype="float32")
    with pytest.raises(InputError, match="GiB of memory"):
        read_stack(tmp_path / "a.zarr")


def test_a_damaged_chunk_is_one_sentence(tmp_path):
    array = zarr.create_array(tmp_path / "a.zarr", shape=(2, 8, 8), chunks=(1, 8, 8), dtype="uint8")
    array[:] = 7
    (tmp_path / "a.zarr" / "c" / "1" / "0" / "0").write_bytes(b"no chunk")
    with pytest.raises(InputError, match=r"a\.zarr, section 1 is truncated or not readable"):
        read_stack(tmp_path / "a.zarr")


def write_ome(path, axes, version, unit="nanometer"):
    """An OME-Zarr image of two levels, the coarse one first; written after the specification."""
    is_v3 = version == "0.5"
    group = zarr.create_group(path, zarr_format=3 if is_v3 else 2)
    scales = {"z": 50, "y": 4, "x": 4}
    entry = {
        "axes": [{"name": name} | ({"type": "space", "unit": unit} if name in scales else {}) for name in axes],
        "datasets": [],
    }
    shape = tuple({"z": 7, "y": 23, "x": 18}.get(name, 1) for name in axes)
    for level, step in (("1", 2), ("0", 1)):
        data = STACK[:, ::step, ::step]
        data = data.reshape([data.shape["zyx".index(name)] if name in scales else 1 for name in axes])
        group.create_array(level, data=data, chunks=tuple(3 if name == "z" else 8 for name in axes))
        scale = [scales.get(name, 1) * (step if name in "yx" else 1) for name in axes]
        entry["datasets"].insert(0, {"path": level, "coordinateTransformations": [{"type": "scale", "scale": scale}]})
    assert group["0"].shape == shape
    attributes = (
        {"ome": {"version": version, "multiscales": [entry]}}
        if is_v3
        else {"multiscales": [entry | {"version": version}]}
    )
    group.attrs.update(attributes)


@pytest.mark.parametrize("version", ["0.4", "0.5"])
@pytest.mark.parametrize("axes", ["zyx", "czyx", "tczyx"])
def test_an_ome_zarr_image_gives_its_finest_level(tmp_path, version, axes):
    write_ome(tmp_path / "a.zarr", axes, version)
    sections = open_sections(tmp_path / "a.zarr")
    assert sections.metadata.voxel_size == (50, 4, 4)
    assert sections.remarks == []
    np.testing.assert_array_equal(sections.read_all(), STACK)
    np.testing.assert_array_equal([sections.read(z) for z in (6, 0, 3)], STACK[[6, 0, 3]])


def test_an_ome_zarr_image_of_other_units(tmp_path):
    write_ome(tmp_path / "a.zarr", "zyx", "0.4", "micrometer")
    assert open_sections(tmp_path / "a.zarr").metadata.voxel_size == (50_000, 4000, 4000)


def test_a_group_of_one_image_or_of_names_that_say_it(tmp_path):
    group = zarr.create_group(tmp_path / "one.zarr")
    group.create_array("volumes/anything", data=STACK)
    np.testing.assert_array_equal(read_stack(tmp_path / "one.zarr"), STACK)
    group.create_array("volumes/other", data=STACK)
    with pytest.raises(InputError, match=r"holds 2 arrays \(volumes/anything, volumes/other\); say which"):
        read_stack(tmp_path / "one.zarr")
    group.create_array("volumes/raw", data=STACK[::-1])
    np.testing.assert_array_equal(read_stack(tmp_path / "one.zarr"), STACK[::-1])
    for place in ("one.zarr:volumes/other", "one.zarr/volumes/other"):
        np.testing.assert_array_equal(read_stack(f"{tmp_path}/{place}"), STACK)
    with pytest.raises(InputError, match=r"no array volumes/none; it has volumes/anything, volumes/other, volumes/raw"):
        read_stack(f"{tmp_path}/one.zarr:volumes/none")
    zarr.create_group(tmp_path / "empty.zarr")
    with pytest.raises(InputError, match="holds no array"):
        read_stack(tmp_path / "empty.zarr")


def test_axes_by_name_in_any_order(tmp_path):
    array = zarr.create_array(
        tmp_path / "a.zarr", data=STACK.transpose(2, 1, 0).copy(), dimension_names=("x", "y", "z")
    )
    array.attrs["resolution"] = [4, 5, 50]
    sections = open_sections(tmp_path / "a.zarr")
    np.testing.assert_array_equal(sections.read_all(), STACK)
    assert sections.metadata.voxel_size == (50, 5, 4)


def test_one_section_and_channels(tmp_path):
    zarr.create_array(tmp_path / "flat.zarr", data=SECTION)
    np.testing.assert_array_equal(read_stack(tmp_path / "flat.zarr"), SECTION[None])
    zarr.create_array(tmp_path / "channels.zarr", data=np.stack([STACK] * 2))
    with pytest.raises(InputError, match="cut out one channel"):
        read_stack(tmp_path / "channels.zarr")
    zarr.create_array(tmp_path / "colour.zarr", data=np.stack([SECTION[:18]] * 3, -1))
    with pytest.raises(InputError, match="as an image in colour"):
        read_stack(tmp_path / "colour.zarr")


def test_labels_by_number(tmp_path):
    cells = STACK.astype(np.uint64) * 2**40
    zarr.create_array(tmp_path / "cells.zarr", data=cells)
    np.testing.assert_array_equal(read_stack(tmp_path / "cells.zarr", labels=True), cells)
    with pytest.raises(InputError, match="grey levels from 0 to 65,535"):
        read_stack(tmp_path / "cells.zarr")
