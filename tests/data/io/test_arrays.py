"""MRC and numpy files."""

import mrcfile
import numpy as np
import pytest

from emseg.data.io.formats import open_sections
from emseg.data.io.stack import read_stack
from emseg.errors import InputError

STACK = np.random.default_rng(1).integers(0, 120, (7, 23, 18), dtype=np.uint8)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", ">u2", "bool", "float32", "int64"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_arrays_of_numpy(tmp_path, dtype, order):
    np.save(tmp_path / "a.npy", np.asarray(STACK.astype(dtype), order=order))
    sections = open_sections(tmp_path / "a.npy")
    expected = STACK.astype(dtype)
    np.testing.assert_array_equal(sections.read(3), expected[3])
    found = read_stack(tmp_path / "a.npy")
    assert found.dtype == ("uint8" if dtype == "int64" else np.dtype(dtype).newbyteorder("="))
    np.testing.assert_array_equal(found, expected)


def test_an_array_of_objects_is_never_unpickled(tmp_path):
    np.save(tmp_path / "a.npy", np.array([{}, {}]), allow_pickle=True)
    with pytest.raises(InputError, match=r"a\.npy"):
        open_sections(tmp_path / "a.npy")


def test_an_array_that_promises_too_much_is_refused(tmp_path):
    np.save(tmp_path / "a.npy", STACK)
    content = (tmp_path / "a.npy").read_bytes()
    (tmp_path / "a.npy").write_bytes(content.replace(b"(7, 23, 18), }      ", b"(7000000, 23, 18), }"))
    with pytest.raises(InputError, match=r"a\.npy is truncated"):
        open_sections(tmp_path / "a.npy")


@pytest.mark.parametrize("dtype", ["int8", "int16", "uint16", "float32", "float16"])
def test_mrc_of_every_mode(tmp_path, dtype):
    with mrcfile.new(tmp_path / "a.mrc") as file:
        file.set_data(STACK.astype(dtype))
        file.voxel_size = (40, 50, 500)
    sections = open_sections(tmp_path / "a.mrc")
    assert sections.metadata.voxel_size == (50, 5, 4)
    np.testing.assert_array_equal(sections.read(3), STACK[3])
    found = read_stack(tmp_path / "a.mrc")
    assert found.dtype == (np.uint8 if dtype.startswith("int") else dtype)
    np.testing.assert_array_equal(found, STACK)


def test_mrc_of_one_section_of_another_order_and_of_imod(tmp_path):
    mrcfile.write(tmp_path / "flat.mrc", STACK[0].astype(np.int16))
    np.testing.assert_array_equal(read_stack(tmp_path / "flat.mrc"), STACK[:1])
    big = STACK.astype(">i2")
    mrcfile.write(tmp_path / "big.mrc", STACK.astype(np.int16))
    content = bytearray((tmp_path / "big.mrc").read_bytes())
    header = np.frombuffer(content[:1024], "<i4").astype(">i4").tobytes()
    # Words of text stay; what says the order changes.
    swapped = bytearray(header)
    swapped[208:212], swapped[212:216], swapped[224:] = b"MAP ", b"\x11\x11\x00\x00", content[224:1024]
    swapped[220:224] = content[220:224][::-1]
    (tmp_path / "big.mrc").write_bytes(swapped + big.tobytes())
    np.testing.assert_array_equal(read_stack(tmp_path / "big.mrc"), STACK)
    # IMOD keeps bytes without a sign, and says so in flags.
    mrcfile.write(tmp_path / "imod.mrc", (STACK * 2).view(np.int8))
    with pytest.raises(InputError, match="values go from -"):
        read_stack(tmp_path / "imod.mrc")
    content = bytearray((tmp_path / "imod.mrc").read_bytes())
    content[152:160] = np.array([1146047817, 0], "<i4").tobytes()
    (tmp_path / "imod.mrc").write_bytes(content)
    np.testing.assert_array_equal(read_stack(tmp_path / "imod.mrc"), STACK * 2)
