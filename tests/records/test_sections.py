"""Which sections a run was trained and tested on is known by their pixels, whatever they are called."""

import hashlib
from dataclasses import replace

import numpy as np
import pytest
from evaluated import run_facts
from PIL import Image

from emseg.data.io.stack import section_digest
from emseg.records import Run
from emseg.training.plan import RunPlan


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_a_digest_is_the_smallest_of_the_eight_symmetries(dtype):
    section = np.random.default_rng(1).integers(0, 250, (5, 7)).astype(dtype)
    # Another program turns and mirrors it.
    picture = Image.fromarray(section.astype(np.int32))
    turned = [section, *(np.array(picture.transpose(way)).astype(dtype) for way in Image.Transpose)]
    assert len({(each.shape, each.tobytes()) for each in turned}) == 8
    hashes = [hashlib.sha256(b"%dx%d" % each.shape + each.tobytes()).hexdigest()[:32] for each in turned]
    assert {section_digest(each) for each in turned} == {min(hashes)}


def test_a_digest_tells_sections_apart_and_not_how_they_are_stored():
    section = np.arange(12, dtype=np.uint16).reshape(3, 4) * 256
    same = [section.astype(">u2"), np.asfortranarray(section), np.pad(section, 2)[2:-2, 2:-2]]
    assert {section_digest(each) for each in same} == {section_digest(section)}
    changed = section.copy()
    changed[0, 0] += 1
    others = [changed, section.reshape(2, 6), section.reshape(4, 3), section[:, ::-1] + 1]
    assert section_digest(section) not in {section_digest(each) for each in others}


def plan_of(settings, source, protocol):
    protocol = settings.protocol.model_copy(update={"name": protocol})
    return RunPlan("unet2", 0, 0, settings.model_copy(update={"protocol": protocol}), source)


def recorded(settings, source, protocol="heldout"):
    """The record of a run of these sections that was not trained."""
    digests = plan_of(settings, source, protocol).section_digests
    return Run.model_validate(run_facts("here", protocol) | {"dataset": source.name, "section_digests": digests})


def rearranged(source, name, order, turn=lambda stack: stack):
    return replace(source, name=name, images=turn(source.images[order]), labels=turn(source.labels[order]))


def test_runs_of_the_same_sections_share_them(tiny_settings, source):
    run = recorded(tiny_settings, source)
    assert (len(run.trained_on), len(run.tested_on)) == (7, 2)
    assert not run.trained_on & run.tested_on
    again = recorded(tiny_settings, replace(source, name="another"))
    assert (again.trained_on, again.tested_on) == (run.trained_on, run.tested_on)
    digests = [section_digest(image) for image in source.images]
    assert run.section_digests.training == digests[:5]
    assert (run.section_digests.validation, run.section_digests.test) == (digests[5:7], digests[7:])


@pytest.mark.parametrize("turn", [lambda s: s, lambda s: np.rot90(s, axes=(1, 2)), lambda s: s[:, ::-1]])
def test_a_section_is_found_again_in_another_stack_order_and_orientation(tiny_settings, source, turn):
    run = recorded(tiny_settings, source)
    other = recorded(tiny_settings, rearranged(source, "turned", np.arange(9)[::-1], turn))
    # In the reversed stack the first two sections are tested on, which the other run was trained on.
    assert other.tested_on == {section_digest(image) for image in source.images[:2]}
    assert other.tested_on <= run.trained_on
    assert run.tested_on <= other.trained_on
    assert run.trained_on | run.tested_on == other.trained_on | other.tested_on


def test_other_sections_are_others(tiny_settings, source):
    run = recorded(tiny_settings, source)
    other = recorded(tiny_settings, replace(source, images=255 - source.images))
    assert not (run.trained_on | run.tested_on) & (other.trained_on | other.tested_on)


def test_warped_copies_are_known_by_the_sections_they_were_made_from(tiny_settings, source):
    ranges = ("rotation", "shift", "shear", "zoom", "elastic_amplitude", "brightness", "contrast")
    # Warped by nothing, an image is its section, and tells by itself which one.
    augment = tiny_settings.augment.model_copy(update=dict.fromkeys(ranges, 0.0) | {"flip": False})
    settings = tiny_settings.model_copy(update={"augment": augment})
    sections, images = recorded(settings, source, "paper"), plan_of(settings, source, "paper").parts
    for part in ("training", "validation", "test"):
        found = {section_digest(image) for image in getattr(images, part).images}
        assert set(getattr(sections.section_digests, part)) == found
    assert len(sections.section_digests.training) > 1
    assert recorded(tiny_settings, source, "paper").section_digests == sections.section_digests


def test_a_test_stack_has_sections_of_its_own(tiny_settings, source):
    tested = replace(source, test_images=source.images[:3, ::-1] ^ 1, test_labels=source.labels[:3])
    run = recorded(tiny_settings, tested, "official")
    assert run.tested_on == {section_digest(image ^ 1) for image in source.images[:3]}
    assert not run.trained_on & run.tested_on
    assert len(run.trained_on) == 9
