"""Cells by agglomeration: regions of interior, merged where a learned rule finds one cell on both sides.

A threshold joins two cells through a few bright pixels of a faint membrane, and cuts one cell at a dark spot. Here a
section is first cut into regions, about as many as it has cells. Each border between two regions is then judged as a
whole: by the probability along it, its length, how large and how sure the two regions are, and whether they lie over
the same regions of the neighbouring sections. The judge is a logistic regression, learned on labelled sections that
the network was trained on. Regions are merged by mean linkage, the likeliest border first (after the agglomeration of
superpixels of Nunez-Iglesias et al. 2013, PLoS ONE 8:e71715).

The result is a probability again: 1 inside regions, and on a border the probability that both sides are one cell. Its
components above a threshold are the regions merged down to it, so it is scored like any other proposal. The threshold
is 0.5: merged is what is more likely one cell than two. Merging regions of a and b pixels adds ab to the denominator of
V_rand, and 2ab to its numerator if they are one cell; so it raises the expected V_rand where that is likelier than
V_rand / 2, which is a half or just below.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from scipy import ndimage, sparse
from scipy.optimize import minimize
from scipy.special import expit, logit
from skimage.segmentation import watershed

MERGE_THRESHOLD = 0.5
_SEED_LEVELS = (0.95, 0.9, 0.8, 0.7, 0.6, 0.5)
_SMALLEST_SEED = 10
"""Pixels."""
_QUANTILES = (0.1, 0.5, 0.9, 1.0)
_SMALLEST_PROBABILITY = 0.002
"""Nearer to 0 or 1 counts as this near, so that no single pixel outweighs a border."""
FEATURES = (
    "mean probability",
    *(f"{quantile:.0%} quantile of probability" for quantile in _QUANTILES),
    "length",
    "interior of the smaller region",
    "interior of the larger region",
    "mean probability of the less sure region",
    "mean probability of the surer region",
)
"""Of a border: probabilities as their logit; its length in pixel edges and pixels of interior as their logarithm."""
OVERLAP = "overlap in a neighbouring section"
"""One more feature where there are neighbouring sections, see `_overlap`; the larger of two."""
_RIDGE = 3.0
"""Pull of the weights to 0, on standardised features."""
_Examples = tuple[np.ndarray, np.ndarray]
"""Features of the borders of a section, (borders, features), and whether each is inside a cell, bool (borders,)."""


@dataclass(frozen=True)
class Regions:
    """A section cut into regions.

    Attributes:
        probability: of cell interior, float32 (Y, X) in [0, 1].
        labels: int32 (Y, X), 1 to `count`; all 0 where nothing is interior.
        count: of regions.
    """

    probability: np.ndarray
    labels: np.ndarray
    count: int


@dataclass(frozen=True)
class Borders:
    """The borders between the regions of a section.

    Attributes:
        pairs: indices (region - 1) of the two regions, the lower first, int64 (borders, 2).
        lengths: pixel edges of each border, int64 (borders,).
        features: float64 (borders, features): `FEATURES`, then `OVERLAP` if there are neighbouring sections.
        edges: the border that each pixel edge belongs to, int64 (edges,).
        pixels: flat index of the pixel on each edge that is less likely interior, int64 (edges,).
    """

    pairs: np.ndarray
    lengths: np.ndarray
    features: np.ndarray
    edges: np.ndarray
    pixels: np.ndarray


@dataclass(frozen=True)
class LogisticRule:
    """Probability 1 / (1 + exp(-(bias + weights . (features - mean) / scale))) that a border is inside a cell."""

    mean: list[float]
    scale: list[float]
    weights: list[float]
    bias: float

    def __call__(self, features: np.ndarray) -> np.ndarray:
        """float64 (borders,) in [0, 1], of features (borders, features)."""
        standard = (features - np.array(self.mean)) / np.array(self.scale)
        return np.asarray(expit(standard @ np.array(self.weights) + self.bias))


@dataclass(frozen=True)
class Agglomeration:
    """What was learned: a rule for a section on its own, and one for a section with neighbours, if any had some."""

    alone: LogisticRule
    among_neighbours: LogisticRule | None

    def close(self, regions: Regions, neighbours: Sequence[Regions] = ()) -> np.ndarray:
        """Probability that is 1 inside regions and low between those that are not one cell.

        Args:
            regions: of the section.
            neighbours: of the sections directly before and after it, as far as there are any.

        Returns:
            float32 (Y, X) in [0, 1]; 0 everywhere if there are no regions.
        """
        closed = np.full(regions.labels.shape, float(regions.count > 0), np.float32)
        rule = self.among_neighbours if neighbours else None
        borders = find_borders(regions, neighbours if rule else ())
        levels = _merge_levels(borders, (rule or self.alone)(borders.features)).astype(np.float32)
        np.minimum.at(closed.reshape(-1), borders.pixels, levels[borders.edges])
        return closed

    def close_stack(self, probability: np.ndarray) -> np.ndarray:
        """`close` of every section of a stack (Z, Y, X) of consecutive sections."""
        return np.stack([self.close(regions, neighbours) for regions, neighbours in cut_stack(probability)])

    def as_dict(self) -> dict[str, Any]:
        """As JSON has it; `from_dict` reads it. The weights of a rule are in the order of `features`."""
        return {"features": [*FEATURES, OVERLAP], **asdict(self)}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Agglomeration:
        """From what `as_dict` gave.

        Raises:
            ValueError: its rules weigh other features of a border than this version of emseg.
        """
        if values.get("features") != [*FEATURES, OVERLAP]:
            raise ValueError("its agglomeration weighs other features of a border than this version of emseg")
        among = values["among_neighbours"]
        return cls(LogisticRule(**values["alone"]), LogisticRule(**among) if among else None)


def learn_agglomeration(stacks: Iterable[tuple[Iterable[np.ndarray], np.ndarray]]) -> Agglomeration:
    """Learn from labelled sections which borders between regions are inside a cell.

    Args:
        stacks: of consecutive sections: their probabilities, float (Y, X) in [0, 1], one after the other, and their
            labels, bool (Z, Y, X).

    Raises:
        ValueError: no border is inside a cell, or none between two, so nothing can be learned.
    """
    alone: list[_Examples] = []
    among: list[_Examples] = []
    for probabilities, labels in stacks:
        for (regions, neighbours), label in zip(cut_stack(probabilities), labels, strict=True):
            borders = find_borders(regions, neighbours)
            first, second = _true_cells(regions, label)[borders.pairs].T
            known = (first > 0) & (second > 0)
            examples = borders.features[known], (first == second)[known]
            alone.append((examples[0][:, : len(FEATURES)], examples[1]))
            if neighbours:
                among.append(examples)
    return Agglomeration(_fit_logistic(alone), _fit_logistic(among) if among else None)


def find_regions(probability: np.ndarray) -> Regions:
    """Cut a section (Y, X) into the watershed basins of its patches of interior.

    A patch is a 4-connected component above the highest of `_SEED_LEVELS` at which it is large enough, so that small
    cells, in which the network is nowhere sure, have one too.
    """
    seeds = np.zeros(probability.shape, bool)
    for level in _SEED_LEVELS:
        patches, count = ndimage.label(probability > level)
        is_seed = np.bincount(patches.ravel(), minlength=count + 1) >= _SMALLEST_SEED
        is_seed[0] = False
        is_seed[np.unique(patches[seeds])] = False
        seeds |= is_seed[patches]
    markers, count = ndimage.label(seeds)
    labels = watershed(-probability, markers) if count else markers
    return Regions(np.asarray(probability, np.float32), labels.astype(np.int32), count)


def cut_stack(probabilities: Iterable[np.ndarray]) -> Iterator[tuple[Regions, list[Regions]]]:
    """Each of the consecutive sections cut into regions, with the sections before and after it; holds three."""
    before: Regions | None = None
    here: Regions | None = None
    for probability in probabilities:
        after = find_regions(probability)
        if here:
            yield here, [before, after] if before else [after]
        before, here = here, after
    if here:
        yield here, [before] if before else []


def find_borders(regions: Regions, neighbours: Sequence[Regions] = ()) -> Borders:
    """Where regions touch along pixel edges, and what tells a membrane from a gap there."""
    index, probability = regions.labels - 1, regions.probability
    pixel = np.arange(index.size).reshape(index.shape)
    parts = []
    for here, there in ((np.s_[:-1], np.s_[1:]), (np.s_[:, :-1], np.s_[:, 1:])):
        darker = np.where(probability[here] < probability[there], pixel[here], pixel[there])
        touching = index[here] != index[there]
        parts.append(np.stack([index[here][touching], index[there][touching], darker[touching]]))
    one, other, pixels = np.concatenate(parts, axis=1).astype(np.int64)
    width = max(regions.count, 1)
    found, edges, lengths = np.unique(
        np.minimum(one, other) * width + np.maximum(one, other), return_inverse=True, return_counts=True
    )
    pairs = np.stack(np.divmod(found, width), axis=1)
    darkest = probability.ravel()[pixels].astype(np.float64)
    # Sorted by border, then by probability, so that quantiles are entries.
    ordered = darkest[np.lexsort((darkest, edges))]
    starts = np.cumsum(lengths) - lengths
    probabilities = [np.bincount(edges, darkest, len(pairs)) / lengths]
    probabilities += [ordered[starts + np.rint(quantile * (lengths - 1)).astype(int)] for quantile in _QUANTILES]
    columns = [*_clipped_logit(np.array(probabilities)), np.log(lengths)]
    for of_region in (_log_interior(regions), _mean_logit(regions)):
        both = of_region[pairs]
        columns += [both.min(axis=1), both.max(axis=1)]
    if neighbours:
        columns.append(np.max([_overlap(regions, pairs, neighbour) for neighbour in neighbours], axis=0))
    return Borders(pairs, lengths, np.column_stack(columns), edges, pixels)


def _clipped_logit(probability: np.ndarray) -> np.ndarray:
    return np.asarray(logit(np.clip(probability, _SMALLEST_PROBABILITY, 1 - _SMALLEST_PROBABILITY)))


def _log_interior(regions: Regions) -> np.ndarray:
    """Logarithm of one more than the pixels of interior of each region, (regions,)."""
    interior = regions.labels[regions.probability > 0.5]
    return np.log1p(np.bincount(interior, minlength=regions.count + 1)[1:])


def _mean_logit(regions: Regions) -> np.ndarray:
    """Mean logit over the pixels of each region, (regions,)."""
    labels = regions.labels.ravel()
    total = np.bincount(labels, _clipped_logit(regions.probability.ravel()), regions.count + 1)
    return (total / np.maximum(np.bincount(labels, minlength=regions.count + 1), 1))[1:]


def _overlap(regions: Regions, pairs: np.ndarray, neighbour: Regions) -> np.ndarray:
    """How far the two regions of a border lie over the same regions of a neighbouring section, (borders,) in [0, 1].

    The sum over those regions k of min(a_k, b_k), with a_k and b_k the shares of the two regions' interior over k.
    """
    both = (regions.probability > 0.5) & (neighbour.probability > 0.5) & (regions.labels > 0) & (neighbour.labels > 0)
    counts = sparse.coo_array(
        (np.ones(int(both.sum())), (regions.labels[both] - 1, neighbour.labels[both] - 1)),
        shape=(max(regions.count, 1), max(neighbour.count, 1)),
    ).tocsr()
    total = np.maximum(np.asarray(counts.sum(axis=1)).ravel(), 1)
    shares = sparse.diags_array(1 / total).tocsr() @ counts
    return np.asarray(shares[pairs[:, 0]].minimum(shares[pairs[:, 1]]).sum(axis=1)).ravel()


def _true_cells(regions: Regions, label: np.ndarray) -> np.ndarray:
    """The true cell that holds most of each region, from 1; 0 for a region on membrane alone."""
    truth, cells = ndimage.label(label)
    shared = np.zeros((regions.count + 1, cells + 1), np.int64)
    np.add.at(shared, (regions.labels, truth), 1)
    shared[:, 0] = 0
    return shared[1:].argmax(axis=1)


def _fit_logistic(sections: list[_Examples]) -> LogisticRule:
    """A logistic regression whose weights, but not its bias, are drawn to 0."""
    features, one_cell = (np.concatenate(part) for part in zip(*sections, strict=True))
    if not one_cell.any() or one_cell.all():
        raise ValueError("the regions of the labelled sections have no border inside a cell, or none between two")
    mean, scale = features.mean(axis=0), features.std(axis=0) + 1e-6
    design = np.column_stack([np.ones(len(features)), (features - mean) / scale])
    ridge = np.array([0.0] + [_RIDGE] * features.shape[1])

    def loss(weights: np.ndarray) -> tuple[float, np.ndarray]:
        score = design @ weights
        value = np.logaddexp(0, score).sum() - score[one_cell].sum() + 0.5 * (ridge * weights**2).sum()
        return value, design.T @ (expit(score) - one_cell) + ridge * weights

    weights = minimize(loss, np.zeros(design.shape[1]), jac=True, method="L-BFGS-B").x
    return LogisticRule(mean.tolist(), scale.tolist(), weights[1:].tolist(), float(weights[0]))


def _merge_levels(borders: Borders, likely: np.ndarray) -> np.ndarray:
    """For each border, the probability down to which regions must be merged for its two sides to be one.

    Mean linkage: the border between two merged regions is as likely as the mean over its pixel edges.
    """
    levels = np.zeros(len(likely))
    # Of each region, by neighbour: summed probability over pixel edges, their number, and the borders they are of.
    around: dict[int, dict[int, tuple[float, int, list[int]]]] = {}
    queue = []
    for border, ((a, b), length) in enumerate(zip(borders.pairs.tolist(), borders.lengths.tolist(), strict=True)):
        entry = (float(likely[border]) * length, length, [border])
        around.setdefault(a, {})[b] = entry
        around.setdefault(b, {})[a] = entry
        queue.append((-entry[0] / length, a, b, length))
    heapq.heapify(queue)
    while queue:
        negative, a, b, length = heapq.heappop(queue)
        # What has grown or gone since it was queued is out of date.
        if a not in around or b not in around[a] or around[a][b][1] != length:
            continue
        levels[around[a][b][2]] = -negative
        for other, (total, edges, members) in around.pop(b).items():
            del around[other][b]
            if other == a:
                continue
            if other in around[a]:
                before = around[a][other]
                total, edges, members = before[0] + total, before[1] + edges, before[2] + members
            around[a][other] = around[other][a] = (total, edges, members)
            heapq.heappush(queue, (-total / edges, min(a, other), max(a, other), edges))
    return levels
