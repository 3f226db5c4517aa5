"""Cards: what they may say, those that come with emseg, and which sections are recognised."""

import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from emseg.data.adding import add_source
from emseg.data.datasets.card import read_card, write_card
from emseg.data.datasets.known import known_cards
from emseg.data.sources import load_source
from emseg.errors import InputError
from emseg.metrics.scoring import ALL_METRICS
from emseg.models import list_models

PROJECT = Path(__file__).parents[3]


def test_the_cards_that_come_with_emseg_say_what_the_field_knows():
    cards = known_cards()
    assert set(cards) == {"cremi", "drosophila_vnc", "isbi2012", "isbi2012_cells", "snemi3d", "synthetic"}
    assert cards["isbi2012"].voxel_size_nm == [50, 4, 4]
    assert cards["drosophila_vnc"].licence == "CC BY-NC-SA 3.0"
    assert [stack.name for stack in cards["cremi"].stacks] == ["A", "B", "C"]
    assert cards["cremi"].stacks[1].images == "sample_B_20160501.hdf:volumes/raw"
    assert cards["cremi"].licence is None
    assert cards["snemi3d"].stacks[0].files[0].sha256.startswith("5b130a24d9eb")


def test_tables_of_cards_name_models_and_metrics_that_there_are():
    for card in known_cards().values():
        rows = list(card.reference.table.values()) if card.reference else []
        rows += [entry.metrics for entry in card.published.entries] if card.published else []
        assert {metric for row in rows for metric in row} <= set(ALL_METRICS)
        assert not card.reference or set(card.reference.table) <= set(list_models())


def test_nothing_else_knows_the_challenge_by_name():
    known = re.compile("isbi", re.IGNORECASE)
    for file in (PROJECT / "emseg").rglob("*.py"):
        lines = [line for line in file.read_text(encoding="utf-8").splitlines() if known.search(line)]
        examples = [line for line in lines if re.match(r"\s+(emseg |>>> )", line)]
        assert lines == examples, file


def test_a_card_is_read_back_as_it_was_written(tmp_path):
    for card in known_cards().values():
        write_card(tmp_path / "card.yaml", card)
        assert read_card(tmp_path / "card.yaml") == card


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("title: ours", "card.yaml: name is missing"),
        ("name: cortex", "card.yaml: title is missing"),
        ("name: cortex\ntitle: ours\nlicense: MIT", "card.yaml: license is not an entry of a card"),
        ("name: cortex\ntitle: ours\nvoxel_size_nm: [50, 4]", "voxel_size_nm: .*at least 3 items"),
        ("name: cortex\ntitle: ours\nvoxel_size_nm: [50, 4, -4]", "voxel_size_nm.2: .*greater than 0"),
        ("name: cortex\ntitle: ours\nlabels: {kind: membranes}", "labels.kind: .*'interior', 'cells' or 'classes'"),
        ("name: cortex\ntitle: ours\nlabels: {kind: classes}", "classes need membrane_values"),
        ("name: cortex\ntitle: ours\nstacks: [{images: ../raw, labels: masks}]", "expected a path inside the archive"),
        ("name: cortex\ntitle: ours\nstacks: [{images: raw}]", "images and labels go together"),
        ("name: cortex\ntitle: ours\nstacks: [{}, {}]", "each needs a name of its own"),
        ("- name", "must be a card, such as name: cortex"),
        ("name: [", "is not YAML"),
    ],
)
def test_what_is_wrong_with_a_card_is_one_sentence(tmp_path, emseg, source_folder, text, message):
    (source_folder / "card.yaml").write_text(text)
    for arguments in (["cortex", "--from", source_folder], ["--card", source_folder / "card.yaml"]):
        code, _, err = emseg("data", "add", *arguments)
        assert code == 2
        assert re.search(message, err), err
        assert err.count("\n") == 1


def test_the_real_stack_is_recognised_by_its_pixels_whatever_it_is_called(tmp_path, isbi2012):
    assert isbi2012.labels.mean() == pytest.approx(0.7804, abs=5e-5)
    card = known_cards()["isbi2012"]
    none = isbi2012.test_images[:0]
    without_test = replace(isbi2012, test_images=none, name="mine")
    assert [isbi2012.digest, without_test.digest] == card.stacks[0].data_digests
    # Labels of the test stack, which are not here, change the digest of the data, not whose they are.
    with_labels = replace(isbi2012, test_labels=np.ones(isbi2012.test_images.shape, bool))
    for source in (isbi2012, without_test, with_labels):
        assert source.card == card
        assert source.noted.recognised == "isbi2012"
        assert source.voxel_size_nm == (50, 4, 4)
    labels = isbi2012.labels.copy()
    labels[3, 100, 100] ^= True
    for other in (replace(isbi2012, labels=labels), replace(isbi2012, test_images=isbi2012.images[:3])):
        assert other.card is None
        assert other.noted is None


def test_the_real_stack_is_added_under_any_name_with_its_terms(tmp_path, isbi2012, emseg, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = os.environ["EMSEG_ISBI2012"]
    for name in ("isbi2012", "mine"):
        code, out, err = emseg("data", "add", name, "--from", folder)
        assert code == 0, err
        assert "non-commercial" in out
        assert "doi:10.3389/fnana.2015.00142" in out
        source = load_source(name)
        assert source.card.reference is not None
        np.testing.assert_array_equal(source.labels, isbi2012.labels)
    assert "these are the sections of isbi2012" in err
    rows = {row["name"]: row for row in json.loads(emseg("data", "list", "--json")[1])}
    assert rows["isbi2012"]["sources"] == {"isbi2012": True}
    assert rows["mine"]["licence"] == rows["isbi2012"]["licence"]


def test_other_sections_under_a_known_name_are_refused_and_have_none_of_its_rows(tmp_path, source_folder, stack):
    (source_folder / "images.tif").rename(source_folder / "train-volume.tif")
    (source_folder / "labels.tif").rename(source_folder / "train-labels.tif")
    with pytest.raises(InputError, match=r"the pixels of train-volume.tif are not those of the ISBI 2012 challenge"):
        add_source("isbi2012", source_folder, tmp_path / "sources")
    assert not (tmp_path / "sources").exists()
    # Nor by putting them there by hand, with the card or without.
    source_folder.rename(tmp_path / "isbi2012")
    assert load_source("isbi2012", tmp_path).card is None
    card = known_cards()["isbi2012"]
    write_card(tmp_path / "isbi2012" / "card.yaml", card)
    assert load_source("isbi2012", tmp_path).card is None


def test_a_list_fits_80_columns_and_says_what_is_here(tmp_path, emseg, monkeypatch, source_folder):
    monkeypatch.chdir(tmp_path)
    add_source("ours", source_folder)
    code, out, _ = emseg("data", "list")
    assert code == 0
    assert max(map(len, out.splitlines())) <= 80
    about = {part.split()[0]: part for part in out.split("\n\n") if part.strip()}
    assert about["ours"].splitlines()[0].split() == ["ours", "here"]
    assert about["isbi2012"].splitlines()[0].split() == ["isbi2012", "not", "here"]
    assert "50 x 4 x 4 nm (z, y, x)" in about["isbi2012"]
    assert "3 of 125 x 1250 x 1250" in about["cremi"]
    assert "licence: unknown" in about["ours"]
    rows = {row["name"]: row for row in json.loads(emseg("data", "list", "--json")[1])}
    assert rows["cremi"]["sources"] == dict.fromkeys(("cremi_a", "cremi_b", "cremi_c", "cremi"), False)
    assert "never fetched from its real host with this card" in rows["snemi3d"]["remarks"]
    assert rows["ours"]["sources"] == {"ours": True}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["cremi"], "cremi has several samples, A, B, C; choose one with --sample"),
        (["cremi", "--sample", "D"], "cremi has no sample D; it has A, B, C"),
        (["cortex", "--sample", "A"], "cortex has no sample A; it has no samples to choose from"),
        (["cortex"], "cortex is not a dataset with a card"),
        ([], "say which sections"),
        (["cortex", "--card", "nowhere.yaml"], "nowhere.yaml cannot be read"),
        (["isbi2012", "--from", "nowhere"], "nowhere does not exist"),
    ],
)
def test_what_cannot_be_added_is_said_before_anything_is_downloaded(tmp_path, emseg, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    code, _, err = emseg("data", "add", *arguments)
    assert code == 2
    assert message in err
    assert not list(tmp_path.iterdir())


def test_cards_are_part_of_the_package(tmp_path):
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(PROJECT / name, tmp_path)
    shutil.copytree(PROJECT / "emseg", tmp_path / "emseg", ignore=shutil.ignore_patterns("__pycache__"))
    build = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--quiet", "."]
    subprocess.run(build, check=True, cwd=tmp_path)
    (wheel,) = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert {f"emseg/data/datasets/{name}.yaml" for name in known_cards()} <= set(names)
