"""The parts of a split: labelled sections to train, to validate and to test on."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from emseg.data.augmented import AugmentedSet
from emseg.data.normalization import Normalization
from emseg.data.protocol import Split, consecutive, divide_augmented
from emseg.data.sources import Source


@dataclass(frozen=True)
class LabelledSections:
    """Sections with their labels.

    Attributes:
        images: uint8 (Z, Y, X), normalised grey levels times 255.
        labels: bool (Z, Y, X), True for cell interior.
        numbers: (Z,), their numbers in the stack; under `paper`, of augmented images.
    """

    images: np.ndarray
    labels: np.ndarray
    numbers: np.ndarray

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, which: np.ndarray) -> LabelledSections:
        return LabelledSections(self.images[which], self.labels[which], self.numbers[which])

    @property
    def consecutive(self) -> list[np.ndarray]:
        """Where consecutive sections stand: what is cut out of a stack separates neighbours."""
        return consecutive(self.numbers)

    @property
    def blocks(self) -> list[LabelledSections]:
        """Consecutive sections together."""
        return [self[block] for block in self.consecutive]


@dataclass(frozen=True)
class Parts:
    """What one run trains, validates and tests on."""

    training: LabelledSections
    validation: LabelledSections
    test: LabelledSections


def divide(
    dataset: Source, split: Split, normalization: Normalization, augmented: AugmentedSet | None = None, seed: int = 0
) -> Parts:
    """The parts of a split.

    Args:
        dataset: the labelled sections.
        split: which of them are which.
        normalization: of grey levels; that of the training sections.
        augmented: what `paper` divides at random, 90 / 5 / 5 %; no other protocol looks at it.
        seed: of that division.
    """
    if split.divides_augmented:
        if augmented is None:
            raise ValueError(f"protocol {split.protocol} divides augmented images, and there are none")
        whole = LabelledSections(augmented.images, augmented.labels, np.arange(len(augmented.images)))
        return Parts(*(whole[part] for part in divide_augmented(len(whole), seed)))
    stack = (dataset.images, dataset.labels)
    tested = (dataset.test_images, dataset.test_labels) if split.protocol == "official" else stack

    def part(images: np.ndarray, labels: np.ndarray, sections: tuple[int, ...]) -> LabelledSections:
        numbers = np.array(sections, int)
        return LabelledSections(normalization.grey(images[numbers]), labels[numbers], numbers)

    return Parts(part(*stack, split.training), part(*stack, split.validation), part(*tested, split.test))
