"""PNG of every mode that is grey, or that is labels of two colours."""

import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from emseg.data.io.formats import open_sections
from emseg.data.io.stack import read_stack
from emseg.errors import InputError

SECTION = np.random.default_rng(0).integers(0, 255, (23, 18), dtype=np.uint8)
MASK = SECTION > 120


def plain_png(samples, bits, colour, width=None, height=None):
    """A PNG after the specification, of rows of bytes as they are stored; its header may say another size."""

    def chunk(name, content):
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    header = struct.pack(">IIBBBBB", width or samples.shape[1], height or samples.shape[0], bits, colour, 0, 0, 0)
    rows = b"".join(b"\0" + row.tobytes() for row in samples)
    start = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header)
    return start + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA", "P"])
def test_grey_of_eight_bits_in_every_mode(tmp_path, mode):
    Image.fromarray(SECTION).convert(mode).save(tmp_path / "a.png")
    found = read_stack(tmp_path / "a.png")
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, SECTION[None])


@pytest.mark.parametrize(("colour", "channels"), [(0, 1), (2, 3), (4, 2), (6, 4)])
def test_grey_of_sixteen_bits_keeps_all_of_them(tmp_path, colour, channels):
    wide = SECTION.astype(np.uint16) * 257 - SECTION // 3
    samples = np.stack([wide] * channels, -1)
    if channels in (2, 4):
        samples[..., -1] = 65535
    (tmp_path / "a.png").write_bytes(plain_png(samples.astype(">u2"), 16, colour))
    found = read_stack(tmp_path / "a.png")
    assert found.dtype == np.uint16
    np.testing.assert_array_equal(found[0], wide)


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_few_bits_are_a_mask_or_stretched_to_eight(tmp_path, bits):
    numbers = SECTION[:, :16] >> (8 - bits)
    planes = (numbers[..., None] >> np.arange(bits)[::-1]) & 1
    (tmp_path / "a.png").write_bytes(plain_png(np.packbits(planes.reshape(23, -1), axis=1), bits, 0, width=16))
    found = read_stack(tmp_path / "a.png")[0]
    if bits == 1:
        assert found.dtype == bool
    np.testing.assert_array_equal(found, numbers if bits == 1 else numbers * (255 // (2**bits - 1)))


def test_a_palette_is_read_through_its_table(tmp_path):
    image = Image.fromarray((~MASK).astype(np.uint8), "P")
    image.putpalette([255, 255, 255, 0, 0, 0])
    image.save(tmp_path / "a.png")
    for labels in (False, True):
        np.testing.assert_array_equal(read_stack(tmp_path / "a.png", labels=labels)[0], MASK * 255)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P"])
@pytest.mark.parametrize("colours", [((0, 0, 0), (255, 0, 0)), ((255, 255, 255), (0, 0, 255))])
def test_labels_of_two_colours_are_their_brightness(tmp_path, mode, colours):
    image = Image.fromarray(np.array(colours, np.uint8)[MASK.astype(int)])
    image = image.quantize(2) if mode == "P" else image.convert(mode)
    image.save(tmp_path / "a.png")
    found = read_stack(tmp_path / "a.png", labels=True)[0]
    low, high = np.unique(found)
    bright = max(range(2), key=lambda index: sum(colours[index]))
    np.testing.assert_array_equal(found == high, (bright == 1) == MASK)
    assert low < high
    with pytest.raises(InputError, match="is in colour"):
        read_stack(tmp_path / "a.png")


def test_labels_of_three_colours_and_transparent_ones_are_refused(tmp_path):
    colours = np.array([(0, 0, 0), (255, 0, 0), (0, 255, 0)], np.uint8)
    Image.fromarray(colours[SECTION % 3]).save(tmp_path / "three.png")
    with pytest.raises(InputError, match=r"three\.png: it is in colour: expected grey levels, or labels of two"):
        read_stack(tmp_path / "three.png", labels=True)
    image = Image.fromarray(SECTION).convert("RGBA")
    image.putalpha(Image.fromarray(MASK.astype(np.uint8) * 255))
    image.save(tmp_path / "alpha.png")
    with pytest.raises(InputError, match="transparent in places"):
        read_stack(tmp_path / "alpha.png", labels=True)


def with_palette(numbers, colours):
    image = Image.fromarray(numbers, "P")
    image.putpalette(np.array(colours, np.uint8).ravel().tolist())
    return image


def test_labels_by_number_with_a_table_of_colours(tmp_path):
    colours = [(0, 0, 0), (255, 0, 0), (0, 255, 0)]
    (tmp_path / "labels").mkdir()
    for z in range(2):
        with_palette(SECTION % 3, colours).save(tmp_path / "labels" / f"{z}.png")
    np.testing.assert_array_equal(read_stack(tmp_path / "labels", labels=True)[1], SECTION % 3)
    with_palette(SECTION % 3, colours[::-1]).save(tmp_path / "labels" / "2.png")
    with pytest.raises(InputError, match=r"2\.png has another table of colours than 0\.png"):
        read_stack(tmp_path / "labels", labels=True)


def test_a_header_that_promises_too_much_is_refused_before_a_pixel_is_made(tmp_path):
    (tmp_path / "a.png").write_bytes(plain_png(SECTION, 8, 0, width=2**20, height=2**20))
    with pytest.raises(InputError, match="says its sections have 1048576 x 1048576 pixels"):
        open_sections(tmp_path / "a.png")
