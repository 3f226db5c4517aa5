"""Several stacks as one source: how they come in, what is refused, and that no network looks from one into another."""

import json
import socket
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import yaml

from emseg.data.check import check_stacks
from emseg.data.datasets.card import read_card
from emseg.data.io.stack import stack_digest, write_stack
from emseg.data.joining import check_source, join
from emseg.data.labelled_sections import divide, every_section
from emseg.data.normalization import Normalization
from emseg.data.protocol import Split
from emseg.data.sources import Source, load_source, read_source, write_source
from emseg.data.synthetic import make_synthetic
from emseg.data.version import read_version
from emseg.errors import InputError
from emseg.inference.trained import load_predictor
from emseg.metrics.scoring import score_segments
from emseg.segmentation.agglomeration import learn_agglomeration
from emseg.training.samples import TrainingSamples, TrainingStack


@pytest.fixture(scope="module")
def other():
    return make_synthetic(sections=5, side=64, seed=11)


def write(folder, stack):
    write_stack(folder / "images.tif", stack[0])
    write_stack(folder / "labels.tif", stack[1])
    return folder


@pytest.fixture
def lab(tmp_path, monkeypatch, stack, other):
    """A folder with a stack in each of two folders, where the tests work."""
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "lab" / "mouse 2", stack)
    write(tmp_path / "lab" / "mouse 10", other)
    return tmp_path


def test_a_folder_for_each_stack_becomes_one_source(lab, stack, other, emseg):
    code, out, _ = emseg("data", "check", "lab", "--json")
    assert code == 0
    facts = json.loads(out)["facts"]
    assert facts["stacks"] == "stack mouse_2 (9 sections), stack mouse_10 (5 sections)"
    assert facts["stack mouse_10, images"].startswith("5 sections of 64 x 64 pixels")
    assert emseg("data", "check", "lab", "--sheet", "sheet.html")[0] == 0
    assert "stack mouse_10 (5 sections)" in (lab / "sheet.html").read_text()
    assert emseg("data", "add", "mice", "--from", "lab")[0] == 0
    source = load_source("mice")
    assert read_version(lab / "lab").digest == read_version(lab / "data/sources/mice").digest == source.digest
    assert source.stacks == {"mouse_2": 9, "mouse_10": 5}
    np.testing.assert_array_equal(source.images, np.concatenate([stack[0], other[0]]))
    np.testing.assert_array_equal(source.labels, np.concatenate([stack[1], other[1]]) > 0)
    assert source.places.tolist() == [*range(9), *range(10, 15)]
    # What was written is read again as it is.
    assert emseg("data", "add", "again", "--from", "data/sources/mice")[0] == 0
    assert load_source("again").stacks == source.stacks
    assert load_source("again").digest == source.digest


def test_the_digest_tells_where_stacks_end_and_of_one_stack_is_what_it_was(source):
    arrays = (source.images, source.labels, source.test_images, source.test_labels)
    assert source.digest == stack_digest(*arrays)
    cut = [replace(source, stacks={"a": n, "b": 9 - n}) for n in (3, 4)]
    assert len({source.digest, *(each.digest for each in cut)}) == 3


def test_a_card_that_speaks_of_other_stacks_is_refused(lab, emseg):
    emseg("data", "add", "mice", "--from", "lab")
    place = lab / "data/sources/mice/card.yaml"
    card = yaml.safe_load(place.read_text())
    card["stacks"][0]["size"][0] = 8
    place.write_text(yaml.safe_dump(card))
    with pytest.raises(InputError, match=r"stacks of 8 x 64 x 64 and 5 x 64 x 64, but the sections are 14 x 64 x 64"):
        load_source("mice")


@pytest.mark.parametrize(
    ("second", "sentence"),
    [
        (lambda s, o: (o[0][:, :48], o[1][:, :48]), "are 48 x 64 pixels but those in stack mouse_2 64 x 64"),
        (lambda s, o: (o[0].astype(np.uint16), o[1]), "are uint16 but those in stack mouse_2 are uint8"),
        (
            lambda s, o: [np.concatenate([p, np.rot90(q[4:5], axes=(1, 2))]) for p, q in zip(o, s, strict=True)],
            "section 5 of stack mouse_10 is section 4 of stack mouse_2, as it is, turned or mirrored",
        ),
        (lambda s, o: (o[0], o[1][::-1]), "stack mouse_10: label 0"),
    ],
)
def test_stacks_that_do_not_go_together_are_refused(lab, stack, other, emseg, second, sentence):
    write(lab / "lab" / "mouse 10", second(stack, other))
    for command in (["check", "lab"], ["add", "mice", "--from", "lab"]):
        code, _, err = emseg("data", *command)
        assert code == 2
        assert sentence in err
    assert not (lab / "data").exists()


def test_a_test_stack_lies_in_the_folder_of_a_stack(lab, stack, other, emseg):
    tested = make_synthetic(sections=3, side=64, seed=5)
    write_stack(lab / "lab/test-volume.tif", tested[0])
    assert "move it into the folder of one of them" in emseg("data", "check", "lab")[2]
    (lab / "lab/test-volume.tif").rename(lab / "lab/mouse 2/test-volume.tif")
    assert emseg("data", "add", "mice", "--from", "lab")[0] == 0
    np.testing.assert_array_equal(load_source("mice").test_images, tested[0])
    write_stack(lab / "lab/mouse 10/test-volume.tif", tested[0])
    assert "each bring a test stack; a source has one" in emseg("data", "check", "lab")[2]


def test_the_stacks_of_a_card_that_are_there_are_one_source(lab, other, emseg):
    third = make_synthetic(sections=4, side=64, seed=5)
    for name, part in (("A", other), ("C", third)):
        write_stack(lab / "here" / f"{name}_raw.tif", part[0])
        write_stack(lab / "here" / f"{name}_cells.tif", part[1])
    stacks = [{"name": name, "images": f"{name}_raw.tif", "labels": f"{name}_cells.tif"} for name in "ABC"]
    (lab / "ours.yaml").write_text(yaml.safe_dump({"name": "ours", "title": "Ours", "stacks": stacks}))
    code, out, err = emseg("data", "add", "--card", "ours.yaml", "--from", "here")
    assert code == 0, err
    assert "here does not hold B of ours; the source is of A, C" in err
    assert load_source("ours").stacks == {"A": 5, "C": 4}
    assert "Ours" in out
    assert emseg("data", "add", "--card", "ours.yaml", "--from", "here", "--sample", "C")[0] == 0
    assert load_source("ours_c").stacks == {}
    assert emseg("data", "add", "--card", "ours.yaml", "--from", "lab")[0] == 2
    assert "choose one with --sample" in emseg("data", "add", "--card", "ours.yaml")[2]


def test_appended_sections_are_a_stack_or_continue_the_last_one(lab, stack, other, emseg):
    write(lab / "first", stack)
    write(lab / "more", other)
    assert emseg("data", "add", "cortex", "--from", "first")[0] == 0
    before = load_source("cortex")
    code, out, _ = emseg("data", "add", "cortex", "--from", "more", "--append")
    after = load_source("cortex")
    assert code == 0
    assert out.splitlines()[:3] == [
        "cortex: 14 sections, 5 of them new",
        "stacks: cortex (9), more (5)",
        f"digest: {after.digest}, before {before.digest}",
    ]
    assert after.card.digests == [after.digest]
    np.testing.assert_array_equal(after.images, np.concatenate([stack[0], other[0]]))
    third = write(lab / "elsewhere" / "more", make_synthetic(sections=4, side=64, seed=5))
    assert emseg("data", "add", "cortex", "--from", third, "--append")[0] == 0
    assert load_source("cortex").stacks == {"cortex": 9, "more": 5, "more_2": 4}
    fourth = write(lab / "next", make_synthetic(sections=3, side=64, seed=6))
    assert emseg("data", "add", "cortex", "--from", fourth, "--append", "--continues")[0] == 0
    assert load_source("cortex").stacks == {"cortex": 9, "more": 5, "more_2": 7}
    # Of a source of one stack it is one stack still, as if all had come at once.
    assert emseg("data", "add", "whole", "--from", "first")[0] == 0
    assert emseg("data", "add", "whole", "--from", "more", "--append", "--continues")[0] == 0
    together = write(lab / "together", [np.concatenate(pair) for pair in zip(stack, other, strict=True)])
    assert emseg("data", "add", "once", "--from", together)[0] == 0
    assert load_source("whole").digest == load_source("once").digest


def test_what_cannot_be_appended_leaves_the_source_as_it_was(lab, stack, other, emseg, monkeypatch):
    write(lab / "first", stack)
    emseg("data", "add", "cortex", "--from", "first")
    before = {file.name: file.read_bytes() for file in (lab / "data/sources/cortex").iterdir()}
    mirrored = [np.concatenate([mine, yours[3:4, ::-1]]) for mine, yours in zip(other, stack, strict=True)]
    write(lab / "known", mirrored)
    write(lab / "small", [part[:, :48, :48] for part in other])
    tested = write(lab / "tested", other)
    write_stack(tested / "test-volume.tif", stack[0][:2])
    for folder, sentence in (
        ("known", "section 5 of stack known is section 3 of stack cortex, as it is, turned or mirrored"),
        ("small", "are 48 x 48 pixels but those in stack cortex 64 x 64"),
        ("tested", "tested holds a test stack, which cannot be appended"),
        ("nowhere", "nowhere does not exist"),
    ):
        code, _, err = emseg("data", "add", "cortex", "--from", folder, "--append")
        assert (code, err.count("\n")) == (2, 1)
        assert sentence in err
    for arguments, sentence in (
        (["none", "--from", "first", "--append"], "no source named none in data/sources to add sections to"),
        (["cortex", "--append"], "--append adds sections of a folder"),
        (["cortex", "--from", "lab", "--continues"], "give --append with it"),
        (["cortex", "--from", "lab", "--append", "--continues"], "lab holds 2 stacks, of which one alone can continue"),
        (["synthetic", "--from", "first", "--append"], "names the sections that emseg generates"),
    ):
        code, _, err = emseg("data", "add", *arguments)
        assert code == 2
        assert sentence in err
    monkeypatch.setattr("emseg.data.sources.write_card", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        emseg("data", "add", "cortex", "--from", write(lab / "more", other), "--append")
    assert {file.name: file.read_bytes() for file in (lab / "data/sources/cortex").iterdir()} == before


def test_a_source_that_was_being_replaced_at_the_kill_is_the_old_one(lab, stack, emseg):
    write(lab / "first", stack)
    emseg("data", "add", "cortex", "--from", "first")
    dead = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, text=True)
    host = socket.gethostname().replace(".", "-")
    place = lab / "data/sources/cortex"
    place.rename(place.with_name(f".cortex.{host}.{dead.stdout.strip()}-0.replaced"))
    np.testing.assert_array_equal(load_source("cortex").images, stack[0])


def test_a_mask_beside_numbered_cells_is_scored_as_before(lab, stack, other, emseg):
    write(lab / "first", stack)
    emseg("data", "add", "cortex", "--from", "first")
    halves = np.where(other[1] > 0, np.where(np.arange(64) < 32, 7, 9), 0).astype(np.uint16)
    ignored = np.where(np.arange(64)[:, None] < 4, 99, halves).astype(np.uint16)
    more = write(lab / "more", (other[0], ignored))
    code, _, err = emseg(
        "data", "add", "cortex", "--from", more, "--append", "--cells", "--ignore-value", "99", "--membrane-width", "2"
    )
    assert code == 0, err
    assert "source cortex: its labels are a mask while others number cells" in err
    source = load_source("cortex")
    card = read_card(lab / "data/sources/cortex/card.yaml")
    assert "its labels are a mask" in card.note
    assert card.drawn_membrane_pixels == 2
    probability = np.random.default_rng(0).random(stack[1].shape).astype(np.float32)
    by_number = score_segments(probability, np.where(source.labels, source.cells, 0)[:9], 0.5, cells=True)
    np.testing.assert_array_equal(by_number["v_rand"], score_segments(probability, stack[1], 0.5)["v_rand"])
    assert not source.ignore[:9].any()
    np.testing.assert_array_equal(source.ignore[9:], ignored == 99)


def test_the_card_keeps_what_both_say(lab, stack, other, emseg):
    said = {"name": "first", "title": "Cortex", "licence": "CC0", "voxel_size_nm": [50, 4, 4]}
    origin = {"url": "https://example.org/a.zip", "sha256": "a" * 64, "bytes": 1}
    for name, part, more in (
        ("first", stack, {"citations": [{"text": "Us 2025"}], "origins": [origin]}),
        ("more", other, {"citations": [{"text": "They 2026"}], "licence": "CC BY", "origins": [origin | {"bytes": 2}]}),
    ):
        folder = write(lab / name, part)
        (folder / "card.yaml").write_text(yaml.safe_dump(said | more))
    emseg("data", "add", "cortex", "--from", "first")
    assert emseg("data", "add", "cortex", "--from", "more", "--append")[0] == 0
    card = load_source("cortex").card
    assert [each.text for each in card.citations] == ["Us 2025", "They 2026"]
    assert [each.bytes for each in card.origins] == [1, 2]
    assert (card.title, card.licence, card.voxel_size_nm) == ("Cortex", "CC0", [50, 4, 4])
    assert card.note == "stack more: licence is CC BY."


@pytest.fixture
def two(stack, other):
    """A source of two stacks in memory."""
    empty = stack[0][:0]
    parts = [Source("two", part[0], part[1] > 0, empty, empty > 0) for part in (stack, other)]
    return join("two", parts, {"a": 9, "b": 5})


def test_networks_and_merging_stop_where_a_stack_ends(two, evaluated, tiny_settings):
    split = Split("kfold", 0, training=(0, 1, 2, 3), validation=(), test=(7, 8, 9, 10))
    parts = divide(two, split, Normalization(0, 255))
    assert [block.numbers.tolist() for block in parts.test.blocks] == [[7, 8], [9, 10]]
    tested = replace(two, test_images=two.images[:3], test_labels=two.labels[:3])
    every = every_section(tested, Normalization(0, 255))
    assert [len(block) for block in every.blocks] == [9, 5, 3]
    predictor = load_predictor(evaluated(neighbours=1), normalized=True)
    found = predictor.predict(parts.test.images, parts.test.places)
    alone = [predictor.predict(images, range(2)) for images in (parts.test.images[:2], parts.test.images[2:])]
    np.testing.assert_array_equal(found, np.concatenate(alone))
    assert (found != predictor.predict(parts.test.images, range(4))).any()
    blurred = np.clip(parts.test.labels * 0.8 + np.random.default_rng(0).random(found.shape) * 0.2, 0, 1)
    rule = learn_agglomeration([(blurred, parts.test.labels)])
    closed = [rule.close_stack(blurred[:2]), rule.close_stack(blurred[2:])]
    np.testing.assert_array_equal(rule.close(blurred, parts.test.places), np.concatenate(closed))
    network, recipe = predictor.network, tiny_settings.recipe("residual_unet")
    stack = TrainingStack(parts.test.images, parts.test.labels, None, parts.test.places)
    samples = TrainingSamples(stack, network, recipe, None, next(network.parameters()).device)
    assert samples.nearby == [((0,), (1,)), ((0,), (1,)), ((2,), (3,)), ((2,), (3,))]


def test_a_label_is_not_compared_with_images_of_another_stack(two, tmp_path):
    """Checked as one stack, the first label of the second stack fits the image before it better."""
    mixed = two.images.copy()
    mixed[8] = np.where(two.labels[9], 255, 0)
    broken = replace(two, images=mixed)
    assert any("label 9 fits image 8" in problem for problem in check_stacks(mixed, two.labels).problems)
    assert not any("image 8" in problem and "label 9" in problem for problem in check_source(broken).problems)
    assert check_source(two).problems == []
    # Stage prepare writes a source as it is.
    write_source(tmp_path / "prepared", replace(two, own_card=None))
    assert read_source(tmp_path / "prepared", "two").digest == two.digest
