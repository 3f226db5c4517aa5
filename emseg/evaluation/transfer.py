"""Score a calibrated run on a dataset that it was not trained on; nothing is learned there.

Thresholds and rules for cells stay as they were calibrated at home. `transfer/DATASET` in the folder of the run gets
the files that `evaluation` has.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from emseg.data.labelled_sections import LabelledSections, every_section
from emseg.data.normalization import Normalization, describe_difference, grey_levels, warning_of_difference
from emseg.data.sources import Source, require_source_name
from emseg.errors import InputError
from emseg.evaluation.evaluate import Draw, score_sections
from emseg.metrics.scoring import Scores
from emseg.records.evaluation import DrawnMembranes
from emseg.records.record import RunRecord
from emseg.records.run import Run
from emseg.records.transfer import Home, Transfer, transfer_folder
from emseg.settings import TRANSFER

Warn = Callable[[str], None]


def evaluate_transfer(
    record: RunRecord, dataset: Source, draw: Draw = lambda *_: None, warn: Warn = lambda sentence: None
) -> Transfer:
    """Predict and score every labelled section of another dataset; write `transfer/NAME` beside `training`.

    Args:
        record: of a calibrated run.
        dataset: another than the one it was trained on. Sections that the run was trained or calibrated on, as they
            are, turned or mirrored, are left out.
        draw: told when the tables are there.
        warn: told in a sentence what the user should know.

    Returns:
        What metrics.json holds.

    Raises:
        InputError: the dataset is the run's own, or the run saw all of its sections, or its name cannot be a source's;
            the sections are of another type than those trained on and look unlike them; the run was not calibrated, or
            its weights are damaged.
    """
    require_source_name(dataset.name)
    run = record.read()
    place = record.folder.parent
    if run.data_digest == dataset.digest:
        raise InputError(
            f"{dataset.name} is what {place} was trained on; `emseg evaluate {place}` scores it on its test sections"
        )
    normalization = Normalization(run.normalization.low, run.normalization.high)
    sections = every_section(dataset, normalization)
    if len(dataset.test_labels) and len(sections) == len(dataset.images):
        warn(f"{dataset.name}: its test stack has sections of another size, and is not scored")
    seen = _seen(record, run, dataset)[: len(sections)]
    if seen.all():
        raise InputError(
            f"{place} was trained or calibrated on every section of {dataset.name}; nothing is left to score it on"
        )
    left_out, sections = sections.numbers[seen].tolist(), sections[np.flatnonzero(~seen)]
    difference = _difference(sections, run)
    if difference:
        warn(warning_of_difference(difference, dataset.name, dataset.images.dtype, run.name, normalization))
    scored = score_sections(record, run, sections)
    scores = Scores(TRANSFER, dataset.digest, scored.table)
    transfer = Transfer(
        dataset=dataset.name,
        protocol=TRANSFER,
        leaks=False,
        data_digest=dataset.digest,
        metrics=scores.summary(),
        drawn_membranes=DrawnMembranes.of(dataset.noted),
        home=Home(dataset=run.dataset, protocol=run.protocol, data_digest=run.data_digest),
        left_out=left_out,
        unlike_training=difference,
        **scored.facts(run),
    )
    return scored.write(transfer_folder(record, dataset.name), record, transfer, draw)


def _seen(record: RunRecord, run: Run, dataset: Source) -> np.ndarray:
    """Which sections of a dataset a run was trained or calibrated on, bool, as `every_section` has them."""
    if run.trained_on is None:
        raise InputError(
            f"{record.folder}: the record is of an earlier emseg and does not say which sections it was trained on, so "
            "they cannot be told from others; train the run again"
        )
    return np.array([digest in run.trained_on for digest in dataset.section_digests + dataset.test_section_digests])


def _difference(sections: LabelledSections, run: Run) -> str | None:
    """How the grey levels of a section differ most from those trained on, in one sentence; None: none does."""
    ignored = sections.ignore if sections.ignore is not None else [None] * len(sections)
    found = {
        describe_difference(grey_levels(image / 255, ignore), run.grey_levels)
        for image, ignore in zip(sections.images, ignored, strict=True)
    }
    return min((sentence for sentence in found if sentence), default=None)
