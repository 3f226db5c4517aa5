"""NRRD files, whole and with a header of their own."""

import gzip

import nrrd
import numpy as np
import pytest

from emseg.data.io.formats import open_sections
from emseg.data.io.nrrd import write_nrrd
from emseg.data.io.stack import read_stack
from emseg.errors import InputError

STACK = np.random.default_rng(1).integers(0, 120, (7, 23, 18), dtype=np.uint8)
PIXELS = STACK.tobytes()


def write(path, stack=STACK, **header):
    """As pynrrd writes an array (Z, Y, X)."""
    nrrd.write(str(path), stack, {"encoding": "raw"} | header, index_order="C")


def headed(path, *lines, data=PIXELS):
    path.write_bytes("\n".join(["NRRD0004", *lines, "", ""]).encode("utf-8") + data)
    return path


RAW = ("type: uint8", "dimension: 3", "sizes: 18 23 7", "encoding: raw")


@pytest.mark.parametrize("dtype", ["uint8", "uint16", ">u2", "int16", "float32", "int64"])
@pytest.mark.parametrize("encoding", ["raw", "gzip"])
def test_types_and_encodings(tmp_path, dtype, encoding):
    write(tmp_path / "a.nrrd", STACK.astype(dtype), encoding=encoding)
    sections = open_sections(tmp_path / "a.nrrd")
    # Forwards, backwards and again: a gzipped stack is read from its beginning where it must be.
    for z in (3, 5, 0, 0):
        np.testing.assert_array_equal(sections.read(z), STACK[z])
    np.testing.assert_array_equal(read_stack(tmp_path / "a.nrrd"), STACK)
    assert sections.metadata.compression == (None if encoding == "raw" else "gzip")


def test_every_name_of_a_type(tmp_path):
    for size, names in {1: ("signed char", "int8_t"), 2: ("short int", "signed short"), 8: ("long long int",)}.items():
        for name in names:
            stack = STACK.astype(f"<i{size}")
            file = headed(tmp_path / "a.nrrd", f"type: {name}", *RAW[1:], "endian: little", data=stack.tobytes())
            np.testing.assert_array_equal(read_stack(file, labels=True), stack)
    for size, names in {2: ("ushort", "unsigned short int"), 4: ("uint", "unsigned int"), 8: ("ulonglong",)}.items():
        for name in names:
            stack = STACK.astype(f">u{size}")
            file = headed(tmp_path / "a.nrrd", f"type: {name}", *RAW[1:], "endian: big", data=stack.tobytes())
            found = read_stack(file, labels=True)
            assert found.dtype == f"u{size}"
            np.testing.assert_array_equal(found, STACK)


@pytest.mark.parametrize(
    "lines",
    [
        ("spacings: 4 5 50", 'units: "nm" "nm" "nm"'),
        ("spacings: 0.004 0.005 0.05", 'units: "µm" "microns" "um"'),
        ("space dimension: 3", "space directions: (4,0,0) (0,5,0) (0,0,50)", 'space units: "nm" "nm" "nm"'),
        # Turned: the sides of a voxel are lengths of the directions.
        ("space dimension: 3", "space directions: (0,-4,0) (3,0,4) (0,0,50)", 'space units: "nm" "nm" "nm"'),
    ],
)
def test_voxel_sizes(tmp_path, lines):
    assert open_sections(headed(tmp_path / "a.nrrd", *RAW, *lines)).metadata.voxel_size == (50, 5, 4)


@pytest.mark.parametrize("lines", [(), ("spacings: 4 5 50",), ("spacings: 4 5 nan", 'units: "nm" "nm" "nm"')])
def test_a_voxel_size_that_is_not_said_in_full_is_none(tmp_path, lines):
    assert open_sections(headed(tmp_path / "a.nrrd", *RAW, *lines)).metadata.voxel_size is None


def test_axes_of_length_one_and_one_section(tmp_path):
    write(tmp_path / "flat.nrrd", STACK[0])
    assert open_sections(tmp_path / "flat.nrrd").metadata.axes == "YX"
    np.testing.assert_array_equal(read_stack(tmp_path / "flat.nrrd"), STACK[:1])
    write(tmp_path / "time.nrrd", STACK[None])
    np.testing.assert_array_equal(read_stack(tmp_path / "time.nrrd"), STACK)
    write(tmp_path / "many.nrrd", np.stack([STACK, STACK]))
    with pytest.raises(InputError, match="cut out one channel"):
        read_stack(tmp_path / "many.nrrd")


@pytest.mark.parametrize("encoding", ["raw", "gzip"])
def test_a_header_of_its_own(tmp_path, encoding):
    write(tmp_path / "a.nhdr", encoding=encoding)
    assert len(list(tmp_path.iterdir())) == 2
    np.testing.assert_array_equal(read_stack(tmp_path / "a.nhdr"), STACK)


@pytest.mark.parametrize("skip", [5, -1])
def test_bytes_before_the_pixels(tmp_path, skip):
    file = headed(tmp_path / "a.nrrd", *RAW, f"byte skip: {skip}", data=b"12345" + PIXELS)
    np.testing.assert_array_equal(read_stack(file), STACK)


@pytest.mark.parametrize(
    ("lines", "reason"),
    [
        (("encoding: bzip2",), "raw and gzip are read"),
        (("type: block",), "holds numbers of type block"),
        (("sizes: 18 23 700",), "promises 289800 bytes"),
        (("encoding: gzip", "sizes: 18 23 700000"), "more than 2898 gzipped ones can be"),
        (("sizes: 18 -23 -7",), "sizes"),
        (("data file: ../a.raw",), "beside the header"),
        (("data file: /dev/zero",), "beside the header"),
        (("data file: a%03d.raw 0 6 1",), "one file of data is read"),
        (("line skip: 1000000000",), "skips lines"),
        (("byte skip: -7",), "promises"),
    ],
)
def test_what_is_not_read_is_one_sentence(tmp_path, lines, reason):
    changed = {line.partition(":")[0]: line for line in (*RAW, *lines)}
    file = headed(tmp_path / "a.nrrd", *changed.values())
    with pytest.raises(InputError, match=reason) as error:
        read_stack(file)
    assert str(file) in str(error.value)


def test_gzipped_data_that_end_early_name_the_section(tmp_path):
    lines = [*RAW[:3], "encoding: gzip"]
    file = headed(tmp_path / "a.nrrd", *lines, data=gzip.compress(STACK[:4].tobytes()))
    with pytest.raises(InputError, match="section 4 is truncated"):
        read_stack(file)


@pytest.mark.parametrize("encoding", ["raw", "gzip"])
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
def test_a_result_is_like_its_input(tmp_path, encoding, dtype):
    axes = {
        "space": "left-posterior-superior",
        "space directions": np.diag([4.0, 5.0, 50.0]),
        "space units": ["nm", "nm", "nm"],
        "kinds": ["domain", "domain", "domain"],
    }
    write(tmp_path / "a.nrrd", encoding=encoding, **axes)
    found = open_sections(tmp_path / "a.nrrd").metadata
    for name in ("b.nrrd", "c.nrrd"):
        write_nrrd(tmp_path / name, lambda z: STACK[z].astype(dtype), STACK.shape, np.dtype(dtype), found)
    assert (tmp_path / "b.nrrd").read_bytes() == (tmp_path / "c.nrrd").read_bytes()
    stack, header = nrrd.read(str(tmp_path / "b.nrrd"), index_order="C")
    assert stack.dtype == dtype
    np.testing.assert_array_equal(stack, STACK)
    assert header["encoding"] == encoding
    assert header["space"] == "left-posterior-superior"
    np.testing.assert_array_equal(header["space directions"], np.diag([4, 5, 50]))
    assert open_sections(tmp_path / "b.nrrd").metadata == found
