"""A lab's folder: what is images and what is labels, by the names that people give them."""

import h5py
import numpy as np
import pytest
import tifffile
import zarr
from PIL import Image

from emseg.data.labelled import read_labelled
from emseg.errors import InputError

IMAGES = np.random.default_rng(1).integers(0, 255, (4, 23, 18), dtype=np.uint8)
LABELS = (IMAGES > 90).astype(np.uint8) * 255


def put(place, stack):
    """Write a stack in the format that its name says; a name without one is a folder of PNGs."""
    place.parent.mkdir(parents=True, exist_ok=True)
    suffix = place.suffix.lower()
    if suffix in (".tif", ".tiff"):
        tifffile.imwrite(place, stack, photometric="minisblack", metadata={"axes": "ZYX"})
    elif suffix == ".npy":
        np.save(place, stack)
    elif suffix == ".zarr":
        zarr.create_array(place, data=stack)
    elif suffix == ".h5":
        with h5py.File(place, "w") as file:
            file["exported_data"] = stack
    else:
        place.mkdir()
        for z, section in enumerate(stack):
            Image.fromarray(section).save(place / f"{z}.png")


@pytest.mark.parametrize(
    ("images", "labels"),
    [
        ("images.tif", "labels.tif"),
        ("Images.TIF", "LABELS.TIFF"),
        ("images.ome.tif", "labels.ome.tif"),
        ("raw", "membranes"),
        ("raw.npy", "gt.npy"),
        ("train_volume.tif", "train_labels.tif"),
        ("volume.zarr", "ground truth.zarr"),
        ("image.h5", "segmentation.h5"),
        ("raw.tif", "masks"),
    ],
)
def test_usual_names_in_every_format(tmp_path, images, labels):
    put(tmp_path / images, IMAGES)
    put(tmp_path / labels, LABELS)
    (tmp_path / "readme.txt").write_text("notes")
    said = []
    found = read_labelled(tmp_path, said.append)
    np.testing.assert_array_equal(found.images, IMAGES)
    np.testing.assert_array_equal(found.labels, LABELS)
    assert (found.test_images, found.test_labels, said) == (None, None, [])


@pytest.mark.parametrize(
    ("pair", "role"),
    [
        (("images.tif", "images"), "images"),
        (("volume.tif", "raw.npy"), "images"),
        (("labels.tif", "masks"), "labels"),
        (("test-volume.tif", "test_images.tif"), "test-volume"),
    ],
)
def test_two_that_may_be_meant_are_both_named(tmp_path, pair, role):
    others = {"images": "labels.tif", "labels": "images.tif"}
    for name in (*pair, *(other for known, other in others.items() if role in (known, "test-volume"))):
        put(tmp_path / name, IMAGES)
    with pytest.raises(InputError) as refusal:
        read_labelled(tmp_path)
    assert all(name in str(refusal.value) for name in pair)
    assert f"may both be the {role}" in str(refusal.value)


def test_names_of_ones_own_are_said(tmp_path):
    put(tmp_path / "stack7.tif", IMAGES)
    put(tmp_path / "painted" / "final.tif", LABELS)
    with pytest.raises(InputError, match=r"has no images; there is painted, stack7\.tif.*train-volume.*--images"):
        read_labelled(tmp_path)
    for labels in ("painted/final.tif", tmp_path / "painted" / "final.tif"):
        found = read_labelled(tmp_path, images="stack7.tif", labels=labels)
        np.testing.assert_array_equal(found.images, IMAGES)
        np.testing.assert_array_equal(found.labels, LABELS)
    # What is said ends a choice between two.
    put(tmp_path / "raw.tif", IMAGES[::-1])
    put(tmp_path / "volume.tif", IMAGES)
    found = read_labelled(tmp_path, images="raw.tif", labels="painted/final.tif")
    np.testing.assert_array_equal(found.images, IMAGES[::-1])


def test_what_is_not_used_is_named(tmp_path):
    for name, stack in (("images.tif", IMAGES), ("labels.tif", LABELS), ("images-old.tif", IMAGES), ("film.avi", None)):
        (tmp_path / name).write_bytes(b"film") if stack is None else put(tmp_path / name, stack)
    said = []
    read_labelled(tmp_path, said.append)
    assert said == [f"{tmp_path}: left aside, as neither images nor labels: film.avi, images-old.tif"]


@pytest.mark.parametrize("form", ["h5", "zarr"])
def test_a_file_that_holds_both(tmp_path, form):
    cells = IMAGES.astype(np.uint64) * 2**40
    place = tmp_path / "lab" / f"sample_A.{form}"
    place.parent.mkdir()
    if form == "h5":
        with h5py.File(place, "w") as file:
            file["volumes/raw"], file["volumes/labels/neuron_ids"] = IMAGES, cells
            file["volumes/raw"].attrs["resolution"] = (40.0, 4.0, 4.0)
    else:
        group = zarr.create_group(place)
        group.create_array("volumes/raw", data=IMAGES).attrs["resolution"] = [40, 4, 4]
        group.create_array("volumes/labels/neuron_ids", data=cells)
    for origin in (place.parent, place):
        said = []
        found = read_labelled(origin, said.append)
        np.testing.assert_array_equal(found.images, IMAGES)
        assert found.labels.dtype == np.uint64
        np.testing.assert_array_equal(found.labels, cells)
        assert found.voxel_size == (40, 4, 4)
        assert said == []
    found = read_labelled(place.parent, labels=f"sample_A.{form}:volumes/raw")
    np.testing.assert_array_equal(found.labels, IMAGES)


def test_images_as_jpeg_are_refused_with_the_reason(tmp_path):
    put(tmp_path / "labels.tif", LABELS)
    Image.fromarray(IMAGES[0]).save(tmp_path / "images.jpg")
    with pytest.raises(InputError, match=r"has no images; there is images\.jpg, labels\.tif"):
        read_labelled(tmp_path)
    with pytest.raises(InputError, match="JPEG changes grey levels"):
        read_labelled(tmp_path, images="images.jpg")


def test_a_gap_is_said_of_images_and_labels_once_and_of_labels_alone_too(tmp_path):
    for name, numbers in (("images", (0, 1, 3)), ("labels", (0, 1, 3))):
        (tmp_path / name).mkdir()
        for z in numbers:
            Image.fromarray(IMAGES[z]).save(tmp_path / name / f"{z}.png")
    said = []
    read_labelled(tmp_path, said.append)
    assert len(said) == 1
    (tmp_path / "images" / "3.png").rename(tmp_path / "images" / "2.png")
    said = []
    read_labelled(tmp_path, said.append)
    assert said == [f"{tmp_path}/labels: no section between 1.png and 3.png; they are taken to be neighbours"]
