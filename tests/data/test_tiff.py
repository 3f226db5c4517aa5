"""TIFFs that say little, or say it the other way round."""

import numpy as np
import pytest
import tifffile
import zarr
from PIL import Image
from plain_tiff import COMPRESSION, COUNTS, OPTIONAL, PHOTOMETRIC, ROWS, SAMPLES, UNIT, plain_tiff

from emseg.data.sections import open_sections
from emseg.data.stack import read_stack
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
    assert open_sections(tmp_path / "section.tif").page["resolution_unit"] == expected


def test_an_absent_resolution_unit_is_the_inch(tmp_path):
    (tmp_path / "section.tif").write_bytes(plain_tiff(SECTION, (UNIT,), unit=3))
    page = open_sections(tmp_path / "section.tif").page
    assert (page["resolution"], page["resolution_unit"]) == ((250, 250), 2)


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
    assert open_sections(tmp_path / "odd.tif").page["ome"] == {"PhysicalSizeY": 0.0048}


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
