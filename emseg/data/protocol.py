"""Named protocols: which sections train, which choose the checkpoint, which are tested on.

Blocks are contiguous in z because neighbouring sections look alike: a random split by section leaks. Of several stacks
each is divided in itself, or one of them is left out as a whole.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from emseg.errors import InputError
from emseg.settings import LEAKING_PROTOCOLS, ProtocolSettings

_ENOUGH = 3
"""Sections of a stack that can be trained, validated and tested on."""


@dataclass(frozen=True)
class Split:
    """Section indices of one fold.

    `training`, `validation` and `test` index the sections of the training stacks, one stack after the other, and are
    disjoint, except under `official`, where `test` indexes the test stack, and under `paper`, which divides augmented
    images instead: there `training` is every section, and `divide_augmented` divides what was made of them.
    """

    protocol: str
    fold: int
    training: tuple[int, ...]
    validation: tuple[int, ...]
    test: tuple[int, ...]

    @property
    def leaks(self) -> bool:
        """Whether test images are warped copies of training sections."""
        return self.protocol in LEAKING_PROTOCOLS

    @property
    def divides_augmented(self) -> bool:
        """Whether augmented images, not sections, are divided."""
        return self.protocol == "paper"

    @property
    def notes(self) -> list[str]:
        """What a person should know before anything is trained on it."""
        kept_back = len(self.validation) + (0 if self.protocol == "official" else len(self.test))
        if self.divides_augmented or len(self.training) >= kept_back:
            return []
        return [f"only {len(self.training)} sections train, while {kept_back} validate or test (see protocol)"]


def split_sections(settings: ProtocolSettings, stacks: Sequence[int], fold: int = 0, test_sections: int = 0) -> Split:
    """Divide sections under the protocol named in `settings`.

    Numbers of sections, `held_out` and `validation`, are of all stacks together: each gives in proportion to its
    length, by largest remainder, but at least one section if it has three.

    Args:
        settings: the `protocol` part of params.yaml.
        stacks: how many sections each stack has, in their order.
        fold: which block is tested on under `kfold`, which stack under `leave_one_stack_out`; other protocols have
            fold 0 alone.
        test_sections: labelled sections in the test stack, `official` only.

    Raises:
        InputError: too few sections or stacks, a fold that does not exist, or `official` without a labelled test stack.
    """
    _require_fold(settings, len(stacks), fold)
    sections = sum(stacks)
    if settings.name == "paper":
        return Split("paper", 0, training=tuple(range(sections)), validation=(), test=())
    if settings.name == "official" and not test_sections:
        raise InputError("protocol official needs the labels of the test stack (test-labels.tif); use heldout")
    tested = _tested(settings, stacks, fold)
    left = [length - len(block) for length, block in zip(stacks, tested, strict=True)]
    validating = _shared_out(settings.validation, left if settings.name == "leave_one_stack_out" else stacks, left)
    training: list[int] = []
    validation: list[int] = []
    test: list[int] = []
    start = 0
    for length, block, count in zip(stacks, tested, validating, strict=True):
        remaining = [start + z for z in range(length) if z not in block]
        training += remaining[: len(remaining) - count]
        validation += remaining[len(remaining) - count :]
        test += [start + z for z in block]
        start += length
    if settings.name == "official":
        test = list(range(test_sections))
    if not training or not test or len(validation) < settings.validation:
        count = settings.held_out if settings.name == "heldout" else len(test)
        raise InputError(
            f"{sections} sections are too few for protocol {settings.name}: {count} tested on and "
            f"protocol.validation = {settings.validation} leave none to train on"
        )
    return Split(settings.name, fold, tuple(training), tuple(validation), tuple(test))


def _require_fold(settings: ProtocolSettings, stacks: int, fold: int) -> None:
    folds, why = 1, ""
    if settings.name == "kfold":
        folds, why = settings.blocks, f" (protocol.blocks is {settings.blocks})"
    elif settings.name == "leave_one_stack_out":
        if stacks < 2:
            raise InputError(
                "protocol leave_one_stack_out needs several stacks, and the sections are of one; use heldout or kfold"
            )
        folds, why = stacks, f", one for each of the {stacks} stacks"
    if fold not in range(folds):
        has = f"folds 0 to {folds - 1}{why}" if folds > 1 else "fold 0 alone"
        raise InputError(f"fold {fold} does not exist; protocol {settings.name} has {has}")


def _tested(settings: ProtocolSettings, stacks: Sequence[int], fold: int) -> list[range]:
    """The sections of each stack that are tested on."""
    if settings.name == "heldout":
        # What is not tested on must leave a stack something to validate on.
        room = [length - 1 if length >= _ENOUGH else length for length in stacks]
        counts = _shared_out(settings.held_out, stacks, room)
        return [range(length - count, length) for length, count in zip(stacks, counts, strict=True)]
    if settings.name == "kfold":
        blocks = settings.blocks
        return [range(round(length * fold / blocks), round(length * (fold + 1) / blocks)) for length in stacks]
    if settings.name == "leave_one_stack_out":
        return [range(length if stack == fold else 0) for stack, length in enumerate(stacks)]
    return [range(0) for _ in stacks]


def _shared_out(total: int, stacks: Sequence[int], room: Sequence[int]) -> list[int]:
    """Sections of each stack in proportion to its length, by largest remainder; of one that has enough at least one.

    Args:
        total: sections of all stacks together. It is exceeded where more stacks have enough.
        stacks: how long each is.
        room: how many sections each may give at most. Where all give them, the sum is less than the total.

    >>> _shared_out(4, [20, 10], [20, 10]), _shared_out(6, [50, 3, 2], [49, 2, 2])
    ([3, 1], [5, 1, 0])
    """
    shares = [min(1, most) if length >= _ENOUGH else 0 for length, most in zip(stacks, room, strict=True)]
    while sum(shares) < total and (giving := [stack for stack, most in enumerate(room) if shares[stack] < most]):
        # Whoever lacks most of its share is next. The least shares count, so this is the largest remainder.
        shares[max(giving, key=lambda stack: total * stacks[stack] - sum(stacks) * shares[stack])] += 1
    return shares


def consecutive(places: Sequence[int] | np.ndarray) -> list[np.ndarray]:
    """Which of these places along z follow on one another: what is cut out of a stack separates neighbours.

    >>> [block.tolist() for block in consecutive([0, 1, 5, 6, 7])]
    [[0, 1], [2, 3, 4]]
    """
    return np.split(np.arange(len(places)), np.flatnonzero(np.diff(places) > 1) + 1)


def divide_augmented(count: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The reference's random 90 / 5 / 5 % division of `count` augmented images: training, validation, test indices."""
    order = np.random.default_rng(seed).permutation(count)
    part = max(1, round(count * 0.05))
    if count < 3:
        raise InputError(f"protocol paper divides augmented images: augment.count must be at least 3, not {count}")
    return np.sort(order[2 * part :]), np.sort(order[:part]), np.sort(order[part : 2 * part])
