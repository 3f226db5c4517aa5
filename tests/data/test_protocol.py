import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from emseg.data.augmented_set import make_augmented
from emseg.data.labelled_sections import divide
from emseg.data.protocol import divide_augmented, split_sections
from emseg.data.sources import Source
from emseg.errors import InputError
from emseg.settings import AugmentedSetSettings, ProtocolSettings

AUGMENT = AugmentedSetSettings(count=40, seed=0, separation_limit=8.0, elastic_amplitude=3.0, elastic_spacing=8.0)


def protocol(name, **changes):
    values = {"name": name, "held_out": 6, "validation": 4, "blocks": 5, "folds": [0]}
    return ProtocolSettings(**(values | changes))


def is_contiguous(sections):
    return list(sections) == list(range(sections[0], sections[0] + len(sections)))


def test_heldout_on_the_challenge_stack():
    split = split_sections(protocol("heldout"), [30])
    assert split.test == (24, 25, 26, 27, 28, 29)
    assert split.validation == (20, 21, 22, 23)
    assert split.training == tuple(range(20))


@given(st.integers(12, 60), st.integers(2, 6), st.integers(1, 3))
def test_kfold_tests_every_section_once_in_contiguous_blocks(sections, blocks, validation):
    settings = protocol("kfold", blocks=blocks, validation=validation)
    splits = [split_sections(settings, [sections], fold) for fold in range(blocks)]
    assert sorted(z for split in splits for z in split.test) == list(range(sections))
    for split in splits:
        assert is_contiguous(split.test)
        parts = [set(split.training), set(split.validation), set(split.test)]
        assert sum(map(len, parts)) == len(set.union(*parts)) == sections


# Worked out by hand: [test, validation] of each stack, in numbers of sections.
@pytest.mark.parametrize(
    ("stacks", "held_out", "validation", "expected"),
    [
        ([20, 10], 6, 4, [(4, 3), (2, 1)]),
        ([10, 20], 6, 4, [(2, 1), (4, 3)]),
        ([5, 5, 5], 4, 4, [(2, 2), (1, 1), (1, 1)]),
        # A stack of three gives one of each though its share is a third; one of two does not.
        ([50, 3, 2], 6, 4, [(5, 3), (1, 1), (0, 0)]),
        # More stacks than sections that are asked for.
        ([4, 4, 4], 1, 1, [(1, 1), (1, 1), (1, 1)]),
    ],
)
def test_stacks_give_sections_in_proportion_to_their_lengths(stacks, held_out, validation, expected):
    split = split_sections(protocol("heldout", held_out=held_out, validation=validation), stacks)
    start, training, validating, test = 0, [], [], []
    for length, (tested, validated) in zip(stacks, expected, strict=True):
        cuts = [start, start + length - tested - validated, start + length - tested, start + length]
        training += range(*cuts[:2])
        validating += range(*cuts[1:3])
        test += range(*cuts[2:])
        start += length
    assert (split.training, split.validation, split.test) == (tuple(training), tuple(validating), tuple(test))


def test_kfold_and_official_divide_each_stack():
    split = split_sections(protocol("kfold", blocks=2, validation=3), [6, 4], 1)
    assert split.test == (3, 4, 5, 8, 9)
    # 1.8 and 1.2 of three: the second is of the first stack.
    assert (split.training, split.validation) == ((0, 6), (1, 2, 7))
    split = split_sections(protocol("official", validation=3), [6, 4], test_sections=2)
    assert (split.test, split.validation) == ((0, 1), (4, 5, 9))


def test_leave_one_stack_out():
    split = split_sections(protocol("leave_one_stack_out", validation=3), [4, 3, 8], 1)
    assert split.test == (4, 5, 6)
    assert split.validation == (3, 13, 14)
    assert split.training == (0, 1, 2, 7, 8, 9, 10, 11, 12)
    with pytest.raises(InputError, match="needs several stacks, and the sections are of one"):
        split_sections(protocol("leave_one_stack_out"), [30])
    with pytest.raises(InputError, match=r"fold 3 does not exist; .* folds 0 to 2, one for each of the 3 stacks"):
        split_sections(protocol("leave_one_stack_out"), [9, 9, 9], 3)
    with pytest.raises(ValueError, match="folds must be different numbers from 0 on"):
        protocol("leave_one_stack_out", folds=[0, 0])


@given(
    st.sampled_from(["heldout", "kfold", "leave_one_stack_out"]),
    st.lists(st.integers(1, 20), min_size=2, max_size=5),
    st.integers(1, 6),
    st.integers(1, 4),
    st.integers(2, 4),
)
def test_parts_of_several_stacks_are_disjoint_and_folds_test_each_section_once(
    name, stacks, held_out, validation, blocks
):
    settings = protocol(name, held_out=held_out, validation=validation, blocks=blocks)
    ends = np.cumsum(stacks)
    stack_of = np.repeat(np.arange(len(stacks)), stacks)
    splits = []
    for fold in range({"heldout": 1, "kfold": blocks}.get(name, len(stacks))):
        try:
            splits.append(split_sections(settings, stacks, fold))
        except InputError as error:
            assume("too few" not in str(error))
            raise
    for fold, split in enumerate(splits):
        parts = [set(split.training), set(split.validation), set(split.test)]
        assert all(parts)
        assert sum(map(len, parts)) == sum(stacks)
        assert set.union(*parts) == set(range(sum(stacks)))
        if name == "leave_one_stack_out":
            assert set(stack_of[list(split.test)]) == {fold}
            assert fold not in stack_of[[*split.training, *split.validation]]
        for stack, end in enumerate(ends):
            own = range(end - stacks[stack], end)
            tested = [z for z in own if z in parts[2]]
            assert not tested or is_contiguous(tested)
            if name == "heldout":
                assert [z for z in own if z in parts[0]] == list(own)[: len(parts[0] & set(own))]
                assert not tested or tested[-1] == end - 1
            if stacks[stack] >= 3 and not (name == "leave_one_stack_out" and stack == fold):
                assert parts[1] & set(own)
                assert name != "heldout" or tested
    if name != "heldout":
        assert sorted(z for split in splits for z in split.test) == list(range(sum(stacks)))


def test_official_tests_on_the_other_stack():
    split = split_sections(protocol("official"), [30], test_sections=12)
    assert split.test == tuple(range(12))
    assert split.training + split.validation == tuple(range(30))
    with pytest.raises(InputError, match=r"test-labels\.tif"):
        split_sections(protocol("official"), [30])


def test_paper_divides_augmented_images_and_says_that_it_leaks():
    split = split_sections(protocol("paper"), [30])
    assert split.leaks
    assert split.training == tuple(range(30))
    training, validation, test = divide_augmented(1000, seed=0)
    assert [len(training), len(validation), len(test)] == [900, 50, 50]
    assert sorted(np.concatenate([training, validation, test])) == list(range(1000))
    assert not split_sections(protocol("heldout"), [30]).leaks


@pytest.mark.parametrize("name", ["heldout", "kfold"])
@pytest.mark.parametrize("sections", [1, 3, 5])
def test_too_few_sections(name, sections):
    with pytest.raises(InputError, match="too few"):
        split_sections(protocol(name, validation=5), [sections])


def marked_source(test_stack=False):
    """Sections whose every pixel tells their number: warped, jittered or not, it is seen."""
    sections, side = 15, 24
    marks = (10 * np.arange(1, sections + 1)).astype(np.uint8)
    images = np.broadcast_to(marks[:, None, None], (sections, side, side)).copy()
    labels = np.zeros((sections, side, side), bool)
    labels[:, :, : side // 2 - 1] = labels[:, :, side // 2 + 1 :] = True
    empty = images[:0]
    test_images = np.full((4, side, side), 250, np.uint8)
    if test_stack:
        return Source("marked", images, labels, test_images, labels[:4])
    return Source("marked", images, labels, empty, labels[:0])


@pytest.mark.parametrize(
    ("name", "fold", "test_stack"),
    [("heldout", 0, False), *(("kfold", fold, False) for fold in range(5)), ("official", 0, True)],
)
def test_no_held_out_pixel_warped_or_not_reaches_training(name, fold, test_stack):
    source = marked_source(test_stack)
    split = split_sections(protocol(name, held_out=4), [15], fold, len(source.test_labels))
    augmented = make_augmented(source, split, AUGMENT)
    parts = divide(source, split, augmented.normalization)
    seen = set(np.unique(augmented.images).tolist()) | set(np.unique(parts.training.images).tolist())
    assert seen <= {10 * (z + 1) for z in split.training}
    held_out = set(np.unique(parts.test.images).tolist()) | set(np.unique(parts.validation.images).tolist())
    assert seen.isdisjoint(held_out)
    assert set(augmented.sources.tolist()) <= set(split.training)


def test_normalisation_of_16_bit_sections_is_measured_on_training_sections_alone():
    source = marked_source()
    bright = source.images.astype(np.uint16) * 10
    bright[-4:] = 60000
    wide = Source("wide", bright, source.labels, bright[:0], source.labels[:0])
    split = split_sections(protocol("heldout", held_out=4), [15])
    normalization = make_augmented(wide, split, AUGMENT).normalization
    assert normalization.high <= 1100


def test_paper_does_leak():
    """The test above can fail: under `paper` the same sections stand on both sides."""
    source = marked_source()
    split = split_sections(protocol("paper"), [15])
    augmented = make_augmented(source, split, AUGMENT)
    parts = divide(source, split, augmented.normalization, augmented)
    assert set(np.unique(parts.training.images)) & set(np.unique(parts.test.images))


@pytest.mark.parametrize("folds", [[5], [0, 0], [-1]])
def test_folds_that_do_not_exist_are_refused(folds):
    with pytest.raises(ValueError, match="folds must be different numbers from 0 to 4"):
        protocol("kfold", folds=folds)


@pytest.mark.parametrize(
    ("name", "fold"),
    [*((name, fold) for name in ("heldout", "official", "paper") for fold in (-1, 1, 3)), ("kfold", 5)],
)
def test_a_fold_that_the_protocol_does_not_have_is_not_trained(name, fold):
    with pytest.raises(InputError, match=rf"fold {fold} does not exist; protocol {name} has fold"):
        split_sections(protocol(name), [30], fold, test_sections=12)


def test_sections_that_are_too_few_to_learn_much_from_are_told_of():
    assert split_sections(protocol("heldout"), [20]).notes == []
    few = "only 9 sections train, while 10 validate or test (see protocol)"
    assert split_sections(protocol("heldout"), [19]).notes == [few]
    # The test stack of the challenge is no part of the training stack.
    assert split_sections(protocol("official"), [12], test_sections=30).notes == []
