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
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from scipy import ndimage
from scipy.optimize import minimize
from scipy.special import expit

from emseg.inference.regions import FEATURES, OVERLAP, Borders, Regions, cut_stack, find_borders

MERGE_THRESHOLD = 0.5
_RIDGE = 3.0
"""Pull of the weights to 0, on standardised features."""
_Examples = tuple[np.ndarray, np.ndarray]
"""Features of the borders of a section, (borders, features), and whether each is inside a cell, bool (borders,)."""


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
