"""Folders of single sections: nothing that may be a section vanishes without a word."""

import numpy as np
import pytest
from PIL import Image

from emseg.data.io.formats import open_sections
from emseg.data.io.stack import read_stack
from emseg.errors import InputError

SECTION = np.random.default_rng(0).integers(0, 255, (8, 9), dtype=np.uint8)


def write_sections(folder, names):
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        Image.fromarray(SECTION).save(folder / name)
    return folder


@pytest.mark.parametrize("name", ["s2.jpg", "s2.JPEG", "s2.bmp", "s2.jp2", "s2.gif"])
def test_an_image_that_is_not_read_is_refused_by_name(tmp_path, name):
    folder = write_sections(tmp_path / "images", ["s1.png", name, "s3.png"])
    with pytest.raises(InputError, match=rf"{name} is not read: sections are \.tif, \.tiff or \.png"):
        open_sections(folder)


@pytest.mark.parametrize("name", ["s2.mrc", "s2.h5", "s2.npy", "s2.dm4", "s2.czi"])
def test_a_file_of_an_instrument_is_refused_by_name(tmp_path, name):
    folder = write_sections(tmp_path / "images", ["s1.png", "s3.png"])
    (folder / name).write_bytes(b"something")
    with pytest.raises(InputError, match=name):
        open_sections(folder)


def test_notes_are_left_aside_and_what_is_unknown_is_said(tmp_path):
    folder = write_sections(tmp_path / "images", ["s1.png", "s2.png"])
    for name in (".DS_Store", "._s1.png", "Thumbs.db", "notes.txt", "s1.xml", "table.csv"):
        (folder / name).write_bytes(b"something")
    sections = open_sections(folder)
    assert (sections.names, sections.remarks) == (["s1.png", "s2.png"], [])
    (folder / "s3.xyz").write_bytes(b"something")
    (folder / "old").mkdir()
    assert open_sections(folder).remarks == [f"{folder}: left aside, as no section: old, s3.xyz"]


@pytest.mark.parametrize(
    ("names", "gaps"),
    [
        (["1.tif", "2.tif", "4.tif", "5.tif"], ["between 2.tif and 4.tif"]),
        (["s_008.png", "s_009.tif", "s_011.png"], ["between s_009.tif and s_011.png"]),
        (
            ["r1_z1.png", "r1_z2.png", "r1_z5.png", "r1_z6.png", "r1_z8.png"],
            ["r1_z2.png and r1_z5", "r1_z6.png and r1_z8"],
        ),
        (["1.tif", "2.tif", "3.tif"], []),
        (["2.tif", "4.tif", "6.tif"], []),
        (["a.tif", "b.tif"], []),
        (["a1.tif", "a2.tif", "b7.tif"], []),
        (["1.tif"], []),
    ],
)
def test_a_gap_in_the_numbers_is_said(tmp_path, names, gaps):
    remarks = []
    read_stack(write_sections(tmp_path / "images", names), remarks.append)
    assert len(remarks) == len(gaps)
    assert all(gap in remark for gap, remark in zip(gaps, remarks, strict=True))


def test_numbers_in_other_scripts_have_an_order_too(tmp_path):
    folder = write_sections(tmp_path / "images", ["s².png", "s10.png", "s9.png"])
    assert open_sections(folder).names == ["s9.png", "s10.png", "s².png"]


def test_an_animated_png_is_refused(tmp_path):
    first, second = Image.fromarray(SECTION), Image.fromarray(SECTION[::-1])
    first.save(tmp_path / "two.png", save_all=True, append_images=[second])
    with pytest.raises(InputError, match="animated, of 2 images"):
        open_sections(tmp_path / "two.png")
