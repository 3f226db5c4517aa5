"""Cells by agglomeration: regions of interior, merged where a learned rule finds one cell on both sides.

A threshold joins two cells through a few bright pixels of a faint membrane, and cuts one cell at a dark spot. Here a
section is first cut into regions, more than it has cells. Each border between two regions is then judged as a whole:
by the probability along it, its length, how large and how sure the two regions are, and whether they lie over the same
regions of the neighbouring sections. The judge is a logistic regression, learned on labelled sections that the network
was trained on. Regions are merged by mean linkage, the likeliest border first, in rounds: what is surely one cell is
merged before the borders that are left, longer then and between larger regions, are looked at again and judged by a
rule of their own (after the agglomeration of superpixels of Nunez-Iglesias et al. 2013, PLoS ONE 8:e71715).

The result is a probability again: 1 inside the regions that the last round begins with, and on a border between them
the probability that both sides are one cell. Its components above a threshold are those regions merged down to it, so
it is scored like any other proposal. The threshold is 0.5: merged is what is more likely one cell than two. Merging
regions of a and b pixels adds ab to the denominator of V_rand, and 2ab to its numerator if they are one cell; so it
raises the expected V_rand where that is likelier than V_rand / 2, which is a half or just below.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, replace

import numpy as np
from scipy import ndimage, sparse
from scipy.optimize import minimize
from scipy.special import expit

from emseg.data.protocol import consecutive
from emseg.records.calibration import BorderRule, MergeRules, RoundRules
from emseg.segmentation.regions import FEATURES, OVERLAP, Borders, Regions, find_borders, find_regions

MERGE_THRESHOLD = 0.5
_ROUNDS = (0.95, 0.8, MERGE_THRESHOLD)
"""How far each round merges."""
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
class MergeRound:
    """One round of merging, down to a probability of one cell on both sides, in [0, 1].

    It has a rule for a section on its own, and one for a section with neighbours, if any had some.
    """

    down_to: float
    alone: LogisticRule
    among_neighbours: LogisticRule | None

    def levels(self, borders: Borders) -> np.ndarray:
        """For each border, the probability down to which regions must be merged for its two sides to be one."""
        is_alone = borders.features.shape[1] == len(FEATURES)
        rule = self.alone if is_alone or self.among_neighbours is None else self.among_neighbours
        return _merge_levels(borders, rule(borders.features[:, : len(rule.weights)]))

    def merge(self, regions: Regions, borders: Borders) -> Regions:
        """What the next round begins with."""
        joined = borders.pairs[self.levels(borders) > self.down_to].T
        graph = sparse.coo_array((np.ones(joined.shape[1]), joined), shape=(regions.count, regions.count))
        count, merged = sparse.csgraph.connected_components(graph, directed=False)
        labels = np.append(0, merged + 1).astype(np.int32)[regions.labels]
        return Regions(regions.probability, labels, count)

    def close(self, regions: Regions, borders: Borders) -> np.ndarray:
        """Probability that is 1 inside regions and low between those that are not one cell.

        Returns:
            float32 (Y, X) in [0, 1]; 0 everywhere if there are no regions.
        """
        closed = np.full(regions.labels.shape, float(regions.count > 0), np.float32)
        levels = self.levels(borders).astype(np.float32)
        np.minimum.at(closed.reshape(-1), borders.pixels, levels[borders.edges])
        return closed


@dataclass(frozen=True)
class Agglomeration:
    """What was learned: the rounds, in their order; the last goes down to `MERGE_THRESHOLD`."""

    rounds: tuple[MergeRound, ...]

    def close(self, probability: np.ndarray, places: Sequence[int] | np.ndarray) -> np.ndarray:
        """Sections (Z, Y, X) at these places along z closed, float32 (Z, Y, X): a gap parts neighbours."""
        return np.concatenate([self.close_stack(probability[block]) for block in consecutive(places)])

    def close_stack(self, probability: np.ndarray) -> np.ndarray:
        """Every section of a stack (Z, Y, X) of consecutive sections closed, see `ClosedStack`; float32 (Z, Y, X)."""
        stack = ClosedStack(self, probability.__getitem__, len(probability))
        return np.stack([stack.section(z)[1] for z in range(len(probability))])

    def as_rules(self) -> MergeRules:
        """As cells.json has it; `from_rules` reads it. The weights of a rule are in the order of `features`."""
        rounds = [
            RoundRules(
                down_to=step.down_to,
                alone=BorderRule(**asdict(step.alone)),
                among_neighbours=BorderRule(**asdict(among)) if (among := step.among_neighbours) else None,
            )
            for step in self.rounds
        ]
        return MergeRules(features=[*FEATURES, OVERLAP], rounds=rounds)

    @classmethod
    def from_rules(cls, rules: MergeRules) -> Agglomeration:
        """From what `as_rules` gave.

        Raises:
            ValueError: it is damaged, or was learned by a version of emseg that judges borders otherwise.
        """
        if rules.features != [*FEATURES, OVERLAP]:
            raise ValueError("its agglomeration was learned by a version of emseg that judges borders otherwise")
        try:
            rounds = []
            for step in rules.rounds:
                among = step.among_neighbours
                alone = _checked_rule(step.alone, len(FEATURES))
                together = None if among is None else _checked_rule(among, len(FEATURES) + 1)
                rounds.append(MergeRound(step.down_to, alone, together))
            ends = [step.down_to for step in rounds]
            if ends != sorted(ends, reverse=True) or not ends or not 0 < ends[-1] <= ends[0] < 1:
                raise ValueError(f"its rounds merge down to {ends}")
        except ValueError as error:
            raise ValueError(f"its agglomeration is damaged ({' '.join(str(error).split())})") from error
        return cls(tuple(rounds))


def _checked_rule(rule: BorderRule, features: int) -> LogisticRule:
    if {len(rule.mean), len(rule.scale), len(rule.weights)} != {features}:
        raise ValueError(f"a rule needs {features} weights, means and scales")
    if min(rule.scale) <= 0:
        raise ValueError("the scale of a feature is not above 0")
    return LogisticRule(**dict(rule))


class ClosedStack:
    """A stack of consecutive sections whose cells are told apart; holds what the coming sections need.

    Args:
        agglomeration: how.
        predicted: gives the probability of section z, float (Y, X) in [0, 1].
        count: sections in the stack.
    """

    def __init__(self, agglomeration: Agglomeration, predicted: Callable[[int], np.ndarray], count: int) -> None:
        self._rounds, self._predicted, self._count = agglomeration.rounds, predicted, count
        self._held: list[dict[int, Regions]] = [{} for _ in self._rounds]

    def section(self, z: int) -> tuple[np.ndarray, np.ndarray]:
        """Its probability and what `MergeRound.close` makes of it. To be asked for in rising order."""
        last = len(self._rounds) - 1
        for before, held in enumerate(self._held):
            # Each round looks one section further than the next.
            for other in [other for other in held if other < z - 1 + last - before]:
                del held[other]
        regions = self._regions(last, z)
        return regions.probability, self._rounds[last].close(regions, self._borders(last, z))

    def _regions(self, step: int, z: int) -> Regions:
        """What a round begins with."""
        held = self._held[step]
        if z not in held:
            if step == 0:
                held[z] = find_regions(self._predicted(z))
            else:
                held[z] = self._rounds[step - 1].merge(self._regions(step - 1, z), self._borders(step - 1, z))
        return held[z]

    def _borders(self, step: int, z: int) -> Borders:
        near = [self._regions(step, other) for other in (z - 1, z + 1) if 0 <= other < self._count]
        return find_borders(self._regions(step, z), near)


def learn_agglomeration(stacks: Iterable[tuple[Iterable[np.ndarray], np.ndarray]]) -> Agglomeration:
    """Learn from labelled sections which borders between regions are inside a cell; holds the regions of all.

    Args:
        stacks: of consecutive sections: their probabilities, float (Y, X) in [0, 1], one after the other, and their
            labels (Z, Y, X): bool, where cells are components of the interior, or integers, the cells by number in
            each section from 1 and 0 where nothing is to be learned.

    Raises:
        ValueError: no border is inside a cell, or none between two, so nothing can be learned.
    """
    cut = [([find_regions(probability) for probability in probabilities], labels) for probabilities, labels in stacks]
    rounds: list[MergeRound] = []
    for down_to in _ROUNDS:
        bordered = [(regions, _borders_of(regions), labels) for regions, labels in cut]
        try:
            rounds.append(_learn_round(down_to, bordered))
        except ValueError:
            if not rounds:
                raise
            # Nothing is left to tell apart, so what was learned last does for the rest.
            break
        cut = [
            ([rounds[-1].merge(*each) for each in zip(regions, borders, strict=True)], labels)
            for regions, borders, labels in bordered
        ]
    return Agglomeration((*rounds[:-1], replace(rounds[-1], down_to=MERGE_THRESHOLD)))


def _borders_of(stack: list[Regions]) -> list[Borders]:
    """The borders in each of consecutive sections."""
    return [find_borders(here, stack[max(z - 1, 0) : z] + stack[z + 1 : z + 2]) for z, here in enumerate(stack)]


def _learn_round(down_to: float, stacks: list[tuple[list[Regions], list[Borders], np.ndarray]]) -> MergeRound:
    alone: list[_Examples] = []
    among: list[_Examples] = []
    for stack in stacks:
        for regions, borders, label in zip(*stack, strict=True):
            first, second = _true_cells(regions, label)[borders.pairs].T
            known = (first > 0) & (second > 0)
            features, one_cell = borders.features[known], (first == second)[known]
            alone.append((features[:, : len(FEATURES)], one_cell))
            if features.shape[1] > len(FEATURES):
                among.append((features, one_cell))
    return MergeRound(down_to, _fit_logistic(alone), _fit_logistic(among) if among else None)


def _true_cells(regions: Regions, label: np.ndarray) -> np.ndarray:
    """The true cell that holds most of each region, from 1; 0 for a region on membrane alone."""
    truth, cells = ndimage.label(label) if label.dtype == bool else (label, int(label.max()))
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
