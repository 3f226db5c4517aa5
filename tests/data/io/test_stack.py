import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from skimage.io import imsave

from emseg.data import read_stack, write_stack
from emseg.data.io.stack import stack_digest
from emseg.errors import InputError


@settings(deadline=None, max_examples=25)
@given(
    st.sampled_from([np.uint8, np.uint16, np.float32, np.float16]).flatmap(
        lambda dtype: arrays(
            dtype,
            st.tuples(st.integers(1, 4), st.integers(1, 9), st.integers(1, 9)),
            elements={"allow_nan": False, "allow_infinity": False} if np.dtype(dtype).kind == "f" else None,
        )
    )
)
def test_what_is_written_is_read(tmp_path_factory, stack):
    path = tmp_path_factory.mktemp("stack") / "stack.tif"
    write_stack(path, stack)
    found = read_stack(path)
    assert found.dtype == stack.dtype
    np.testing.assert_array_equal(found, stack)
    first = path.read_bytes()
    write_stack(path, stack)
    assert path.read_bytes() == first


@pytest.mark.parametrize("suffix", ["tif", "png"])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_folder_of_single_sections_in_number_order(tmp_path, suffix, dtype):
    sections = np.random.default_rng(0).integers(0, 250, (12, 7, 9)).astype(dtype)
    for z, section in enumerate(sections):
        imsave(tmp_path / f"section{z}.{suffix}", section, check_contrast=False)
    found = read_stack(tmp_path)
    assert found.dtype == dtype
    np.testing.assert_array_equal(found, sections)


@pytest.mark.parametrize("compression", ["lzw", "deflate", None])
@pytest.mark.parametrize("imagej", [False, True])
def test_tiffs_as_labs_have_them(tmp_path, compression, imagej):
    sections = np.random.default_rng(0).integers(0, 255, (5, 16, 17)).astype(np.uint8)
    path = tmp_path / "stack.tif"
    if imagej:
        tifffile.imwrite(path, sections, imagej=True, metadata={"axes": "ZYX"})
    else:
        with tifffile.TiffWriter(path) as writer:
            for section in sections:
                writer.write(section, compression=compression, contiguous=False)
    np.testing.assert_array_equal(read_stack(path), sections)


def damaged(tmp_path):
    stack = np.random.default_rng(0).integers(0, 255, (6, 64, 64)).astype(np.uint8)
    whole = tmp_path / "whole.tif"
    write_stack(whole, stack)
    content = whole.read_bytes()
    tifffile.imwrite(tmp_path / "plain.tif", stack)
    plain = (tmp_path / "plain.tif").read_bytes()
    return {
        "empty.tif": b"",
        "text.tif": b"not a TIFF at all",
        "half.tif": content[: len(content) // 2],
        "most.tif": content[:-200],
        "plain-half.tif": plain[: len(plain) // 2],
        "text.png": b"not a PNG",
    }


@pytest.mark.parametrize("name", ["empty.tif", "text.tif", "half.tif", "most.tif", "plain-half.tif", "text.png"])
def test_damaged_files_are_refused_with_their_name(tmp_path, name):
    path = tmp_path / name
    path.write_bytes(damaged(tmp_path)[name])
    with pytest.raises(InputError, match=f"{name} is (empty|truncated)"):
        read_stack(path)


def test_mixed_sizes_colour_and_other_formats_are_refused(tmp_path):
    for name, shape in (("mixed/0.png", (8, 8)), ("mixed/1.png", (8, 9)), ("colour/0.png", (8, 8, 3))):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        imsave(tmp_path / name, np.arange(np.prod(shape), dtype=np.uint8).reshape(shape), check_contrast=False)
    colour = np.arange(8 * 8 * 3, dtype=np.uint8).reshape(8, 8, 3)
    tifffile.imwrite(tmp_path / "colour.tif", colour, photometric="rgb")
    tifffile.imwrite(tmp_path / "deep.tif", np.full((8, 8), 2**40))
    (tmp_path / "notes.txt").write_text("hello")
    (tmp_path / "nothing").mkdir()
    for name, message in (
        ("mixed", "one size"),
        ("colour", "in colour"),
        ("colour.tif", "colour"),
        ("deep.tif", "grey levels from 0 to 65,535"),
        ("notes.txt", "'.txt' files are not read; what is read: TIFF"),
        ("nothing", "holds no"),
        ("absent.tif", "does not exist"),
    ):
        with pytest.raises(InputError, match=message):
            read_stack(tmp_path / name)


def test_a_failed_write_leaves_nothing(tmp_path):
    with pytest.raises(InputError, match=r"\(Z, Y, X\)"):
        write_stack(tmp_path / "flat.tif", np.zeros((4, 4)))
    assert not list(tmp_path.iterdir())


def test_digest_sees_every_pixel():
    stack = np.zeros((30, 64, 64), np.uint8)
    other = stack.copy()
    other[-1, -1, -1] = 1
    assert stack_digest(stack) != stack_digest(other)
    assert stack_digest(stack) != stack_digest(stack.reshape(15, 128, 64))
    assert len(stack_digest(stack)) == 32
