"""The parts of a split: labelled sections to train, to validate and to test on."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from scipy import ndimage

from emseg.data.augmented_set import AugmentedSet
from emseg.data.normalization import Normalization
from emseg.data.protocol import Split, consecutive, divide_augmented
from emseg.data.sources import Source
from emseg.metrics.inputs import Truth


@dataclass(frozen=True)
class LabelledSections:
    """Sections with their labels.

    Attributes:
        images: uint8 (Z, Y, X), normalised grey levels times 255.
        labels: bool (Z, Y, X), True for cell interior.
        cells: uint32 (Z, Y, X), the number of each cell; None: cells are the components of the interior, section by
            section.
        ignore: bool (Z, Y, X), True where pixels neither train nor score; None: all of them do.
        numbers: (Z,), their numbers in the source; under `paper`, of augmented images.
        places: (Z,), along z; see `Source.places`.
    """

    images: np.ndarray
    labels: np.ndarray
    cells: np.ndarray | None
    ignore: np.ndarray | None
    numbers: np.ndarray
    places: np.ndarray

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, which: np.ndarray) -> LabelledSections:
        return LabelledSections(
            self.images[which],
            self.labels[which],
            None if self.cells is None else self.cells[which],
            None if self.ignore is None else self.ignore[which],
            self.numbers[which],
            self.places[which],
        )

    @cached_property
    def for_metrics(self) -> dict[str, Any]:
        """The arguments `label`, `cells` and `ignore` of the metrics: cells are compared in their interior."""
        if self.cells is None:
            return {"label": self.labels, "cells": False, "ignore": self.ignore}
        return {"label": np.where(self.labels, self.cells, 0), "cells": True, "ignore": self.ignore}

    @property
    def truths(self) -> list[Truth]:
        """What is known of each section."""
        numbers = self.for_metrics["label"] if self.cells is not None else [None] * len(self)
        ignored = self.ignore if self.ignore is not None else [None] * len(self)
        return [Truth(*section) for section in zip(self.labels, numbers, ignored, strict=True)]

    @property
    def true_cells(self) -> np.ndarray:
        """True cells of each section, int32 (Z, Y, X) from 1, 0 on membrane and where pixels are ignored."""
        return np.stack([truth.segments()[0] for truth in self.truths])

    @property
    def consecutive(self) -> list[np.ndarray]:
        """Which sections follow on one another in their stack: what is cut out of it separates neighbours."""
        return consecutive(self.places)

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
        numbers = np.arange(len(augmented.images))
        whole = LabelledSections(
            augmented.images, augmented.labels, augmented.cells, augmented.ignore, numbers, numbers
        )
        return Parts(*(whole[part] for part in divide_augmented(len(whole), seed)))
    numbers = np.arange(len(dataset.images))
    stack = tested = LabelledSections(
        dataset.images, dataset.labels, dataset.cells, dataset.ignore, numbers, dataset.places
    )
    if split.protocol == "official":
        numbers = np.arange(len(dataset.test_images))
        tested = LabelledSections(
            dataset.test_images, dataset.test_labels, dataset.test_cells, dataset.test_ignore, numbers, numbers
        )

    def part(whole: LabelledSections, sections: tuple[int, ...]) -> LabelledSections:
        chosen = whole[np.array(sections, int)]
        return replace(chosen, images=normalization.grey(chosen.images))

    return Parts(part(stack, split.training), part(stack, split.validation), part(tested, split.test))


def every_section(dataset: Source, normalization: Normalization) -> LabelledSections:
    """All labelled sections of a dataset that have one size, to score what was trained on another.

    Args:
        dataset: the labelled sections.
        normalization: of grey levels; that of the sections trained on.

    Returns:
        The training stacks, numbered from 0, and a labelled test stack of the same size. Between the numbers of the two
        one is left free, for they are no neighbours.
    """
    stacks = [(dataset.images, dataset.labels, dataset.cells, dataset.ignore)]
    if len(dataset.test_labels) and dataset.test_images.shape[1:] == dataset.images.shape[1:]:
        stacks.append((dataset.test_images, dataset.test_labels, dataset.test_cells, dataset.test_ignore))
    images, labels, cells, ignore = zip(*stacks, strict=True)
    numbers = [np.arange(len(stack)) for stack in images]
    return LabelledSections(
        np.concatenate([normalization.grey(stack) for stack in images]),
        np.concatenate(labels),
        None if all(part is None for part in cells) else np.concatenate(list(map(cells_of, labels, cells))),
        None if all(part is None for part in ignore) else np.concatenate(list(map(ignored_of, labels, ignore))),
        np.concatenate([numbers[0], *(len(dataset.images) + 1 + of_test for of_test in numbers[1:])]),
        np.concatenate([dataset.places, *(dataset.places[-1] + 2 + of_test for of_test in numbers[1:])]),
    )


def cells_of(labels: np.ndarray, cells: np.ndarray | None) -> np.ndarray:
    """Cells by number, uint32 (Z, Y, X); where they are not given, the components of the interior of each section."""
    if cells is not None:
        return cells
    return np.stack([ndimage.label(section)[0] for section in labels]).astype(np.uint32)


def ignored_of(labels: np.ndarray, ignore: np.ndarray | None) -> np.ndarray:
    """What neither trains nor scores, bool (Z, Y, X); where it is not given, no pixel of `labels`."""
    return np.zeros(labels.shape, bool) if ignore is None else ignore
