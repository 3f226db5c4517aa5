"""What is wrong with labelled sections, before anything trains on them."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from emseg.data.labels import as_interior
from emseg.errors import InputError

# Contrast is (mean of membrane - mean of interior) / standard deviation of the section. Measured on the ISBI
# 2012 training stack: -1.41 to -1.03 on a section's own label, -0.51 to 0.07 on that of a section near by.
_FITTING_CONTRAST = -0.6
_INVERTED_CONTRAST = 0.25
# A label reaches at least this share of its best contrast on its own image.
_OWN_SHARE = 0.65
_NEIGHBOURS = 5


@dataclass(frozen=True)
class Report:
    """What `emseg data check` prints: facts, and problems that make the data unfit for training."""

    facts: dict[str, str]
    problems: list[str]


def check_stack(images: np.ndarray, labels: np.ndarray) -> Report:
    """Inspect images (Z, Y, X) with their labels (Z, Y, X).

    Reports shapes, dtypes, value sets, the share of interior, cells per section and the contrast between membrane
    and interior. Problems: other label values, counts or sizes that differ, blank or duplicate sections,
    labels that look inverted, labels that do not fit their images or fit another image better.
    """
    facts = {
        "images": _describe(images),
        "labels": f"{_shape(labels)}, {labels.dtype}, values {_values(labels)}",
    }
    if len(images) != len(labels):
        return Report(
            facts, [f"there are {len(images)} images but {len(labels)} labels; every section needs its label"]
        )
    if images.shape != labels.shape:
        return Report(facts, [f"images are {_shape(images)} but labels are {_shape(labels)}; they must agree"])
    if images.dtype not in (np.uint8, np.uint16):
        return Report(facts, [f"images are {images.dtype}; expected 8-bit or 16-bit grey levels"])
    try:
        interior = as_interior(labels, "labels")
    except InputError as error:
        return Report(facts, [str(error)])

    cells = [int(ndimage.label(section)[1]) for section in interior]
    facts["interior"] = f"{interior.mean():.2%} of pixels are cell interior"
    facts["cells per section"] = f"{min(cells)} to {max(cells)}, median {np.median(cells):g}"
    problems = _blank(images) + _unlabelled(interior) + _duplicates(images)
    if not problems:
        contrast = _contrasts(images, interior)
        own = contrast[:, _NEIGHBOURS]
        facts["contrast"] = (
            f"membrane minus interior is {own.mean():+.2f} standard deviations "
            f"(weakest: section {own.argmax()}, {own.max():+.2f})"
        )
        problems += _misfits(contrast, interior)
    return Report(facts, problems)


def check_stacks(
    images: np.ndarray,
    labels: np.ndarray,
    test_images: np.ndarray | None = None,
    test_labels: np.ndarray | None = None,
) -> Report:
    """Inspect the training stack and, where there is one, the test stack, each (Z, Y, X); see `check_stack`.

    Problems are also: test sections of another type than the training sections, and sections that are in both, as they
    are, turned or mirrored. None and an empty array mean that there is none.
    """
    report = check_stack(images, labels)
    test_labels = test_labels if test_labels is not None and len(test_labels) else None
    if test_images is None or not len(test_images):
        alone = [] if test_labels is None else ["there are test-labels but no test-volume; bring both, or neither"]
        return Report(report.facts, report.problems + alone)
    if test_labels is None:
        test = Report({"images": _describe(test_images)}, _blank(test_images) + _duplicates(test_images))
    else:
        test = check_stack(test_images, test_labels)
    facts = report.facts | {f"test {name}": fact for name, fact in test.facts.items()}
    problems = report.problems + [f"test stack: {problem}" for problem in test.problems]
    if test_images.dtype != images.dtype:
        problems.append(
            f"test sections are {test_images.dtype} but training sections are {images.dtype}; they must be of one type"
        )
    return Report(facts, problems + _shared(images, test_images))


def require_sound(report: Report, where: str) -> None:
    """Raise an InputError that lists the problems of a report, if there are any."""
    if report.problems:
        raise InputError(f"{where}: " + "; ".join(report.problems))


def _blank(images: np.ndarray) -> list[str]:
    return [
        f"section {z} is blank (every pixel is {image.flat[0]}); leave it out"
        for z, image in enumerate(images)
        if image.min() == image.max()
    ]


def _unlabelled(interior: np.ndarray) -> list[str]:
    return [
        f"the label of section {z} is all {'interior' if section.all() else 'membrane'}; label it or leave it out"
        for z, section in enumerate(interior)
        if section.all() or not section.any()
    ]


def _duplicates(images: np.ndarray) -> list[str]:
    seen: dict[bytes, int] = {}
    problems = []
    for z, image in enumerate(images):
        first = seen.setdefault(image.tobytes(), z)
        if first != z:
            problems.append(f"section {z} is the same image as section {first}; leave one out")
    return problems


def _shared(images: np.ndarray, test_images: np.ndarray) -> list[str]:
    known = {_whichever_way_up(image): z for z, image in enumerate(images)}
    return [
        f"section {z} of the test stack is section {known[digest]} of the training stack, as it is, turned or "
        "mirrored; take it out of one of them"
        for z, image in enumerate(test_images)
        if (digest := _whichever_way_up(image)) in known
    ]


def _whichever_way_up(image: np.ndarray) -> bytes:
    """The same digest for an image (Y, X) and what turning by right angles and mirroring make of it."""
    turned = [np.rot90(side, quarters) for side in (image, image.T) for quarters in range(4)]
    return min(
        hashlib.blake2b(f"{way.shape}".encode() + np.ascontiguousarray(way).tobytes(), digest_size=16).digest()
        for way in turned
    )


def _contrasts(images: np.ndarray, interior: np.ndarray) -> np.ndarray:
    """Contrast of label z on image z + k - _NEIGHBOURS, array (Z, 2 * _NEIGHBOURS + 1); NaN beyond the stack."""
    count = len(images)
    flat = images.reshape(count, -1).astype(np.float32)
    flat = (flat - flat.mean(axis=1, keepdims=True)) / flat.std(axis=1, keepdims=True)
    contrast = np.full((count, 2 * _NEIGHBOURS + 1), np.nan, np.float32)
    for z in range(count):
        nearby = np.arange(max(0, z - _NEIGHBOURS), min(count, z + _NEIGHBOURS + 1))
        inside = interior[z].ravel()
        sums, share = flat[nearby] @ inside.astype(np.float32), float(inside.mean())
        # The pixels of a normalised section sum to 0, so the membrane's sum is minus the interior's.
        size = inside.size
        contrast[z, nearby - z + _NEIGHBOURS] = -sums / size / (1 - share) - sums / size / share
    return contrast


def _misfits(contrast: np.ndarray, interior: np.ndarray) -> list[str]:
    own = contrast[:, _NEIGHBOURS]
    if own.mean() > _INVERTED_CONTRAST:
        return ["labels look inverted: membrane is brighter than interior; expected 0 for membrane, 255 for interior"]
    if own.mean() < _FITTING_CONTRAST and interior.mean() < 0.3:
        return [f"only {interior.mean():.0%} of pixels are interior; are the labels inverted, or not membranes?"]
    problems = []
    for z, row in enumerate(contrast):
        best = int(np.nanargmin(row)) - _NEIGHBOURS
        if best and row[_NEIGHBOURS] > _OWN_SHARE * row[best + _NEIGHBOURS]:
            problems.append(f"label {z} fits image {z + best} better than its own; check the order of the files")
        elif row[_NEIGHBOURS] > _FITTING_CONTRAST:
            problems.append(
                f"label {z} does not fit image {z}: membrane pixels are not darker than interior ones "
                f"({row[_NEIGHBOURS]:+.2f} standard deviations)"
            )
    return problems


def _describe(images: np.ndarray) -> str:
    return f"{_shape(images)}, {images.dtype}, values {images.min()} to {images.max()}"


def _shape(stack: np.ndarray) -> str:
    return f"{len(stack)} sections of {stack.shape[1]} x {stack.shape[2]} pixels"


def _values(stack: np.ndarray) -> str:
    values = np.unique(stack)
    return ", ".join(map(str, values)) if len(values) <= 6 else f"{values[0]} to {values[-1]} ({len(values)} of them)"
