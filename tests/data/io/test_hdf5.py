"""HDF5 in the layouts of CREMI, ilastik and others."""

import json

import h5py
import numpy as np
import pytest

from emseg.data.io.formats import open_sections
from emseg.data.io.stack import read_stack
from emseg.errors import InputError

STACK = np.random.default_rng(1).integers(0, 255, (7, 23, 18), dtype=np.uint8)
CELLS = STACK.astype(np.uint64) * 2**33


def write(path, **datasets):
    with h5py.File(path, "w") as file:
        for name, (data, attributes) in datasets.items():
            dataset = file.create_dataset(name.replace("__", "/"), data=data, chunks=True, compression="gzip")
            dataset.attrs.update(attributes)


def test_the_layout_of_cremi_is_found_by_itself(tmp_path):
    size = {"resolution": (40.0, 4.0, 4.0)}
    clefts = {"volumes__labels__clefts": (CELLS // 3, size)}
    write(tmp_path / "a.hdf", volumes__raw=(STACK, size), volumes__labels__neuron_ids=(CELLS, size), **clefts)
    sections = open_sections(tmp_path / "a.hdf")
    assert (sections.inner, sections.metadata.voxel_size) == ("volumes/raw", (40, 4, 4))
    np.testing.assert_array_equal(sections.read_all(), STACK)
    np.testing.assert_array_equal([sections.read(z) for z in (6, 0, 3)], STACK[[6, 0, 3]])
    found = read_stack(tmp_path / "a.hdf", labels=True)
    assert found.dtype == np.uint64
    np.testing.assert_array_equal(found, CELLS)
    np.testing.assert_array_equal(read_stack(f"{tmp_path}/a.hdf:volumes/labels/clefts", labels=True), CELLS // 3)


def axistags(axes):
    return {"axistags": json.dumps({"axes": [{"key": key, "typeFlags": 2, "resolution": 0} for key in axes]})}


@pytest.mark.parametrize("axes", ["zyx", "zyxc", "tzyxc", "xyz", "czyx", "yxzc"])
def test_the_layout_of_ilastik_with_its_axes(tmp_path, axes):
    lengths = dict(zip("zyx", STACK.shape, strict=True))
    order = ["zyx".index(axis) for axis in axes if axis in "zyx"]
    data = STACK.transpose(order).reshape([lengths.get(axis, 1) for axis in axes])
    write(tmp_path / "a.h5", exported_data=(data, axistags(axes)))
    sections = open_sections(tmp_path / "a.h5")
    np.testing.assert_array_equal(sections.read_all(), STACK)
    np.testing.assert_array_equal([sections.read(z) for z in (6, 0, 3)], STACK[[6, 0, 3]])


def test_planes_along_time_are_sections_with_a_word_and_channels_are_refused(tmp_path):
    write(tmp_path / "t.h5", exported_data=(STACK, axistags("tyx")))
    said = []
    np.testing.assert_array_equal(read_stack(tmp_path / "t.h5", said.append), STACK)
    assert "its 7 planes lie along T" in said[0]
    write(tmp_path / "c.h5", exported_data=(np.stack([STACK] * 2, -1), axistags("zyxc")))
    with pytest.raises(InputError, match="axes ZYXC, shape"):
        read_stack(tmp_path / "c.h5")


def test_one_dataset_is_the_one_and_several_are_named(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["deep/down/whatever"] = STACK
        file["table"] = np.arange(5)
        file["note"] = "text"
    np.testing.assert_array_equal(read_stack(tmp_path / "a.h5"), STACK)
    with h5py.File(tmp_path / "a.h5", "a") as file:
        file["other"] = STACK[::-1]
    with pytest.raises(InputError, match=r"2 arrays \(deep/down/whatever, other\); say which, such as .*a\.h5:deep"):
        read_stack(tmp_path / "a.h5")
    np.testing.assert_array_equal(read_stack(f"{tmp_path}/a.h5:other"), STACK[::-1])
    np.testing.assert_array_equal(read_stack(f"{tmp_path}/a.h5:/other"), STACK[::-1])
    with pytest.raises(InputError, match="has no dataset nothing; it has deep/down/whatever, other"):
        read_stack(f"{tmp_path}/a.h5:nothing")
    with h5py.File(tmp_path / "none.h5", "w"):
        pass
    with pytest.raises(InputError, match="holds no array"):
        read_stack(tmp_path / "none.h5")


@pytest.mark.parametrize(
    "attributes",
    [
        {"element_size_um": (0.05, 0.005, 0.004)},
        {"voxel_size": (50, 5, 4)},
        {"resolution": (0.05, 0.005, 0.004), "units": ["um"] * 3},
        {"resolution": (0.05, 0.005, 0.004), "units": "micron"},
    ],
)
def test_voxel_sizes_as_programs_write_them(tmp_path, attributes):
    write(tmp_path / "a.h5", raw=(STACK, attributes))
    assert open_sections(tmp_path / "a.h5").metadata.voxel_size == (50, 5, 4)
    write(tmp_path / "odd.h5", raw=(STACK, {"resolution": (0, np.nan, 4)}))
    assert open_sections(tmp_path / "odd.h5").metadata.voxel_size is None


def test_a_dataset_that_promises_too_much_is_refused_before_a_pixel_is_made(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("raw", (10**12, 8, 8), "u1", chunks=(1, 8, 8))
        file.create_dataset("wide", (1, 10**6, 10**6), "u1", chunks=(1, 8, 8))
    with pytest.raises(InputError, match="says it has 1,000,000,000,000 sections"):
        open_sections(tmp_path / "a.h5")
    with pytest.raises(InputError, match="1000000 x 1000000 pixels"):
        open_sections(f"{tmp_path}/a.h5:wide")


def test_without_its_package_a_sentence_names_the_extra(tmp_path, monkeypatch):
    for module, name in (("h5py", "a.h5"), ("mrcfile", "a.mrc"), ("nrrd", "a.nrrd")):
        (tmp_path / name).write_bytes(b"something")
        monkeypatch.setitem(__import__("sys").modules, module, None)
        with pytest.raises(InputError, match=r"pip install emseg\[volumes\]"):
            open_sections(tmp_path / name)
