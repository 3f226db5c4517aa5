"""What is wrong with labelled sections, before anything trains on them."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
from scipy import ndimage

from emseg.data.contrast import CLEAR_CONTRAST, blank_borders, contrasts
from emseg.data.io.stack import section_digest
from emseg.data.labels import LabelReading, Labels, as_interior, read_meaning
from emseg.errors import InputError

_FITTING_CONTRAST = -0.6
"""Of a label on its own image, at most. Membranes that were drawn between cells lie less well, so there it is
-`CLEAR_CONTRAST`."""
# A label reaches at least this share of its best contrast on its own image.
_OWN_SHARE = 0.65
_NEIGHBOURS = 5
_OTHER_RANGE = 4
"""How many times as wide or narrow a range of grey levels is told."""


@dataclass(frozen=True)
class Report:
    """What `emseg data check` prints.

    Attributes:
        facts: what there is.
        problems: what makes the data unfit for training.
        notes: sentences on how labels were read, and on what is unusual.
        labels, test_labels: what the labels mean; None where they could not be read, or there are none.
    """

    facts: dict[str, str]
    problems: list[str]
    notes: list[str] = field(default_factory=list)
    labels: Labels | None = None
    test_labels: Labels | None = None


def check_stack(
    images: np.ndarray,
    labels: np.ndarray,
    reading: LabelReading | None = None,
    ignore: np.ndarray | None = None,
    name: str = "labels",
) -> Report:
    """Inspect images (Z, Y, X) with their labels (Z, Y, X).

    Reports shapes, dtypes, value sets, the share of interior, cells per section and the contrast between membrane
    and interior. Problems: labels that cannot be read, counts or sizes that differ, blank or duplicate sections,
    labels that do not fit their images or fit another image better.

    Args:
        images: as they are in a file.
        labels: as they are in a file.
        reading: how they are to be read, see `read_meaning`; None: 0 is membrane, 1 or 255 interior, nothing else, and
            labels that look inverted are a problem.
        ignore: a mask of what neither trains nor scores, not 0 there.
        name: of the labels, in sentences.
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
        meaning, notes = _read(labels, images, reading, ignore, name)
    except InputError as error:
        return Report(facts, [str(error)])
    facts |= _facts(meaning)
    counted = ~blank_borders(images)
    if meaning.ignore is not None:
        counted &= ~meaning.ignore
    problems = _blank(images) + _unlabelled(meaning.interior, counted) + _duplicates(images)
    if problems:
        return Report(facts, problems, notes, meaning)
    contrast = contrasts(images, meaning.interior, _NEIGHBOURS, counted)
    own = contrast[:, _NEIGHBOURS]
    weakest = int(abs(own).argmin())
    facts["contrast"] = (
        f"membrane minus interior is {own.mean():+.2f} standard deviations (weakest: section {weakest}, "
        f"{own[weakest]:+.2f})"
    )
    share = float(meaning.interior.mean())
    if reading is None and own.mean() > CLEAR_CONTRAST:
        problems = [
            "labels look inverted: membrane is brighter than interior; expected 0 for membrane, 255 for interior"
        ]
    elif reading is None and own.mean() < _FITTING_CONTRAST and share < 0.3:
        problems = [f"only {share:.0%} of pixels are interior; are the labels inverted, or not membranes?"]
    else:
        problems = _misfits(contrast, _FITTING_CONTRAST if meaning.membrane_width is None else -CLEAR_CONTRAST)
    return Report(facts, problems, notes + _other_ranges(images, counted), meaning)


def check_stacks(
    images: np.ndarray,
    labels: np.ndarray,
    test_images: np.ndarray | None = None,
    test_labels: np.ndarray | None = None,
    reading: LabelReading | None = None,
    ignore: np.ndarray | None = None,
    test_ignore: np.ndarray | None = None,
) -> Report:
    """Inspect the training stack and, where there is one, the test stack, each (Z, Y, X); see `check_stack`.

    Both are read alike. Problems are also: test sections of another type than the training sections, and sections that
    are in both, as they are, turned or mirrored. None and an empty array mean that there is none.
    """
    report = check_stack(images, labels, reading, ignore)
    test_labels = test_labels if test_labels is not None and len(test_labels) else None
    if test_images is None or not len(test_images):
        alone = [] if test_labels is None else ["there are test-labels but no test-volume; bring both, or neither"]
        return replace(report, problems=report.problems + alone)
    if test_labels is None:
        test = Report({"images": _describe(test_images)}, _blank(test_images) + _duplicates(test_images))
    else:
        test = check_stack(test_images, test_labels, reading, test_ignore)
    problems = report.problems + [f"test stack: {problem}" for problem in test.problems]
    if test_images.dtype != images.dtype:
        problems.append(
            f"test sections are {test_images.dtype} but training sections are {images.dtype}; they must be of one type"
        )
    return Report(
        report.facts | {f"test {name}": fact for name, fact in test.facts.items()},
        problems + shared_sections({"the training stack": images, "the test stack": test_images}),
        report.notes
        + [f"test stack: {note}" for note in test.notes]
        + ranges_apart({"training sections": images, "test sections": test_images}),
        report.labels,
        test.labels,
    )


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


def _read(
    labels: np.ndarray, images: np.ndarray, reading: LabelReading | None, ignore: np.ndarray | None, name: str
) -> tuple[Labels, list[str]]:
    if reading is not None:
        return read_meaning(labels, images, reading, ignore, name)
    return Labels(as_interior(labels, name), ignore=None if ignore is None else ignore != 0), []


def _facts(labels: Labels) -> dict[str, str]:
    interior = labels.interior
    counted = np.ones(interior.shape, bool) if labels.ignore is None else ~labels.ignore
    if labels.cells is None:
        cells = [int(ndimage.label(section)[1]) for section in interior]
    else:
        cells = [len(np.unique(section[section > 0])) for section in labels.cells]
    facts = {"interior": f"{interior[counted].mean():.2%} of pixels are cell interior"}
    if labels.ignore is not None:
        facts["ignored"] = f"{labels.ignore.mean():.2%} of pixels neither train nor score"
    if labels.membrane_width is not None:
        facts["membranes"] = f"{labels.membrane_width} pixels wide where cells touch, drawn between them"
    facts["cells per section"] = f"{min(cells)} to {max(cells)}, median {np.median(cells):g}"
    return facts


def _unlabelled(interior: np.ndarray, counted: np.ndarray) -> list[str]:
    problems = []
    for z, (section, seen) in enumerate(zip(interior, counted, strict=True)):
        if section[seen].all() or not section[seen].any():
            kind = "interior" if section[seen].all() else "membrane"
            problems.append(f"the label of section {z} is all {kind}; label it or leave it out")
    return problems


def _grey_range(images: np.ndarray, counted: np.ndarray | None = None) -> tuple[float, float]:
    low, high = np.percentile(images if counted is None else images[counted], [1, 99]).tolist()
    return low, high


def _is_other(first: tuple[float, float], second: tuple[float, float]) -> bool:
    """Whether one range of grey levels is much wider than the other, or they lie apart."""
    widths = sorted([first[1] - first[0], second[1] - second[0]])
    return widths[1] > _OTHER_RANGE * widths[0] or first[0] > second[1] or second[0] > first[1]


def _other_ranges(images: np.ndarray, counted: np.ndarray) -> list[str]:
    ranges = [_grey_range(*section) for section in zip(images, counted, strict=True)]
    low, high = np.median(ranges, axis=0).tolist()
    return [
        f"section {z} has grey levels of {own[0]:g} to {own[1]:g} where others have {low:g} to {high:g}; its contrast "
        "or brightness may need correction"
        for z, own in enumerate(ranges)
        if _is_other(own, (low, high))
    ]


def ranges_apart(stacks: dict[str, np.ndarray]) -> list[str]:
    """A sentence for each stack whose grey levels lie apart from those of the first; stacks by what to call them."""
    ranges = {name: _grey_range(images) for name, images in stacks.items()}
    (first, own), *others = ranges.items()
    return [
        f"{name} have grey levels of {other[0]:g} to {other[1]:g} but {first} of {own[0]:g} to {own[1]:g}; a network "
        "may not know what it sees there"
        for name, other in others
        if _is_other(own, other)
    ]


def _duplicates(images: np.ndarray) -> list[str]:
    seen: dict[bytes, int] = {}
    problems = []
    for z, image in enumerate(images):
        first = seen.setdefault(image.tobytes(), z)
        if first != z:
            problems.append(f"section {z} is the same image as section {first}; leave one out")
    return problems


def shared_sections(stacks: dict[str, np.ndarray]) -> list[str]:
    """A sentence for each section that is in two stacks, as it is, turned or mirrored; stacks by what to call them."""
    known: dict[str, tuple[str, int]] = {}
    problems = []
    for name, images in stacks.items():
        for z, image in enumerate(images):
            first, place = known.setdefault(section_digest(image), (name, z))
            if first != name:
                problems.append(
                    f"section {z} of {name} is section {place} of {first}, as it is, turned or mirrored; take it out "
                    "of one of them"
                )
    return problems


def _misfits(contrast: np.ndarray, fitting: float) -> list[str]:
    own = contrast[:, _NEIGHBOURS]
    # Bright membranes fit as dark ones do, the other way round.
    is_bright = own.mean() > CLEAR_CONTRAST
    darker = "brighter" if is_bright else "darker"
    problems = []
    for z, row in enumerate(-contrast if is_bright else contrast):
        best = int(np.nanargmin(row)) - _NEIGHBOURS
        if best and row[_NEIGHBOURS] > _OWN_SHARE * row[best + _NEIGHBOURS]:
            problems.append(f"label {z} fits image {z + best} better than its own; check the order of the files")
        elif row[_NEIGHBOURS] > fitting:
            problems.append(
                f"label {z} does not fit image {z}: membrane pixels are not {darker} than interior ones "
                f"({own[z]:+.2f} standard deviations)"
            )
    return problems


def _describe(images: np.ndarray) -> str:
    return f"{_shape(images)}, {images.dtype}, values {images.min()} to {images.max()}"


def _shape(stack: np.ndarray) -> str:
    return f"{len(stack)} sections of {stack.shape[1]} x {stack.shape[2]} pixels"


def _values(stack: np.ndarray) -> str:
    values = np.unique(stack)
    return ", ".join(map(str, values)) if len(values) <= 6 else f"{values[0]} to {values[-1]} ({len(values)} of them)"
