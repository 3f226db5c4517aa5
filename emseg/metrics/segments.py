"""Metrics on segments as they are, without border thinning: adapted Rand error and variation of information."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy import ndimage

from emseg.metrics.inputs import Truth, binarise, prepare


class VariationOfInformation(NamedTuple):
    """Variation of information in nats, lower is better; `split` + `merge` is the whole."""

    split: float
    merge: float


def adapted_rand_error(
    probability: np.ndarray,
    label: np.ndarray,
    threshold: float = 0.5,
    *,
    cells: bool = False,
    ignore: np.ndarray | None = None,
) -> float:
    """SNEMI3D's adapted Rand error, on 4-connected components per section, averaged; in [0, 1], lower is better.

    1 - F-score of the Rand index on pixels whose truth is not membrane (Arganda-Carreras et al. 2015; after the
    challenge's script). With n_ij the pixels in true segment i and proposed segment j, c the pixels of true
    segments that the proposal calls membrane, and n the pixels of the section:
    precision = (sum n_ij^2 + c / n) / (sum_j (sum_i n_ij)^2 + c / n), recall = (sum n_ij^2 + c / n) /
    sum_i (sum_j n_ij, membrane included)^2. scikit-image's function of this name counts proposed membrane as one
    big segment instead, and returns precision and recall swapped.

    Args:
        probability: of interior; one section (Y, X) or a stack (Z, Y, X); float in [0, 1] or bool.
        label: same shape; bool, {0, 1} or {0, 255}.
        threshold: interior is probability > threshold.
        cells: whether `label` holds cells by number, 0 on membrane; they are counted as they are given.
        ignore: same shape, bool; pixels to leave out. Proposed segments are told apart before they are.

    Raises:
        ValueError: bad input, or a section without interior in its label.

    >>> label = np.array([[1, 1, 0, 1, 1]])
    >>> adapted_rand_error(label.astype(float), label)
    0.0
    >>> round(adapted_rand_error(np.ones((1, 5)), label), 4)
    0.3333
    """
    sections, truths = prepare(probability, label, cells, ignore)
    return float(
        np.mean(
            [
                section_adapted_rand_error(binarise(section, threshold), truth)
                for section, truth in zip(sections, truths, strict=True)
            ]
        )
    )


def section_adapted_rand_error(predicted: np.ndarray, truth: Truth) -> float:
    """`adapted_rand_error` of one bool section."""
    counts = _contingency(predicted, truth)
    settled, membrane = counts[:, 1:], float(counts[:, 0].sum())
    alone = membrane / truth.pixels
    pairs = float((settled**2).sum()) + alone
    precision = pairs / (float((settled.sum(axis=0) ** 2).sum()) + alone) if pairs else 0.0
    recall = pairs / float((counts.sum(axis=1) ** 2).sum())
    return 1 - 2 * precision * recall / (precision + recall) if pairs else 1.0


def variation_of_information(
    probability: np.ndarray,
    label: np.ndarray,
    threshold: float = 0.5,
    *,
    cells: bool = False,
    ignore: np.ndarray | None = None,
) -> VariationOfInformation:
    """Variation of information of 4-connected components per section, averaged; nats, lower is better.

    VI = H(S|T) + H(T|S) (Meila 2003), with S the proposal and T the truth, on pixels whose truth is not membrane;
    there, proposed membrane is one segment of S. `split` is H(S|T), high where cells are cut apart; `merge` is
    H(T|S), high where cells run together. Arguments and errors as for `adapted_rand_error`.

    >>> label = np.array([[1, 1, 0, 1, 1]])
    >>> merged = variation_of_information(np.ones((1, 5)), label)
    >>> round(merged.split, 4), round(merged.merge, 4)
    (0.0, 0.6931)
    """
    sections, truths = prepare(probability, label, cells, ignore)
    parts = np.mean(
        [
            section_variation_of_information(binarise(section, threshold), truth)
            for section, truth in zip(sections, truths, strict=True)
        ],
        axis=0,
    )
    return VariationOfInformation(float(parts[0]), float(parts[1]))


def section_variation_of_information(predicted: np.ndarray, truth: Truth) -> VariationOfInformation:
    """`variation_of_information` of one bool section."""
    shares = _contingency(predicted, truth)
    shares = shares / shares.sum()
    joint = _entropy(shares.ravel())
    return VariationOfInformation(
        max(0.0, joint - _entropy(shares.sum(axis=1))), max(0.0, joint - _entropy(shares.sum(axis=0)))
    )


def _contingency(predicted: np.ndarray, truth: Truth) -> np.ndarray:
    """Pixels per true cell (rows) and proposed segment (columns; the first is proposed membrane), float64."""
    true, cells = truth.scored_segments()
    proposal, segments = ndimage.label(predicted)
    inside = true > 0
    pairs = (true[inside].astype(np.int64) - 1) * (segments + 1) + proposal[inside]
    return np.bincount(pairs, minlength=cells * (segments + 1)).reshape(cells, segments + 1).astype(np.float64)


def _entropy(shares: np.ndarray) -> float:
    positive = shares[shares > 0]
    return float(-(positive * np.log(positive)).sum())
