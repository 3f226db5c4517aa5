"""Datasets from local servers that serve files of the same layout: archives, mirrors, HDF5, a lab's own card."""

import hashlib
import io
import zipfile

import numpy as np
import pytest
import tifffile
import yaml
from PIL import Image
from servers import FileServer, free_port

from emseg.data.adding import add_source
from emseg.data.datasets.card import read_card
from emseg.data.io.stack import read_stack, write_stack
from emseg.data.sources import load_source
from emseg.errors import InputError


def zipped(folder, around=""):
    """A ZIP archive of a folder's files."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in sorted(folder.rglob("*")):
            if file.is_file():
                archive.write(file, around + file.relative_to(folder).as_posix())
    return packed.getvalue()


def card_of(server, name="cells.zip", **entries):
    """A card of two stacks in an archive that the server has."""
    stack = {
        "files": [{"name": name, "urls": [f"{server.address}/{name}"]}],
        "images": "train-volume.tif",
        "labels": "train-labels.tif",
    }
    stack |= {key: entries.pop(key) for key in list(entries) if key in ("files", "images", "labels", "test_images")}
    values = {"name": "ours", "title": "our cells", "licence": "CC0", "voxel_size_nm": [40, 5, 5]}
    values |= {"citations": [{"text": "Us 2026", "doi": "10.1234/us"}], "stacks": [stack]}
    return values | entries


@pytest.fixture
def own_card(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def write(values):
        (tmp_path / "ours.yaml").write_text(yaml.safe_dump(values))
        return tmp_path / "ours.yaml"

    return write


@pytest.fixture
def server():
    with FileServer({}) as server:
        yield server


@pytest.fixture
def archive(tmp_path, stack):
    """As the challenge packs its stacks."""
    folder = tmp_path / "packed"
    tifffile.imwrite(_made(folder / "train-volume.tif"), stack[0])
    tifffile.imwrite(folder / "train-labels.tif", stack[1])
    tifffile.imwrite(folder / "test-volume.tif", 255 - stack[0][:4], photometric="minisblack")
    (folder / "error-metrics.bsh").write_text("a script")
    return folder


def _made(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


@pytest.mark.parametrize("around", ["", "ISBI 2012/"])
def test_an_archive_is_downloaded_read_checked_and_its_terms_are_said_and_kept(
    tmp_path, server, archive, stack, emseg, own_card, around
):
    content = zipped(archive, around)
    server.files["/cells.zip"] = content
    card = own_card(card_of(server, test_images="test-volume.tif"))
    code, out, err = emseg("data", "add", "--card", card)
    assert code == 0, err
    assert "licence: CC0" in out
    assert "cite: Us 2026, doi:10.1234/us" in out
    source = load_source("ours")
    np.testing.assert_array_equal(source.images, stack[0])
    np.testing.assert_array_equal(source.labels, stack[1] > 0)
    np.testing.assert_array_equal(source.test_images, 255 - stack[0][:4])
    assert source.voxel_size_nm == (40, 5, 5)
    kept = read_card(tmp_path / "data" / "sources" / "ours" / "card.yaml")
    assert kept.licence == "CC0"
    assert kept.origins[0].sha256 == hashlib.sha256(content).hexdigest()
    assert kept.stacks[0].data_digests == [source.digest]
    assert [place.name for place in (tmp_path / "data" / "sources").iterdir()] == ["ours"]
    # What is here is not downloaded again.
    assert emseg("data", "add", "--card", card)[0] == 0
    assert len(server.asked) == 1


def test_a_cut_download_goes_on_with_the_same_command(tmp_path, server, archive, emseg, own_card):
    server.files["/cells.zip"] = zipped(archive)
    card = own_card(card_of(server))
    server.cut_after = 2000
    code, _, err = emseg("data", "add", "--card", card)
    assert code == 2
    assert "try again to continue" in err
    assert not (tmp_path / "data" / "sources" / "ours").exists()
    server.cut_after = None
    assert emseg("data", "add", "--card", card)[0] == 0
    assert [start for _, start in server.asked] == [0, 2000]


@pytest.mark.parametrize("content", [b"<!DOCTYPE html>", b"PK\x03\x04 and no more"])
def test_what_is_no_archive_is_refused_and_thrown_away(tmp_path, server, archive, emseg, own_card, content):
    server.files["/cells.zip"] = content
    card = own_card(card_of(server))
    code, _, err = emseg("data", "add", "--card", card)
    assert code == 2
    assert "/cells.zip did not give a ZIP archive" in err
    server.files["/cells.zip"] = zipped(archive)
    assert emseg("data", "add", "--card", card)[0] == 0


def test_a_damaged_archive_is_refused_and_thrown_away(tmp_path, server, archive, emseg, own_card):
    whole = zipped(archive)
    damaged = bytearray(whole)
    damaged[len(whole) // 2] ^= 255
    server.files["/cells.zip"] = bytes(damaged)
    card = own_card(card_of(server))
    code, _, err = emseg("data", "add", "--card", card)
    assert code == 2
    assert "is damaged" in err
    server.files["/cells.zip"] = whole
    assert emseg("data", "add", "--card", card)[0] == 0


def test_an_archive_cannot_write_outside(tmp_path, server, archive, emseg, own_card):
    packed = io.BytesIO(zipped(archive))
    with zipfile.ZipFile(packed, "a") as contents:
        contents.writestr("../../../train-volume.tif", b"elsewhere")
        contents.writestr("__MACOSX/._train-volume.tif", b"litter")
    server.files["/cells.zip"] = packed.getvalue()
    assert emseg("data", "add", "--card", own_card(card_of(server)))[0] == 0
    assert len(list(tmp_path.rglob("train-volume.tif"))) == 1


def test_a_mirror_stands_in_and_a_wrong_file_is_refused(tmp_path, server, archive, emseg, own_card):
    content = zipped(archive)
    server.files |= {"/cells.zip": content, "/wrong.zip": zipped(archive, "other/")}
    dead = f"http://127.0.0.1:{free_port()}/cells.zip"
    sha256 = hashlib.sha256(content).hexdigest()

    def with_files(*urls):
        return own_card(card_of(server, files=[{"name": "cells.zip", "urls": list(urls), "sha256": sha256}]))

    code, _, err = emseg("data", "add", "--card", with_files(f"{server.address}/wrong.zip"))
    assert code == 2
    assert f"not {sha256[:12]}" in err
    assert emseg("data", "add", "--card", with_files(dead, f"{server.address}/cells.zip"))[0] == 0


@pytest.mark.parametrize("way", ["download", "archive", "unpacked", "checkout"])
def test_white_membranes_in_folders_of_sections_are_read_as_the_card_says(
    tmp_path, server, stack, emseg, own_card, way
):
    """As the ground truth of the ventral nerve cord lies in its repository: 1-bit PNGs, white where membrane is."""
    root = tmp_path / "packed"
    for z, (image, label) in enumerate(zip(*stack, strict=True)):
        tifffile.imwrite(_made(root / "stack1" / "raw" / f"{z:02}.tif"), image)
        Image.fromarray(label == 0).save(_made(root / "stack1" / "membranes" / f"{z:02}.png"))
        tifffile.imwrite(_made(root / "stack1" / "mitochondria" / f"{z:02}.tif"), image)
    content = zipped(root, "ours-master/")
    server.files["/cells.zip"] = content
    (tmp_path / "here.zip").write_bytes(content)
    zipfile.ZipFile(io.BytesIO(content)).extractall(tmp_path / "unpacked")
    places = {"download": [], "archive": ["here.zip"], "unpacked": ["unpacked"], "checkout": ["packed"]}
    origin = [part for place in places[way] for part in ("--from", place)]
    labels = {"kind": "interior", "membrane": "white"}
    card = own_card(card_of(server, images="stack1/raw", labels="stack1/membranes") | {"labels": labels})
    code, _, err = emseg("data", "add", "--card", card, *origin)
    assert code == 0, err
    source = load_source("ours")
    np.testing.assert_array_equal(source.images, stack[0])
    np.testing.assert_array_equal(source.labels, stack[1] > 0)
    assert bool(server.asked) == (way == "download")
    # What was added is read as it lies there, not turned round once more.
    assert emseg("data", "add", "again", "--from", "data/sources/ours")[0] == 0
    again = load_source("again")
    np.testing.assert_array_equal(again.labels, source.labels)
    assert again.card.licence == "CC0"


def test_a_folder_has_a_card_of_its_own_and_without_one_gets_one(tmp_path, source_folder, emseg, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, out, _ = emseg("data", "add", "plain", "--from", source_folder)
    assert code == 0
    assert "licence: unknown" in out
    assert load_source("plain").card.licence is None
    assert load_source("plain").voxel_size_nm is None
    (source_folder / "card.yaml").write_text("name: any\ntitle: our cortex\nlicence: CC0\nvoxel_size_nm: [40, 5, 5]\n")
    code, out, _ = emseg("data", "add", "told", "--from", source_folder)
    assert code == 0
    assert "our cortex" in out
    source = load_source("told")
    assert source.noted.model_dump(exclude_defaults=True) == {
        "recognised": None,
        "name": "told",
        "title": "our cortex",
        "licence": "CC0",
        "voxel_size_nm": [40, 5, 5],
    }


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        (
            {"imagej": True, "resolution": (0.25, 0.2), "metadata": {"axes": "ZYX", "spacing": 50, "unit": "nm"}},
            (50, 5, 4),
        ),
        (
            {"imagej": True, "resolution": (250, 200), "metadata": {"axes": "ZYX", "spacing": 0.05, "unit": "um"}},
            (50, 5, 4),
        ),
        ({"imagej": True, "resolution": (0.25, 0.25), "metadata": {"axes": "ZYX", "unit": "nm"}}, None),
        ({"imagej": True, "resolution": (0.25, 0.25), "metadata": {"axes": "ZYX", "spacing": 50}}, None),
        (
            {
                "ome": True,
                "metadata": {"axes": "ZYX", "PhysicalSizeZ": 0.05, "PhysicalSizeY": 4, "PhysicalSizeX": 4}
                | {"PhysicalSizeYUnit": "nm", "PhysicalSizeXUnit": "nm"},
            },
            (50, 4, 4),
        ),
        ({"metadata": {"axes": "ZYX"}, "resolution": (72, 72), "resolutionunit": "INCH"}, None),
    ],
)
def test_a_voxel_size_that_the_files_say_is_kept(tmp_path, stack, written, expected):
    tifffile.imwrite(_made(tmp_path / "cortex" / "images.tif"), stack[0], **written)
    write_stack(tmp_path / "cortex" / "labels.tif", stack[1])
    add_source("cortex", tmp_path / "cortex", tmp_path / "sources")
    assert load_source("cortex", tmp_path / "sources").voxel_size_nm == (expected and pytest.approx(expected))


def test_a_card_beside_sections_that_were_changed_is_not_theirs(tmp_path, source_folder, stack):
    (source_folder / "card.yaml").write_text("name: any\ntitle: our cortex\nlicence: CC0\n")
    folder = add_source("cortex", source_folder, tmp_path / "sources")
    assert load_source("cortex", tmp_path / "sources").card.licence == "CC0"
    write_stack(folder / "images.tif", stack[0] ^ 1)
    assert load_source("cortex", tmp_path / "sources").card is None
    with pytest.raises(InputError, match="not one that the card of other names"):
        add_source("other", folder, tmp_path / "sources")


def test_sections_of_another_size_than_the_card_says_are_refused(tmp_path, source_folder):
    (source_folder / "card.yaml").write_text("name: any\ntitle: our cortex\nstacks: [{size: [9, 64, 65]}]\n")
    with pytest.raises(InputError, match="are 9 x 64 x 64, but its card says 9 x 64 x 65"):
        add_source("cortex", source_folder, tmp_path / "sources")


def test_an_hdf5_file_is_downloaded_or_taken_and_read_by_its_paths(tmp_path, server, stack, emseg, own_card):
    h5py = pytest.importorskip("h5py")
    file = tmp_path / "sample.hdf"
    with h5py.File(file, "w") as volume:
        volume["volumes/raw"] = stack[0]
        volume["volumes/labels/membranes"] = stack[1]
    try:
        read_stack(f"{file}:volumes/raw")
    except InputError:
        pytest.skip("FILE.h5:PATH is not read yet")
    server.files["/download"] = file.read_bytes()
    files = [{"name": "cells.h5", "urls": [f"{server.address}/download"]}]
    places = {"images": "cells.h5:volumes/raw", "labels": "cells.h5:volumes/labels/membranes"}
    card = own_card(card_of(server, files=files, **places))
    for name, origin in (("downloaded", []), ("taken", ["--from", file]), ("folder", ["--from", tmp_path / "h5"])):
        _made(tmp_path / "h5" / "cells.h5").write_bytes(file.read_bytes())
        code, _, err = emseg("data", "add", name, "--card", card, *origin)
        assert code == 0, err
        source = load_source(name)
        np.testing.assert_array_equal(source.images, stack[0])
        np.testing.assert_array_equal(source.labels, stack[1] > 0)
