"""Labels as labs and other programs write them, and what they mean."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from pydantic import ValidationError
from scipy import ndimage
from skimage.measure import label as connected

from emseg.data.cell_numbers import draw_membranes, number_parts
from emseg.data.labels import LabelReading, read_meaning
from emseg.data.synthetic import make_synthetic
from emseg.errors import InputError

images, labels = make_synthetic(5, 128, 7)
interior = labels > 0
small_cells = arrays(np.int64, (2, 5, 6), elements=st.integers(0, 4))


def read(labels, images=images, ignore=None, **reading):
    return read_meaning(labels, images, LabelReading(**reading), ignore)


def numbered(mask):
    """2-D components, numbered through the stack, and grown until they touch."""
    cells, count = np.zeros(mask.shape, np.uint32), 0
    for section, into in zip(mask, cells, strict=True):
        parts, found = ndimage.label(section)
        into[:] = np.where(parts, parts + count, 0)
        count += found
    nearest = [ndimage.distance_transform_edt(section == 0, return_indices=True)[1] for section in cells]
    return cells, np.stack([section[tuple(where)] for section, where in zip(cells, nearest, strict=True)])


apart, touching = numbered(interior)
VALUES = [(0, 1, bool), (0, 255, np.uint8), (0, 1, np.int32), (0, 65535, np.uint16), (1, 2, np.uint8), (3, 9, np.int64)]


@pytest.mark.parametrize(("low", "high", "dtype"), [*VALUES, (0, 1, np.float32)])
@pytest.mark.parametrize("is_white", [False, True])
def test_two_values_of_either_polarity(low, high, dtype, is_white):
    written = np.where(interior ^ is_white, high, low).astype(dtype)
    found, notes = read(written)
    np.testing.assert_array_equal(found.interior, interior)
    assert found.cells is None
    assert found.ignore is None
    if is_white or (low, high) not in ((0, 1), (0, 255)):
        assert len(notes) == 1
        assert f"{high if is_white else low} is membrane" in notes[0]
        assert f"--membrane {'black' if is_white else 'white'}" in notes[0]
    else:
        assert notes == []


@pytest.mark.parametrize("is_bright", [False, True])
@pytest.mark.parametrize("membrane", ["white", "black"])
def test_what_is_said_is_obeyed_and_told_also_against_contrast(is_bright, membrane):
    stained = 255 - images if is_bright else images
    for written in (labels, 255 - labels):
        found, notes = read(written, stained, membrane=membrane)
        expected = written > 0 if membrane == "black" else written == 0
        np.testing.assert_array_equal(found.interior, expected)
        against = (expected == interior).all() == is_bright
        assert any("brighter than cells" in note for note in notes) == against


def test_a_stain_with_bright_membranes_is_read_with_a_word():
    found, notes = read(labels, 255 - images)
    np.testing.assert_array_equal(found.interior, interior)
    assert "membranes are brighter than cells" in notes[0]


def refused(*arguments, **reading):
    with pytest.raises(InputError) as error:
        read(*arguments, **reading)
    sentence = str(error.value)
    assert "\n" not in sentence
    return sentence


def test_what_is_unclear_is_asked():
    # Bright membranes, and labels that are white on them: contrast and common usage speak against thickness.
    for said in (refused(255 - labels, 255 - images), refused(np.random.default_rng(0).random(images.shape) < 0.5)):
        assert "--membrane white" in said
        assert "--membrane black" in said
    noise = np.random.default_rng(1).integers(0, 255, images.shape).astype(np.uint8)
    assert "unclear" in refused(255 - labels, noise)
    np.testing.assert_array_equal(read(255 - labels, noise, membrane="white")[0].interior, interior)


def test_labels_in_another_order_still_say_which_value_is_membrane():
    np.testing.assert_array_equal(read(labels[::-1])[0].interior, interior[::-1])


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.int32, np.uint32, np.uint64])
def test_cells_by_number_with_membrane_between_them(dtype):
    in_section = np.where(
        apart, apart - np.array([section[section > 0].min() - 1 for section in apart])[:, None, None], 0
    )
    found, notes = read(in_section.astype(dtype))
    np.testing.assert_array_equal(found.interior, interior)
    np.testing.assert_array_equal(found.cells, in_section)
    assert found.cells.dtype == np.uint32
    assert found.membrane_width is None
    assert len(notes) == 1


@pytest.mark.parametrize(
    ("options", "width", "said"),
    [
        ({}, 2, "2 pixels is drawn"),
        ({"pixel_nm": 4.0}, 2, "2 pixels (8 nm)"),
        ({"membrane_width": 6}, 6, "6 pixels"),
        ({"membrane_width": 20, "membrane_width_unit": "nm", "pixel_nm": 4.0}, 4, "4 pixels (16 nm)"),
        ({"membrane_width": 1}, 2, "2 pixels"),
    ],
)
def test_cells_that_touch_get_a_membrane_of_stated_width(options, width, said):
    found, notes = read(touching, **options)
    np.testing.assert_array_equal(found.cells, touching)
    assert found.membrane_width == width
    assert said in notes[-1]
    # A pixel is membrane if another cell is at most half the width away, along an edge for the thinnest.
    reach = ndimage.generate_binary_structure(2, 1)
    for cells, inside in zip(touching, found.interior, strict=True):
        for cell in np.unique(cells):
            own = cells == cell
            near = ndimage.binary_dilation(~own, reach)
            kept = own & (ndimage.distance_transform_edt(~(near & own)) > width // 2 - 1)
            assert (own & inside).any()
            if kept.any():
                assert not (own & inside & ~kept & (width == 2)).any()


@given(small_cells)
def test_membranes_by_definition(numbers):
    cells, _ = number_parts(numbers)
    found, touched = draw_membranes(cells, 2)
    expected_touched = 0
    for section, inside in zip(cells, found, strict=True):
        framed = np.pad(section, 1)
        around = np.stack([framed[:-2, 1:-1], framed[2:, 1:-1], framed[1:-1, :-2], framed[1:-1, 2:]])
        meets = ((around != section) & (around != 0) & (section != 0)).any(axis=0)
        expected_touched += meets.any()
        for cell in set(section.ravel().tolist()) - {0}:
            own = section == cell
            if (own & ~meets).any():
                np.testing.assert_array_equal(inside[own], ~meets[own])
            else:
                assert inside[own].any()
        assert not inside[section == 0].any()
    assert touched == expected_touched


@given(small_cells, st.lists(st.integers(1, 2**64 - 4), min_size=4, max_size=4, unique=True))
def test_numbers_of_any_size_never_run_into_each_other(numbers, names):
    wide = np.array([0, *names], np.uint64)[numbers]
    cells, apart = number_parts(wide)
    assert cells.dtype == np.uint32
    pieces = 0
    for section, given_section in zip(cells, numbers, strict=True):
        parts = connected(given_section, connectivity=1, background=0)
        np.testing.assert_array_equal(section == 0, parts == 0)
        # The same partition: as many pairs as pieces, in both directions.
        pairs = set(zip(section.ravel().tolist(), parts.ravel().tolist(), strict=True)) - {(0, 0)}
        assert len(pairs) == len({one for one, _ in pairs}) == len({other for _, other in pairs}) == parts.max()
        pieces += parts.max() - len(set(given_section.ravel().tolist()) - {0})
    assert apart == pieces


def test_numbers_beyond_32_bits_and_reserved_ones():
    wide = touching.astype(np.uint64) + np.uint64(2**32) * (touching % 2).astype(np.uint64)
    wide[0, :3] = 2**64 - 1
    found, notes = read(wide)
    assert any("18446744073709551615" in note for note in notes)
    assert not found.cells[0, :3].any()
    one_to_one = set(zip(found.cells[1:].ravel().tolist(), wide[1:].ravel().tolist(), strict=True))
    assert len(one_to_one) == len(np.unique(wide[1:])) == len(np.unique(found.cells[1:]))


def test_parts_of_one_number_that_lie_apart_are_cells_of_their_own():
    numbers = np.array([[[7, 7, 0, 7, 5, 5]]])
    cells, count = number_parts(numbers)
    assert count == 1
    assert cells[0, 0].tolist() == [7, 7, 0, 8, 5, 5]


def test_a_thin_gap_between_cells_stays_as_it_is():
    numbers = np.zeros((1, 7, 9), np.uint16)
    numbers[0, :, :4], numbers[0, :, 5:] = 1, 2
    assert (draw_membranes(numbers, 8)[0] == (numbers > 0)).all()


def test_classes():
    inside = np.random.default_rng(0).random(images.shape) < 0.2
    classes = np.where(interior, np.where(inside, 191, 255), np.where(inside, 32, 0)).astype(np.uint8)
    found, notes = read(classes, membrane_values=(0, 32, 64))
    np.testing.assert_array_equal(found.interior, interior)
    assert notes == ["labels: 0, 32 are membrane, 191, 255 are cell interior"]
    said = refused(classes)
    assert "0, 32, 191, 255" in said
    assert all(option in said for option in ("--membrane-values", "--ignore", "--cells"))
    assert "none of them" in refused(classes, membrane_values=(5,))
    assert "all of them" in refused(classes, membrane_values=(0, 32, 191, 255))
    np.testing.assert_array_equal(read(labels // 255 + 1, membrane_values=[1])[0].interior, interior)


def test_a_value_that_means_not_labelled():
    written = labels.copy()
    written[:, 40:60, 30:70] = 128
    found, notes = read(written, ignore_value=128)
    np.testing.assert_array_equal(found.ignore, written == 128)
    np.testing.assert_array_equal(found.interior, written == 255)
    assert "128 means not labelled" in notes[0]
    assert "--ignore" in refused(written)
    # Polarity is found from the rest.
    np.testing.assert_array_equal(
        read(np.where(written == 128, 128, 255 - written), ignore_value=128)[0].interior, written == 255
    )


@pytest.mark.parametrize(("value", "dtype"), [(0, np.uint32), (-1, np.int32), (2**32 - 1, np.uint64)])
def test_cells_with_a_number_that_means_not_labelled(value, dtype):
    written = touching.astype(dtype)
    written[:, 40:60, 30:70] = value
    found, _ = read(written, ignore_value=value)
    np.testing.assert_array_equal(found.ignore, written == value)
    assert not found.cells[found.ignore].any()
    assert not found.interior[found.ignore].any()
    if value < 0:
        assert "--ignore-value -1" in refused(written)


def test_a_mask_of_what_to_ignore():
    mask = np.zeros(images.shape, np.uint8)
    mask[1:, 10:20] = 255
    found, notes = read(labels, ignore=mask)
    np.testing.assert_array_equal(found.ignore, mask > 0)
    np.testing.assert_array_equal(found.interior, interior)
    assert "by a mask" in notes[0]
    assert "shape" in refused(labels, images, mask[:, 1:])
    mask[2] = 1
    assert "every pixel of section 2" in refused(labels, images, mask)


def test_borders_of_an_alignment_are_told_and_left_out_when_asked():
    y, x = np.mgrid[:128, :128]
    turned = y + 3 * x < 90
    moved = images.copy()
    moved[1, :24] = 0
    moved[2][turned] = 0
    moved[4, :, -5:] = 255
    expected = np.zeros(images.shape, bool)
    expected[1, :24], expected[2][turned], expected[4, :, -5:] = True, True, True
    found, notes = read(labels, moved)
    assert found.ignore is None
    assert "3 of 5 images" in notes[0]
    assert "--ignore-borders" in notes[0]
    found, notes = read(labels, moved, ignore_borders=True)
    # Noise is as black or white as the border now and then, beside it.
    assert (found.ignore >= expected).all()
    assert found.ignore.sum() - expected.sum() < 30
    assert "neither trains nor scores" in notes[0]
    assert read(labels, images, ignore_borders=True)[0].ignore is None


@pytest.mark.parametrize(
    ("written", "options", "sentence"),
    [
        (labels[:, 1:], {}, "must agree"),
        (labels / 510, {}, "not whole numbers"),
        (np.full_like(labels, 255), {}, "the value 255 alone"),
        (np.arange(labels.size).reshape(labels.shape) % 251, {}, "251 values"),
        (touching, {"kind": "interior"}, "--cells"),
        (np.zeros_like(labels), {"kind": "cells"}, "no cell"),
        (labels.astype(str), {}, "not whole numbers"),
    ],
)
def test_what_cannot_be_read_is_refused_in_a_sentence(written, options, sentence):
    assert sentence in refused(written, **options)


@pytest.mark.parametrize(
    "options",
    [
        {"kind": "classes"},
        {"kind": "cells", "membrane": "white"},
        {"membrane": "white", "membrane_values": (0,)},
        {"membrane": "grey"},
    ],
)
def test_options_that_do_not_go_together(options):
    with pytest.raises(ValidationError):
        LabelReading(**options)
