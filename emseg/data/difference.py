"""What changed between two versions of labelled sections: which came, went and moved, and whose label is another."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from emseg.data.sources import Source
from emseg.metrics.inputs import Truth

_SUBSTANTIAL = 0.5
"""Share of the smaller of two cells from which on their overlap makes them one, or parts of one."""


class Place(NamedTuple):
    """Where a section is: `training` or `test` stack, and its number there, from 0."""

    stack: str
    number: int


@dataclass(frozen=True)
class Section:
    """One section of a version.

    Attributes:
        place: its stack and number.
        image: uint8 or uint16 (Y, X).
        interior: of cells, bool (Y, X); None: the section has no label.
        cells: uint32 (Y, X), the number of each cell; None: cells are the 4-connected components of the interior.
        ignore: bool (Y, X), True where pixels neither train nor score.
    """

    place: Place
    image: np.ndarray
    interior: np.ndarray | None
    cells: np.ndarray | None
    ignore: np.ndarray

    def segments(self, ignore: np.ndarray | None = None) -> np.ndarray:
        """Cells from 1, int32 (Y, X), 0 on membrane and where `ignore` is True. The section has a label."""
        assert self.interior is not None
        cells = None if self.cells is None else np.where(self.interior, self.cells, 0)
        return Truth(self.interior, cells, ignore).segments()[0]

    def oriented_as(self, image: np.ndarray) -> Section:
        """The section turned or mirrored such that its image is `image`, which it is in one of eight ways."""
        for is_mirrored in (False, True):
            for turns in range(4):
                turned = self._turned(turns, is_mirrored)
                if np.array_equal(turned.image, image):
                    return turned
        raise ValueError("the images are not the same")

    def _turned(self, turns: int, is_mirrored: bool) -> Section:
        def turn(pixels: np.ndarray) -> np.ndarray:
            return np.rot90(pixels[:, ::-1] if is_mirrored else pixels, turns)

        interior = None if self.interior is None else turn(self.interior)
        cells = None if self.cells is None else turn(self.cells)
        return Section(self.place, turn(self.image), interior, cells, turn(self.ignore))


@dataclass(frozen=True)
class LabelChange:
    """How the label of a section differs, in numbers.

    Pixels that either version ignores count in the last two numbers alone. Two cells belong together where they
    overlap by at least half of the smaller one.

    Attributes:
        pixels: that are membrane in one version and cell interior in the other.
        split: cells before to which several cells after belong.
        merged: cells after to which several cells before belong.
        new: cells after to which none before belongs.
        gone: cells before to which none after belongs.
        redrawn: cells that belong to one alone, which has other pixels.
        ignored: pixels that are ignored now and were not.
        counted: pixels that were ignored and are not now.
    """

    pixels: int = 0
    split: int = 0
    merged: int = 0
    new: int = 0
    gone: int = 0
    redrawn: int = 0
    ignored: int = 0
    counted: int = 0


@dataclass(frozen=True)
class Pair:
    """A section that is in both versions.

    Attributes:
        before: as it was, turned and mirrored to the image after.
        after: as it is.
        is_turned: whether the image was turned or mirrored.
        change: of its label; all 0 where the label is the same, or where either version has none.
    """

    before: Section
    after: Section
    is_turned: bool
    change: LabelChange

    @property
    def is_changed(self) -> bool:
        """Whether its label says something else."""
        return self.change != LabelChange()


@dataclass(frozen=True)
class Difference:
    """What is between two versions.

    Attributes:
        before, after: how many sections there are, and their digest.
        came, went: places of the sections that are in one version alone.
        pairs: the sections that are in both, in the order after.
    """

    before: tuple[int, str]
    after: tuple[int, str]
    came: list[Place] = field(default_factory=list)
    went: list[Place] = field(default_factory=list)
    pairs: list[Pair] = field(default_factory=list)

    @property
    def moved(self) -> list[Pair]:
        """Sections with another number or in the other stack."""
        return [pair for pair in self.pairs if pair.before.place != pair.after.place]

    @property
    def turned(self) -> list[Pair]:
        """Sections whose image was turned or mirrored."""
        return [pair for pair in self.pairs if pair.is_turned]

    @property
    def changed(self) -> list[Pair]:
        """Sections whose label says something else."""
        return [pair for pair in self.pairs if pair.is_changed]

    @property
    def newly_labelled(self) -> list[Pair]:
        """Sections that have a label now and had none."""
        return [pair for pair in self.pairs if pair.before.interior is None and pair.after.interior is not None]

    @property
    def no_longer_labelled(self) -> list[Pair]:
        """Sections that had a label and have none now."""
        return [pair for pair in self.pairs if pair.before.interior is not None and pair.after.interior is None]

    @property
    def is_nothing(self) -> bool:
        """Whether both versions are the same to the last pixel and number."""
        return self.before == self.after


def difference(before: Source, after: Source) -> Difference:
    """Compare two versions of labelled sections.

    Sections are the same where `section_digest` of their images is, wherever they are in the stack and however they
    are turned. Of several with the same image those with the same place belong together, then those in order.
    """
    old, new = list(_sections(before)), list(_sections(after))
    counts = (len(old), before.digest), (len(new), after.digest)
    waiting: dict[str, dict[Place, Section]] = {}
    for digest, section in zip(_digests(before), old, strict=True):
        waiting.setdefault(digest, {})[section.place] = section
    came, matched = [], {}
    known = list(zip(_digests(after), new, strict=True))
    # Those that stayed first, so that no other takes their place.
    for is_same_place in (True, False):
        for digest, section in known:
            there = waiting.get(digest, {})
            if section.place in matched or (is_same_place and section.place not in there):
                continue
            if there:
                matched[section.place] = there.pop(section.place if is_same_place else next(iter(there)))
            else:
                came.append(section.place)
    pairs = [_pair(matched[section.place], section) for section in new if section.place in matched]
    went = [place for sections in waiting.values() for place in sections]
    return Difference(*counts, came, sorted(went, key=[section.place for section in old].index), pairs)


def _sections(source: Source) -> Iterator[Section]:
    stacks = (
        ("training", source.images, source.labels, source.cells, source.ignore),
        ("test", source.test_images, source.test_labels, source.test_cells, source.test_ignore),
    )
    for name, images, labels, cells, ignore in stacks:
        for z, image in enumerate(images):
            yield Section(
                Place(name, z),
                image,
                labels[z] if len(labels) else None,
                None if cells is None else cells[z],
                np.zeros(image.shape, bool) if ignore is None else ignore[z],
            )


def _digests(source: Source) -> list[str]:
    return source.section_digests + source.test_section_digests


def _pair(before: Section, after: Section) -> Pair:
    is_turned = not np.array_equal(before.image, after.image)
    before = before.oriented_as(after.image) if is_turned else before
    return Pair(before, after, is_turned, _label_change(before, after))


def _label_change(before: Section, after: Section) -> LabelChange:
    if before.interior is None or after.interior is None:
        return LabelChange()
    ignore = before.ignore | after.ignore
    return LabelChange(
        int(np.count_nonzero((before.interior != after.interior) & ~ignore)),
        *_changed_cells(before.segments(ignore), after.segments(ignore)),
        int(np.count_nonzero(after.ignore & ~before.ignore)),
        int(np.count_nonzero(before.ignore & ~after.ignore)),
    )


def _changed_cells(before: np.ndarray, after: np.ndarray) -> tuple[int, int, int, int, int]:
    """How many cells were split, merged, are new, gone, and redrawn; see `LabelChange`. int32 (Y, X) each."""
    size_before, size_after = np.bincount(before.ravel()), np.bincount(after.ravel())
    size_before[0] = size_after[0] = 0
    both = (before > 0) & (after > 0)
    met, overlap = np.unique(before[both].astype(np.int64) * len(size_after) + after[both], return_counts=True)
    first, second = np.divmod(met, len(size_after))
    belong = overlap >= _SUBSTANTIAL * np.minimum(size_before[first], size_after[second])
    first, second, overlap = first[belong], second[belong], overlap[belong]
    of_before = np.bincount(first, minlength=len(size_before))
    of_after = np.bincount(second, minlength=len(size_after))
    is_alone = (of_before[first] == 1) & (of_after[second] == 1)
    is_same = (overlap == size_before[first]) & (overlap == size_after[second])
    return (
        int((of_before > 1).sum()),
        int((of_after > 1).sum()),
        int(((of_after == 0) & (size_after > 0)).sum()),
        int(((of_before == 0) & (size_before > 0)).sum()),
        int((is_alone & ~is_same).sum()),
    )
