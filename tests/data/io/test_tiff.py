"""TIFFs that say little, or say it the other way round."""

import io

import numpy as np
import pytest
import tifffile
from PIL import Image
from plain_tiff import COMPRESSION, COUNTS, OPTIONAL, PHOTOMETRIC, ROWS, SAMPLES, UNIT, plain_tiff

from emseg.data.io.formats import open_sections
from emseg.data.io.stack import read_stack, write_stack
from emseg.errors import InputError

SECTION = np.random.default_rng(0).integers(0, 255, (23, 18), dtype=np.uint8)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("strips", [1, 3])
@pytest.mark.parametrize("without", [(), (COMPRESSION,), (SAMPLES,), (COUNTS,), (PHOTOMETRIC,), OPTIONAL])
def test_absent_tags_mean_what_the_specification_says(tmp_path, order, dtype, strips, without):
    section = SECTION.astype(dtype) * (200 if dtype == np.uint16 else 1)
    if ROWS in without:
        strips = 1
    path = tmp_path / "section.tif"
    path.write_bytes(plain_tiff(section, without, order, strips))
    found = read_stack(path)
    assert found.dtype == dtype
    np.testing.assert_array_equal(found, section[None])


def test_a_section_without_byte_counts_that_is_cut_is_refused(tmp_path):
    # The directory stands in front, the pixels end early.
    content = plain_tiff(SECTION, (COUNTS,), bits=16)
    (tmp_path / "cut.tif").write_bytes(content)
    with pytest.raises(InputError, match="truncated"):
        read_stack(tmp_path / "cut.tif")


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_white_is_zero_comes_in_as_black_is_zero(tmp_path, dtype):
    section = SECTION.astype(dtype)
    (tmp_path / "white.tif").write_bytes(plain_tiff(np.iinfo(dtype).max - section, photometric=0))
    np.testing.assert_array_equal(read_stack(tmp_path / "white.tif")[0], section)
    assert open_sections(tmp_path / "white.tif").dtype == dtype


def test_one_bit_labels_of_either_photometric(tmp_path):
    mask = SECTION > 100
    (tmp_path / "black.tif").write_bytes(plain_tiff(mask, photometric=1))
    (tmp_path / "white.tif").write_bytes(plain_tiff(~mask, photometric=0))
    # Pillow and fax compression go by the specification; tifffile calls every mask white-is-zero, and means its bits.
    Image.fromarray(mask).save(tmp_path / "fax.tif", compression="group4")
    tifffile.imwrite(tmp_path / "tifffile.tif", mask)
    for name in ("black", "white", "fax", "tifffile"):
        np.testing.assert_array_equal(read_stack(tmp_path / f"{name}.tif")[0], mask, err_msg=name)


def test_white_is_zero_of_floats_is_refused(tmp_path):
    tifffile.imwrite(tmp_path / "white.tif", SECTION.astype(np.float32), photometric="miniswhite")
    with pytest.raises(InputError, match="lowest value is white"):
        read_stack(tmp_path / "white.tif")


def test_pages_that_disagree_on_white_are_refused(tmp_path):
    with tifffile.TiffWriter(tmp_path / "mixed.tif") as tiff:
        tiff.write(SECTION, photometric="minisblack", contiguous=False)
        tiff.write(SECTION, photometric="miniswhite", contiguous=False)
    with pytest.raises(InputError, match="different"):
        read_stack(tmp_path / "mixed.tif")


@pytest.mark.parametrize("scale", [1, 256, 257])
def test_a_grey_palette_is_read_through_its_table(tmp_path, scale):
    # Some programs write 8 bits into the table's 16, at either end.
    table = (np.arange(256)[::-1] * scale).astype(np.uint16)[None].repeat(3, 0)
    tifffile.imwrite(tmp_path / "palette.tif", np.stack([SECTION] * 3), photometric="palette", colormap=table)
    found = read_stack(tmp_path / "palette.tif")
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, np.stack([255 - SECTION] * 3))


def test_a_colour_palette_is_refused(tmp_path):
    table = np.random.default_rng(1).integers(0, 2**16, (3, 256)).astype(np.uint16)
    tifffile.imwrite(tmp_path / "palette.tif", SECTION, photometric="palette", colormap=table)
    with pytest.raises(InputError, match=r"palette\.tif is in colour, by its colour table"):
        read_stack(tmp_path / "palette.tif")


@pytest.mark.parametrize(("unit", "expected"), [(0, 1), (1, 1), (2, 2), (3, 3), (9, 1)])
def test_an_odd_resolution_unit_is_no_unit(tmp_path, unit, expected):
    (tmp_path / "section.tif").write_bytes(plain_tiff(SECTION, unit=unit))
    assert open_sections(tmp_path / "section.tif").metadata.storage.resolution_unit == expected


def test_an_absent_resolution_unit_is_the_inch(tmp_path):
    (tmp_path / "section.tif").write_bytes(plain_tiff(SECTION, (UNIT,), unit=3))
    storage = open_sections(tmp_path / "section.tif").metadata.storage
    assert (storage.resolution, storage.resolution_unit) == ((250, 250), 2)


def test_an_unknown_compression_is_refused(tmp_path):
    (tmp_path / "section.tif").write_bytes(plain_tiff(SECTION, compression=12345))
    with pytest.raises(InputError, match=r"section\.tif"):
        read_stack(tmp_path / "section.tif")


@pytest.mark.parametrize("size", ["abc", "-1", "0", "1e999", "nan"])
def test_an_odd_physical_size_is_left_out(tmp_path, size):
    tifffile.imwrite(
        tmp_path / "ome.tif",
        np.stack([SECTION] * 3),
        ome=True,
        metadata={"axes": "ZYX", "PhysicalSizeX": 0.004, "PhysicalSizeY": 0.0048},
    )
    content = (tmp_path / "ome.tif").read_bytes()
    (tmp_path / "odd.tif").write_bytes(content.replace(b'"0.004"', f'"{size}"'.ljust(7).encode()))
    assert open_sections(tmp_path / "odd.tif").metadata.storage.ome == {"PhysicalSizeY": 0.0048}


def test_pages_that_the_description_leaves_out_do_not_vanish(tmp_path):
    tifffile.imwrite(tmp_path / "ome.tif", np.stack([SECTION] * 4), ome=True, metadata={"axes": "ZYX"})
    content = (tmp_path / "ome.tif").read_bytes()
    (tmp_path / "less.tif").write_bytes(content.replace(b'SizeZ="4"', b'SizeZ="3"'))
    with pytest.raises(InputError, match="has 4 pages but its OME entry speaks of 3"):
        open_sections(tmp_path / "less.tif")
    images = [f"images={images}\nslices={images}" for images in (3, 5)]
    for number, entry in enumerate(images):
        with tifffile.TiffWriter(tmp_path / f"{number}.tif") as tiff:
            for z in range(4):
                description = None if z else f"ImageJ=1.53\n{entry}\n"
                tiff.write(SECTION, metadata=None, contiguous=False, description=description)
        with pytest.raises(InputError, match="in 4 pages"):
            open_sections(tmp_path / f"{number}.tif")


OME_OF_TWO_FILES = """<?xml version="1.0" encoding="UTF-8"?>
<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06" UUID="urn:uuid:1"><Image ID="Image:0">
<Pixels ID="Pixels:0" DimensionOrder="XYZCT" Type="uint8" SizeX="18" SizeY="23" SizeC="1" SizeZ="2" SizeT="1">
<Channel ID="Channel:0:0" SamplesPerPixel="1"/>
<TiffData IFD="0" PlaneCount="1" FirstZ="0"><UUID FileName="here.tif">urn:uuid:1</UUID></TiffData>
<TiffData IFD="0" PlaneCount="1" FirstZ="1"><UUID FileName="gone.tif">urn:uuid:2</UUID></TiffData>
</Pixels></Image></OME>"""


def test_a_section_in_a_file_that_is_not_there_is_missed(tmp_path):
    tifffile.imwrite(
        tmp_path / "here.tif", SECTION, photometric="minisblack", description=OME_OF_TWO_FILES, metadata=None
    )
    with pytest.raises(InputError, match=r"here\.tif lacks a section"):
        open_sections(tmp_path / "here.tif")


@pytest.mark.parametrize("axis", ["T", "C"])
def test_planes_along_another_axis_are_sections_with_a_word(tmp_path, axis):
    stack = np.stack([SECTION, SECTION[::-1], SECTION // 2, SECTION // 3, SECTION // 4])
    for name, options in (("imagej", {"imagej": True}), ("ome", {"ome": True})):
        path = tmp_path / f"{name}.tif"
        tifffile.imwrite(path, stack, metadata={"axes": f"{axis}YX"}, photometric="minisblack", **options)
        said = []
        np.testing.assert_array_equal(read_stack(path, said.append), stack)
        assert len(said) == 1
        assert f"its 5 planes lie along {axis}" in said[0]


def test_two_long_axes_are_refused_by_name(tmp_path):
    stack = np.stack([[SECTION] * 3] * 2)
    tifffile.imwrite(tmp_path / "two.tif", stack, imagej=True, metadata={"axes": "ZCYX"})
    with pytest.raises(InputError, match=r"axes ZCYX of shape \(2, 3, 23, 18\)"):
        open_sections(tmp_path / "two.tif")
    tifffile.imwrite(tmp_path / "one.tif", stack[:, :1], ome=True, metadata={"axes": "ZCYX"})
    np.testing.assert_array_equal(read_stack(tmp_path / "one.tif"), stack[:, 0])


@pytest.mark.parametrize("planar", ["contig", "separate"])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_grey_that_is_stored_as_colour(tmp_path, planar, dtype):
    grey = SECTION.astype(dtype) * (200 if dtype == np.uint16 else 1)
    stack = np.stack([grey, grey[::-1]])
    axis = -1 if planar == "contig" else 1
    for name, channels in (("rgb", [stack] * 3), ("rgba", [stack] * 3 + [np.full_like(stack, np.iinfo(dtype).max)])):
        path = tmp_path / f"{name}.tif"
        extra = {"extrasamples": ["unassalpha"]} if name == "rgba" else {}
        tifffile.imwrite(path, np.stack(channels, axis), photometric="rgb", planarconfig=planar, **extra)
        found = read_stack(path)
        assert found.dtype == dtype
        np.testing.assert_array_equal(found, stack)


def test_colour_and_transparency_are_refused(tmp_path):
    colour = np.stack([SECTION, SECTION, SECTION[::-1]], -1)
    tifffile.imwrite(tmp_path / "colour.tif", colour, photometric="rgb")
    with pytest.raises(InputError, match=r"colour\.tif: it is in colour"):
        open_sections(tmp_path / "colour.tif")
    tifffile.imwrite(
        tmp_path / "alpha.tif", np.stack([SECTION, SECTION[::-1]], -1), photometric="minisblack", extrasamples=[2]
    )
    with pytest.raises(InputError, match=r"alpha\.tif: it is transparent in places"):
        open_sections(tmp_path / "alpha.tif")
    # The third section alone is in colour.
    stack = np.stack([np.stack([SECTION] * 3, -1)] * 2 + [colour])
    tifffile.imwrite(tmp_path / "late.tif", stack, photometric="rgb")
    with pytest.raises(InputError, match=r"late\.tif, section 2: it is in colour"):
        read_stack(tmp_path / "late.tif")


@pytest.mark.parametrize("dtype", ["int8", "int16", "int32", "uint32", ">i2", ">u4"])
def test_signed_and_wide_integers_that_fit(tmp_path, dtype):
    section = (SECTION // 2).astype(dtype)
    tifffile.imwrite(
        tmp_path / "wide.tif", section, photometric="minisblack", byteorder=">" if dtype[0] == ">" else "<"
    )
    found = read_stack(tmp_path / "wide.tif")
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found[0], SECTION // 2)
    if section.dtype.itemsize > 1:
        tifffile.imwrite(tmp_path / "large.tif", section * 200, photometric="minisblack")
        found = read_stack(tmp_path / "large.tif")
        assert found.dtype == np.uint16
        np.testing.assert_array_equal(found[0], (SECTION // 2).astype(int) * 200)


@pytest.mark.parametrize(("dtype", "value"), [("int8", -1), ("int16", -1), ("int32", 65536), ("uint32", 2**32 - 1)])
def test_numbers_that_are_no_grey_levels_are_refused_as_images_and_kept_as_labels(tmp_path, dtype, value):
    section = (SECTION // 2).astype(dtype)
    section[3, 4] = value
    tifffile.imwrite(tmp_path / "wide.tif", np.stack([(SECTION // 3).astype(dtype), section]), photometric="minisblack")
    with pytest.raises(InputError, match=r"wide\.tif, section 1: its values go from"):
        read_stack(tmp_path / "wide.tif")
    found = read_stack(tmp_path / "wide.tif", labels=True)
    assert found.dtype == dtype
    np.testing.assert_array_equal(found[1], section)


@pytest.mark.parametrize("dtype", ["uint64", "int64", "float32", "float64"])
def test_labels_of_every_type_come_without_loss(tmp_path, dtype):
    cells = SECTION.astype(dtype) * (2**20 if dtype != "float32" else 2**10)
    tifffile.imwrite(tmp_path / "cells.tif", cells, photometric="minisblack")
    found = read_stack(tmp_path / "cells.tif", labels=True)
    assert found.dtype == ("uint64" if dtype == "uint64" else "int64")
    np.testing.assert_array_equal(found[0], SECTION.astype(int) * (2**20 if dtype != "float32" else 2**10))
    if dtype.startswith("float"):
        cells[2, 2] = 0.5
        tifffile.imwrite(tmp_path / "cells.tif", cells, photometric="minisblack")
        with pytest.raises(InputError, match="not whole"):
            read_stack(tmp_path / "cells.tif", labels=True)


def test_labels_that_a_program_shows_in_colours_are_their_numbers(tmp_path):
    table = np.random.default_rng(1).integers(0, 2**16, (3, 256)).astype(np.uint16)
    tifffile.imwrite(tmp_path / "cells.tif", SECTION, photometric="palette", colormap=table)
    np.testing.assert_array_equal(read_stack(tmp_path / "cells.tif", labels=True)[0], SECTION)


def one_directory(stack, promised):
    """An ImageJ stack of one directory, its pixels behind it in one piece, as ImageJ keeps those over 4 GiB."""
    text = f"ImageJ=1.53t\nimages={promised}\nslices={promised}\nunit=nm\nspacing=50\n"
    stream = io.BytesIO()
    tifffile.imwrite(
        stream, stack[0], description=text, metadata=None, photometric="minisblack", resolution=(0.25, 0.25)
    )
    content = stream.getvalue()
    assert content.endswith(stack[0].tobytes())
    return content + stack[1:].tobytes()


def test_an_imagej_stack_of_one_directory(tmp_path):
    stack = np.stack([SECTION, SECTION[::-1], SECTION // 2, SECTION // 3])
    (tmp_path / "one.tif").write_bytes(one_directory(stack, 4))
    sections = open_sections(tmp_path / "one.tif")
    np.testing.assert_array_equal(sections.read(2), stack[2])
    np.testing.assert_array_equal(sections.read_all(), stack)
    assert sections.metadata.voxel_size == (50, 4, 4)
    for promised in (5, 10**6):
        (tmp_path / "less.tif").write_bytes(one_directory(stack, promised))
        with pytest.raises(InputError, match=r"less\.tif"):
            open_sections(tmp_path / "less.tif")


@pytest.mark.parametrize(
    ("unit", "scale"), [("nm", 1), ("micron", 1000), ("um", 1000), ("\\u00B5m", 1000), ("mm", 1e6), ("pixel", None)]
)
def test_the_voxel_size_is_told_in_nanometres(tmp_path, unit, scale):
    tifffile.imwrite(
        tmp_path / "a.tif",
        np.stack([SECTION] * 2),
        imagej=True,
        metadata={"axes": "ZYX", "unit": unit, "spacing": 50},
        resolution=(0.25, 0.2),
    )
    found = open_sections(tmp_path / "a.tif").metadata.voxel_size
    assert found == (None if scale is None else pytest.approx((50 * scale, 5 * scale, 4 * scale)))
    size = {"PhysicalSizeX": 0.004, "PhysicalSizeY": 5, "PhysicalSizeYUnit": "nm", "PhysicalSizeZ": 0.05}
    tifffile.imwrite(tmp_path / "ome.tif", np.stack([SECTION] * 2), ome=True, metadata={"axes": "ZYX"} | size)
    assert open_sections(tmp_path / "ome.tif").metadata.voxel_size == (50, 5, 4)


def test_a_stack_is_written_with_its_voxel_size(tmp_path):
    for dtype in ("uint8", "uint16", "uint64", "float32"):
        write_stack(tmp_path / "a.tif", np.stack([SECTION] * 3).astype(dtype), voxel_size=(50, 5, 4))
        sections = open_sections(tmp_path / "a.tif", labels=True)
        assert sections.metadata.voxel_size == (50, 5, 4)
        np.testing.assert_array_equal(sections.read_all(), np.stack([SECTION] * 3))
    write_stack(tmp_path / "b.tif", np.stack([SECTION] * 3).astype(dtype), voxel_size=(50, 5, 4))
    assert (tmp_path / "a.tif").read_bytes() == (tmp_path / "b.tif").read_bytes()


def test_both_ways_to_read_a_stack_agree(tmp_path):
    stack = np.random.default_rng(3).integers(0, 4000, (7, 40, 30)).astype(np.uint16)
    for order in "<>":
        for compression in (None, "zlib"):
            options = {"byteorder": order, "compression": compression, "photometric": "minisblack"}
            tifffile.imwrite(tmp_path / "one.tif", stack, **options)
            with tifffile.TiffWriter(tmp_path / "pages.tif", byteorder=order) as tiff:
                for section in stack:
                    tiff.write(section, compression=compression, photometric="minisblack", metadata=None)
            for name in ("one", "pages"):
                sections = open_sections(tmp_path / f"{name}.tif")
                np.testing.assert_array_equal(sections.read_all(), stack)
                np.testing.assert_array_equal([sections.read(z) for z in range(7)], stack)
