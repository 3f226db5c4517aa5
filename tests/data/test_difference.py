"""What changed between two versions of labelled sections, counted by hand."""

import json
from dataclasses import replace

import numpy as np
import pytest

from emseg.data.difference import LabelChange, Place, difference
from emseg.data.io.stack import read_stack, write_stack
from emseg.data.sources import PREPARED_MANIFEST, Source, write_source
from emseg.data.version import read_version
from emseg.errors import InputError
from emseg.files import write_json

ROWS = """
AA.BB.CC
AA.BB.CC
........
DDDD.EEE
DDDD.EEE
"""


def drawn(text):
    """A label from a drawing: a letter is a cell, a dot is membrane, a question mark is ignored."""
    return np.array([list(row) for row in text.split()])


def version(*drawings, numbered=False, images=None):
    letters = np.stack([drawn(each) for each in drawings])
    if images is None:
        images = np.random.default_rng(0).integers(0, 255, (len(letters), *letters.shape[1:]), dtype=np.uint8)
    interior = np.char.isalpha(letters)
    cells = np.where(interior, letters.astype("U1").view(np.uint32).reshape(letters.shape), 0).astype(np.uint32)
    ignore = letters == "?"
    return Source(
        "drawn",
        images,
        interior,
        images[:0],
        interior[:0],
        cells if numbered else None,
        ignore if ignore.any() else None,
    )


def change(before, after, **options):
    (pair,) = difference(version(before, **options), version(after, **options)).pairs
    return pair.change


@pytest.mark.parametrize("numbered", [False, True])
@pytest.mark.parametrize(
    ("after", "expected"),
    [
        (ROWS, LabelChange()),
        # D becomes D and F: the two pixels between them are new membrane.
        (ROWS.replace("DDDD.EEE", "D.FF.EEE"), LabelChange(pixels=2, split=1)),
        # A and B become one: the two membrane pixels between them are gone.
        (ROWS.replace("AA.BB", "AAAAA"), LabelChange(pixels=2, merged=1)),
        # All of C is membrane.
        (ROWS.replace("CC", ".."), LabelChange(pixels=4, gone=1)),
        # E gives up a column.
        (ROWS.replace("EEE", ".EE"), LabelChange(pixels=2, redrawn=1)),
        # A is not labelled any more; its four pixels count as ignored alone.
        (ROWS.replace("AA", "??"), LabelChange(ignored=4)),
    ],
)
def test_cells_and_pixels_of_a_change(after, expected, numbered):
    assert change(ROWS, after, numbered=numbered) == expected
    # The other way round, what was split was merged.
    assert change(after, ROWS, numbered=numbered) == LabelChange(
        expected.pixels,
        expected.merged,
        expected.split,
        expected.gone,
        expected.new,
        expected.redrawn,
        expected.counted,
        expected.ignored,
    )


def test_a_cell_that_moved_by_more_than_half_is_another():
    kept, other = ROWS.replace("AA.BB", ".AABB"), ROWS.replace("DDDD.EEE", ".....EEE").replace("........", "DDDD....")
    assert change(ROWS, kept, numbered=True) == LabelChange(pixels=4, redrawn=1)
    assert change(ROWS, other, numbered=True) == LabelChange(pixels=12, new=1, gone=1)


def test_other_numbers_of_the_same_cells_are_no_change():
    before, after = version(ROWS, numbered=True), version(ROWS.swapcase(), numbered=True)
    found = difference(before, after)
    assert not found.is_nothing
    assert found.changed == []
    masks = difference(before, version(ROWS))
    assert masks.changed == []


def sections(count, seed=1):
    return np.random.default_rng(seed).integers(0, 255, (count, 5, 8), dtype=np.uint8)


def places(*numbers, stack="training"):
    return [Place(stack, number) for number in numbers]


def test_sections_that_came_went_and_moved():
    images = sections(8)
    before = version(*[ROWS] * 6, images=images[[0, 1, 2, 3, 4, 5]])
    after = version(*[ROWS] * 6, images=images[[0, 6, 2, 4, 5, 7]])
    found = difference(before, after)
    assert (found.came, found.went) == (places(1, 5), places(1, 3))
    assert [(pair.before.place, pair.after.place) for pair in found.moved] == list(
        zip(places(4, 5), places(3, 4), strict=True)
    )
    assert found.changed == []


def test_a_section_may_go_to_the_test_stack():
    images = sections(4)
    before = version(*[ROWS] * 4, images=images)
    after = replace(
        before,
        images=images[:3],
        labels=before.labels[:3],
        test_images=images[3:],
        test_labels=~before.labels[3:],
    )
    found = difference(before, after)
    (pair,) = found.moved
    assert (pair.before.place, pair.after.place) == (*places(3), *places(0, stack="test"))
    assert found.changed == [pair]
    assert pair.change.pixels == 40
    unlabelled = replace(after, test_labels=before.labels[:0])
    found = difference(before, unlabelled)
    assert found.changed == []
    assert [pair.after.place for pair in found.no_longer_labelled] == places(0, stack="test")


@pytest.mark.parametrize("turns", range(4))
@pytest.mark.parametrize("mirrored", [False, True])
def test_a_section_that_is_turned_keeps_its_label(turns, mirrored):
    def turn(pixels):
        return np.rot90(pixels[:, :, ::-1] if mirrored else pixels, turns, axes=(1, 2))

    before = version(ROWS, numbered=True)
    after = replace(before, images=turn(before.images), labels=turn(before.labels), cells=turn(before.cells))
    found = difference(before, after)
    assert found.changed == []
    assert len(found.turned) == (turns > 0 or mirrored)
    straight = difference(before, replace(after, labels=after.labels & ~turn(before.cells == ord("A"))))
    assert straight.pairs[0].change == LabelChange(pixels=4, gone=1)


def test_of_several_with_one_image_each_is_matched_once():
    image = sections(1)[0]
    before = version(ROWS, ROWS, images=np.stack([image] * 2))
    after = version(ROWS, ROWS, ROWS, images=np.stack([image] * 3))
    found = difference(before, after)
    assert (found.came, found.went, found.moved) == (places(2), [], [])


def test_a_version_is_read_as_it_was_written(tmp_path, source, stack):
    inverted = tmp_path / "inverted"
    write_stack(inverted / "images.tif", stack[0])
    write_stack(inverted / "labels.tif", 255 - read_stack(tmp_path / "cortex" / "labels.tif"))
    said = []
    # A lab's own folder is read as `data check` reads it.
    assert read_version(inverted, said.append).digest == source.digest
    assert len(said) == 1
    assert "255 is membrane" in said[0]
    # What emseg wrote has one meaning.
    write_json(inverted / PREPARED_MANIFEST, {})
    np.testing.assert_array_equal(read_version(inverted).labels, ~source.labels)
    numbered = replace(source, cells=np.where(source.labels, 7, 0).astype(np.uint32))
    write_source(tmp_path / "numbered", numbered)
    assert read_version(tmp_path / "numbered").digest == numbered.digest
    write_stack(inverted / "labels.tif", stack[0][:, :5])
    (inverted / PREPARED_MANIFEST).unlink()
    with pytest.raises(InputError, match="they must agree"):
        read_version(inverted)


def test_the_command_compares_folders(tmp_path, emseg, source, source_folder):
    assert emseg("data", "diff", source_folder, source_folder)[1].startswith("No difference:")
    labels = source.labels.copy()
    labels[4, 10:20, 10:20] = ~labels[4, 10:20, 10:20]
    changed = replace(source, images=source.images[1:], labels=labels[1:])
    write_source(tmp_path / "later", changed)
    code, out, _ = emseg("data", "diff", source_folder, tmp_path / "later", "--picture", tmp_path / "changes.png")
    assert code == 0
    assert "went: 0 (1 section)" in out
    assert "moved: 1 to 8 are now 0 to 7 (8 sections)" in out
    assert "label changed: 1 section" in out
    row = next(line.split() for line in out.splitlines() if line.split()[:1] == ["3"])
    assert row[1] == "100"
    assert max(len(line) for line in out.splitlines() if str(tmp_path) not in line) <= 80
    assert (tmp_path / "changes.png").read_bytes().startswith(b"\x89PNG")
    values = json.loads(emseg("data", "diff", source_folder, tmp_path / "later", "--json")[1])
    assert values["before"]["digest"] == source.digest
    assert values["after"] == {"name": str(tmp_path / "later"), "sections": 8, "digest": changed.digest}
    assert values["went"] == [{"stack": "training", "number": 0}]
    (only,) = values["changed"]
    assert (only["before"]["number"], only["after"]["number"], only["pixels"]) == (4, 3, 100)
    code, out, err = emseg("data", "diff", source_folder, tmp_path / "later", "--picture", "changes.jpg")
    assert (code, out, err.count("\n")) == (2, "", 1)
