"""Named protocols: which sections train, which choose the checkpoint, which are tested on.

Blocks are contiguous in z because neighbouring sections look alike: a random split by section leaks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from emseg.errors import InputError
from emseg.settings import LEAKING_PROTOCOLS, ProtocolSettings


@dataclass(frozen=True)
class Split:
    """Section indices of one fold.

    `training`, `validation` and `test` index the sections of the training stack, and are disjoint, except
    under `official`, where `test` indexes the test stack, and under `paper`, which divides augmented images
    instead: there `training` is every section, and `divide_augmented` divides what was made of them.
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


def split_sections(settings: ProtocolSettings, sections: int, fold: int = 0, test_sections: int = 0) -> Split:
    """Divide a stack of `sections` sections under the protocol named in `settings`.

    Args:
        settings: the `protocol` part of params.yaml.
        sections: sections in the training stack.
        fold: which block is tested on under `kfold`; other protocols have fold 0 alone.
        test_sections: labelled sections in the test stack, `official` only.

    Raises:
        InputError: too few sections, a fold that does not exist, or `official` without a labelled test stack.
    """
    folds = settings.blocks if settings.name == "kfold" else 1
    if fold not in range(folds):
        has = f"folds 0 to {folds - 1} (protocol.blocks is {folds})" if folds > 1 else "fold 0 alone"
        raise InputError(f"fold {fold} does not exist; protocol {settings.name} has {has}")
    every = tuple(range(sections))
    if settings.name == "paper":
        return Split("paper", 0, training=every, validation=(), test=())
    if settings.name == "official":
        if not test_sections:
            raise InputError("protocol official needs the labels of the test stack (test-labels.tif); use heldout")
        test, remaining = tuple(range(test_sections)), every
    else:
        if settings.name == "heldout":
            first, last = sections - settings.held_out, sections
        else:
            edges = [round(sections * block / settings.blocks) for block in range(settings.blocks + 1)]
            first, last = edges[fold], edges[fold + 1]
        test = every[max(first, 0) : last]
        remaining = tuple(index for index in every if index not in test)
    if len(remaining) <= settings.validation or not test:
        tested = settings.held_out if settings.name == "heldout" else len(test)
        raise InputError(
            f"{sections} sections are too few for protocol {settings.name}: {tested} tested on and "
            f"protocol.validation = {settings.validation} leave none to train on"
        )
    cut = len(remaining) - settings.validation
    return Split(settings.name, fold, remaining[:cut], remaining[cut:], test)


def consecutive(sections: Sequence[int] | np.ndarray) -> list[np.ndarray]:
    """Where consecutive sections stand among `sections`: what is cut out of a stack separates neighbours.

    >>> [block.tolist() for block in consecutive([0, 1, 5, 6, 7])]
    [[0, 1], [2, 3, 4]]
    """
    return np.split(np.arange(len(sections)), np.flatnonzero(np.diff(sections) > 1) + 1)


def divide_augmented(count: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The reference's random 90 / 5 / 5 % division of `count` augmented images: training, validation, test indices."""
    order = np.random.default_rng(seed).permutation(count)
    part = max(1, round(count * 0.05))
    if count < 3:
        raise InputError(f"protocol paper divides augmented images: augment.count must be at least 3, not {count}")
    return np.sort(order[2 * part :]), np.sort(order[:part]), np.sort(order[part : 2 * part])
