import json

import numpy as np
import pytest
import tifffile
from skimage.io import imsave

from emseg.data.adding import add_source
from emseg.data.check import check_stack
from emseg.data.io.stack import write_stack
from emseg.data.sources import load_source, read_source
from emseg.data.synthetic import make_synthetic
from emseg.errors import InputError


def test_synthetic_is_deterministic_and_needs_no_adding(tmp_path):
    first, again, other = make_synthetic(4, 64, 5), make_synthetic(4, 64, 5), make_synthetic(4, 64, 6)
    np.testing.assert_array_equal(first[0], again[0])
    np.testing.assert_array_equal(first[1], again[1])
    assert (first[0] != other[0]).any()
    embedded = load_source("synthetic", tmp_path)
    assert embedded.images.shape == (30, 256, 256)
    assert (embedded.card.name, embedded.card.licence, embedded.card.reference) == ("synthetic", "MIT", None)
    assert not check_stack(embedded.images, embedded.labels).problems
    assert 0.7 < embedded.labels.mean() < 0.88


def test_synthetic_sections_continue_each_other():
    _, labels = make_synthetic(12, 128, 0)
    near = np.mean([np.mean(labels[z] == labels[z + 1]) for z in range(11)])
    far = np.mean([np.mean(labels[z] == labels[(z + 6) % 12]) for z in range(12)])
    assert near > far + 0.05


@pytest.mark.parametrize("encoding", [np.array([0, 1], np.uint8), np.array([0, 255], np.uint8), np.array([0, 1], bool)])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_own_sections_of_any_encoding(tmp_path, stack, encoding, dtype):
    images, labels = stack[0][:, :50, :61].astype(dtype), stack[1][:, :50, :61] > 0
    origin = tmp_path / "mine"
    if encoding.dtype == bool:
        (origin / "images").mkdir(parents=True)
        (origin / "labels").mkdir()
        for z in range(len(images)):
            imsave(origin / "images" / f"{z}.png", images[z], check_contrast=False)
            tifffile.imwrite(origin / "labels" / f"{z}.tif", labels[z])
    else:
        write_stack(origin / "images.tif", images)
        write_stack(origin / "labels.tif", encoding[labels.astype(int)])
    add_source("mine", origin, tmp_path / "sources")
    source = load_source("mine", tmp_path / "sources")
    np.testing.assert_array_equal(source.images, images)
    np.testing.assert_array_equal(source.labels, labels)


def break_counts(images, labels):
    return images, labels[:-1]


def break_sizes(images, labels):
    return images, labels[:, :-1]


def break_values(images, labels):
    labels = labels.copy()
    labels[0, 0, 0] = 7
    return images, labels


def break_order(images, labels):
    return images, labels[::-1]


def break_one_label(images, labels):
    labels = labels.copy()
    labels[4] = np.roll(labels[4], (17, 23), (0, 1))
    return images, labels


def break_blank(images, labels):
    images = images.copy()
    images[2] = 90
    return images, labels


def break_duplicate(images, labels):
    images = images.copy()
    images[3] = images[1]
    return images, labels


def break_unlabelled(images, labels):
    labels = labels.copy()
    labels[5] = 0
    return images, labels


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (break_counts, "9 images but 8 labels"),
        (break_sizes, "must agree"),
        (break_values, "values 0, 7, 255"),
        (break_order, "better than its own"),
        (break_one_label, "label 4 "),
        (break_blank, "section 2 is blank"),
        (break_duplicate, "section 3 is the same image as section 1"),
        (break_unlabelled, "section 5 is all membrane"),
    ],
)
def test_every_fault_is_named_and_nothing_is_written(tmp_path, stack, damage, message):
    images, labels = damage(*stack)
    write_stack(tmp_path / "bad" / "images.tif", images)
    write_stack(tmp_path / "bad" / "labels.tif", labels)
    assert any(message in problem for problem in check_stack(images, labels).problems)
    with pytest.raises(InputError, match=message):
        add_source("bad", tmp_path / "bad", tmp_path / "sources")
    assert not list((tmp_path / "sources").glob("*"))


def test_missing_parts_are_named(tmp_path, stack):
    with pytest.raises(InputError, match="no source named cortex"):
        load_source("cortex", tmp_path)
    write_stack(tmp_path / "half" / "images.tif", stack[0])
    with pytest.raises(InputError, match="no labels"):
        add_source("half", tmp_path / "half", tmp_path / "sources")
    with pytest.raises(InputError, match="--from FOLDER"):
        add_source("cortex", None, tmp_path / "sources")
    with pytest.raises(InputError, match="cannot name"):
        add_source("../x", tmp_path, tmp_path / "sources")


def test_other_sections_of_a_name_are_replaced_only_when_asked_for(tmp_path, source_folder, stack):
    add_source("mine", source_folder, tmp_path / "sources")
    add_source("mine", source_folder, tmp_path / "sources")
    write_stack(tmp_path / "others" / "images.tif", stack[0][:8])
    write_stack(tmp_path / "others" / "labels.tif", stack[1][:8])
    with pytest.raises(InputError, match=r"holds other sections .*; choose another name, --append"):
        add_source("mine", tmp_path / "others", tmp_path / "sources")
    assert len(load_source("mine", tmp_path / "sources").images) == 9
    add_source("mine", tmp_path / "others", tmp_path / "sources", overwrite=True)
    assert len(load_source("mine", tmp_path / "sources").images) == 8


def test_what_the_pipeline_made_of_a_source_stands_in_for_it(tmp_path, stack):
    prepared = tmp_path / "prepared"
    write_stack(prepared / "images.tif", stack[0])
    write_stack(prepared / "labels.tif", stack[1])
    digest = read_source(prepared, "cortex").digest
    (prepared / "prepared.json").write_text(json.dumps({"source": "cortex", "digest": digest}))
    assert load_source("cortex", tmp_path / "sources").digest == digest
    with pytest.raises(InputError, match="no source named other"):
        load_source("other", tmp_path / "sources")
    write_stack(prepared / "images.tif", stack[0][::-1])
    with pytest.raises(InputError, match="is damaged"):
        load_source("cortex", tmp_path / "sources")


def test_the_placeholder_of_synthetic_sections_stays(tmp_path):
    (tmp_path / "synthetic").mkdir()
    (tmp_path / "synthetic/.gitkeep").touch()
    generated = load_source("synthetic", tmp_path)
    add_source("synthetic", None, tmp_path)
    assert (tmp_path / "synthetic/.gitkeep").exists()
    assert load_source("synthetic", tmp_path).digest == generated.digest
