"""A section cut into regions of interior, and what the borders between them look like.

Regions are more than the section has cells, so that few of them reach into two. A border is described as a whole: the
probability along it, its length, how large and how sure the two regions are, and whether they lie over the same regions
of the neighbouring sections.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import ndimage, sparse
from scipy.special import logit
from skimage.segmentation import watershed

_SEED_LEVELS = (0.98, 0.95, 0.9, 0.8, 0.7, 0.6, 0.5)
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
        is_seed[patches[seeds]] = False
        seeds |= is_seed[patches]
    markers, count = ndimage.label(seeds)
    return Regions(np.asarray(probability, np.float32), flood(probability, markers), count)


def flood(probability: np.ndarray, markers: np.ndarray, mask: np.ndarray | bool = True) -> np.ndarray:
    """Watershed from markers, likeliest interior first, 4-connected.

    Args:
        probability: float (Y, X).
        markers: int32 (Y, X): labels from 1, 0 where there is none yet.
        mask: bool (Y, X), where labels may be; True: everywhere.

    Returns:
        int32 (Y, X): labels; 0 outside the mask and where no marker reaches.
    """
    markers = np.where(mask, markers, 0)
    # Most pixels lie inside markers. Left out of the queue, which is what costs, they change no more than which of two
    # equally likely pixels comes first.
    inside = ndimage.binary_erosion(markers > 0, border_value=1)
    return np.where(inside, markers, watershed(-probability, markers, mask=mask & ~inside))


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
