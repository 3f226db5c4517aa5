"""The metrics of the EM segmentation challenge of 2012, V_rand and V_info, after its official script.

Arganda-Carreras et al. 2015, Frontiers in Neuroanatomy 9:142. Cells are 4-connected components of interior, or those
that are given by number. For each threshold the proposal's borders are thinned to one pixel, pixels whose truth is
membrane and those to ignore are dropped, and each remaining pixel on a thinned border is a segment of its own.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np

from emseg.metrics.inputs import Truth, binarise, prepare
from emseg.metrics.thinning import thin_borders

_MOST_BINS = 1 << 22
_SMALL_SECTION = 1 << 14
"""Pixels below which threads cost more than they save."""
OFFICIAL_THRESHOLDS = tuple(index / 10 for index in range(11))


@dataclass(frozen=True)
class ChallengeScore:
    """A V_rand or V_info of a stack.

    Attributes:
        value: mean over sections at `threshold`; in [0, 1], higher is better.
        threshold: one for the stack; interior is probability > threshold.
        is_oracle: whether the threshold was chosen on the very sections that are reported. An oracle value
            is optimistic; choose the threshold on validation sections for an honest one.
        split: mean over sections of the split score; low where cells are cut apart.
        merge: mean over sections of the merge score; low where cells run together.
        per_section: value of each section at `threshold`, float64 (Z,).
        curve: rows (threshold, value), one per threshold tried, float64 (T, 2).
    """

    value: float
    threshold: float
    is_oracle: bool
    split: float
    merge: float
    per_section: np.ndarray
    curve: np.ndarray


class SectionAgreement(NamedTuple):
    """How two segmentations of one section agree; each entry is in [0, 1], 1 is perfect."""

    rand: float
    rand_split: float
    rand_merge: float
    info: float
    info_split: float
    info_merge: float


def v_rand(
    probability: np.ndarray,
    label: np.ndarray,
    thresholds: float | Sequence[float] | None = None,
    *,
    cells: bool = False,
    ignore: np.ndarray | None = None,
) -> ChallengeScore:
    """Foreground-restricted Rand score after border thinning.

    V_rand = sum p_ij^2 / (0.5 sum s_i^2 + 0.5 sum t_j^2), the F-score of the split score sum p_ij^2 / sum t_j^2
    and the merge score sum p_ij^2 / sum s_i^2, where p_ij is the share of pixels in proposal segment i and truth
    segment j, and s and t are its marginals. Per section, averaged, best threshold for the stack.

    Args:
        probability: of cell interior; one section (Y, X) or a stack (Z, Y, X); float in [0, 1] or bool.
        label: same shape; bool, {0, 1} or {0, 255}.
        thresholds: one number gives the value at that threshold. Several, or None for the official 0.0, 0.1 ...
            1.0, give the oracle: the best of them on these sections.
        cells: whether `label` holds cells by number: non-negative integers, 0 on membrane. Pixels of one number in a
            section are one cell, also where they are apart.
        ignore: same shape, bool; pixels to leave out. Borders are thinned, and cells of a mask told apart, before.

    Raises:
        ValueError: bad input as for the pixel metrics, or a section without any interior in its label.

    >>> label = np.array([[1, 1, 0, 1, 1]])
    >>> v_rand(label.astype(float), label, 0.5).value
    1.0
    >>> merged = v_rand(np.ones((1, 5)), label, 0.5)
    >>> merged.split, merged.merge
    (1.0, 0.5)
    >>> v_rand(np.ones((1, 5)), np.array([[7, 7, 0, 7, 7]]), 0.5, cells=True).value
    1.0
    """
    return _swept(probability, label, thresholds, cells, ignore).v_rand()


def v_info(
    probability: np.ndarray,
    label: np.ndarray,
    thresholds: float | Sequence[float] | None = None,
    *,
    cells: bool = False,
    ignore: np.ndarray | None = None,
) -> ChallengeScore:
    """Foreground-restricted information score after border thinning.

    V_info = 2 I(S;T) / (H(S) + H(T)), the F-score of the split score I / H(S) and the merge score I / H(T), with S
    the proposal's segments and T the truth's. A ratio of 0 to 0 counts as 1: a section of one cell, found
    as one cell, is perfect. Arguments, sweep and errors as for `v_rand`.

    >>> label = np.array([[1, 1, 0, 1, 1]])
    >>> v_info(label.astype(float), label, 0.5).value
    1.0
    >>> v_info(np.ones((1, 5)), label, 0.5).value
    0.0
    """
    return _swept(probability, label, thresholds, cells, ignore).v_info()


def cross_fitted(
    probability: np.ndarray,
    label: np.ndarray,
    metric: Literal["v_rand", "v_info"],
    *,
    cells: bool = False,
    ignore: np.ndarray | None = None,
) -> float:
    """Mean over the sections of a stack, each at a threshold that was chosen without it.

    Every other section belongs to the same half; a half is scored at the official threshold that is best on the
    other half. A single section has no other half and gets its oracle value. Arguments (Z, Y, X) and errors are as for
    `v_rand`.
    """
    scores = []
    for half in (slice(0, None, 2), slice(1, None, 2))[: len(label)]:
        ignored = None if ignore is None else ignore[half]
        scores.append(getattr(_swept(probability[half], label[half], None, cells, ignored), metric)())
    total = 0.0
    for own, other in zip(scores, reversed(scores), strict=True):
        row = int(np.flatnonzero(own.curve[:, 0] == other.threshold)[0])
        total += own.curve[row, 1] * len(own.per_section)
    return float(total / len(label))


class ChallengeSweep:
    """V_rand and V_info of a stream of sections; holds numbers only, never a section.

    Args:
        thresholds: one number, several, or None for the official 0.0, 0.1 ... 1.0.

    >>> sweep = ChallengeSweep(0.5)
    >>> sweep.add(np.array([[0.9, 0.1, 0.9]]), np.array([[1, 0, 1]]))
    >>> sweep.v_rand().value
    1.0
    """

    def __init__(self, thresholds: float | Sequence[float] | None = None) -> None:
        self._is_oracle = not isinstance(thresholds, int | float)
        given: Iterable[float] = OFFICIAL_THRESHOLDS if thresholds is None else np.atleast_1d(thresholds).tolist()
        self.thresholds = tuple(float(threshold) for threshold in given)
        if not self.thresholds or not all(0 <= threshold <= 1 for threshold in self.thresholds):
            raise ValueError(f"thresholds must be numbers in [0, 1], not {self.thresholds}")
        self._rows: list[list[SectionAgreement]] = []

    def add(
        self, probability: np.ndarray, label: np.ndarray, *, cells: bool = False, ignore: np.ndarray | None = None
    ) -> None:
        """Score one section (Y, X); arguments as for `v_rand`."""
        (section,), (truth,) = prepare(probability, label, cells, ignore)
        self.add_truth(section, truth)

    def add_truth(self, section: np.ndarray, truth: Truth) -> None:
        """Score one section that is prepared."""
        segments, _ = truth.scored_segments()

        def agreement(threshold: float) -> SectionAgreement:
            return compare_segments(thin_borders(binarise(section, threshold)), segments)

        if len(self.thresholds) == 1 or section.size < _SMALL_SECTION:
            self._rows.append([agreement(threshold) for threshold in self.thresholds])
            return
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            self._rows.append(list(pool.map(agreement, self.thresholds)))

    def v_rand(self) -> ChallengeScore:
        """V_rand of the sections added so far."""
        return self._score(0)

    def v_info(self) -> ChallengeScore:
        """V_info of the sections added so far."""
        return self._score(3)

    def _score(self, first: int) -> ChallengeScore:
        if not self._rows:
            raise ValueError("no section was added")
        table = np.array(self._rows, float)[:, :, first : first + 3]
        means = table.mean(axis=0)
        best = int(means[:, 0].argmax())
        return ChallengeScore(
            value=float(means[best, 0]),
            threshold=self.thresholds[best],
            is_oracle=self._is_oracle,
            split=float(means[best, 1]),
            merge=float(means[best, 2]),
            per_section=table[:, best, 0],
            curve=np.column_stack([self.thresholds, means[:, 0]]),
        )


def compare_segments(proposal: np.ndarray, truth: np.ndarray) -> SectionAgreement:
    """Agreement of two segmentations (Y, X) of non-negative integers on the pixels where `truth` is not 0.

    There, each pixel where `proposal` is 0 is a segment of its own.

    Raises:
        ValueError: `truth` is 0 everywhere.
    """
    inside = truth > 0
    proposed, true = proposal[inside].astype(np.int64), truth[inside].astype(np.int64)
    n = len(true)
    if not n:
        raise ValueError("truth has no segments")
    width = int(true.max()) + 1
    # Joint counts without the singletons, which are handled in closed form: each holds one pixel.
    settled = proposed > 0
    pairs = proposed[settled] * width + true[settled]
    if width * (int(proposed.max(initial=0)) + 1) > _MOST_BINS:
        pairs = np.unique(pairs, return_inverse=True)[1]
    joint = np.bincount(pairs) / n
    by_proposal = np.bincount(proposed[settled]) / n
    by_truth = np.bincount(true) / n
    singletons = n - int(settled.sum())

    p2 = float((joint**2).sum()) + singletons / n**2
    s2 = float((by_proposal**2).sum()) + singletons / n**2
    t2 = float((by_truth**2).sum())
    alone = singletons / n * np.log(n)
    joint_entropy, s_entropy = _entropy(joint) + alone, _entropy(by_proposal) + alone
    t_entropy = _entropy(by_truth)
    information = s_entropy + t_entropy - joint_entropy
    return SectionAgreement(
        rand=p2 / (0.5 * s2 + 0.5 * t2),
        rand_split=p2 / t2,
        rand_merge=p2 / s2,
        info=_ratio(2 * information, s_entropy + t_entropy),
        info_split=_ratio(information, s_entropy),
        info_merge=_ratio(information, t_entropy),
    )


def _swept(
    probability: np.ndarray,
    label: np.ndarray,
    thresholds: float | Sequence[float] | None,
    cells: bool,
    ignore: np.ndarray | None,
) -> ChallengeSweep:
    sections, truths = prepare(probability, label, cells, ignore)
    sweep = ChallengeSweep(thresholds)
    for section, truth in zip(sections, truths, strict=True):
        sweep.add_truth(section, truth)
    return sweep


def _entropy(shares: np.ndarray) -> float:
    positive = shares[shares > 0]
    return float(-(positive * np.log(positive)).sum())


def _ratio(part: float, whole: float) -> float:
    # Rounding leaves an entropy of 0 at some 1e-16.
    return 1.0 if whole < 1e-12 else float(np.clip(part / whole, 0.0, 1.0))
