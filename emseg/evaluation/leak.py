"""What a leaking protocol is worth: one model, one budget, trained under `paper` and under `heldout`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from emseg.data.labelled_sections import LabelledSections
from emseg.data.sources import Source
from emseg.evaluation.evaluate import Draw, calibrate_and_evaluate
from emseg.inference.trained import load_predictor
from emseg.metrics.scoring import score_pixels, score_segments
from emseg.records.evaluation import read_evaluated, read_evaluation
from emseg.records.record import RunRecord
from emseg.settings import Settings
from emseg.training.plan import RunPlan
from emseg.training.run import train_model

LEAKING, HONEST = "paper", "heldout"
SEEN = "seen"
"""The model trained under `paper`, on the sections that `heldout` holds out: it saw warped copies of them."""


@dataclass(frozen=True)
class Leak:
    """A model's scores under both protocols.

    `tables` hold a row per test image and seed: under `paper` and `heldout` on the protocol's own test images, and
    under `seen` those of the `paper` model on the test sections of `heldout`. `records` are the runs.
    """

    model: str
    dataset: str
    tables: dict[str, pd.DataFrame]
    records: list[RunRecord]


def measure_leak(
    model: str,
    settings: Settings,
    dataset: Source,
    seeds: list[int],
    folder: Path,
    after_epoch: Callable[[RunRecord], None] = lambda _: None,
    draw: Draw = lambda *_: None,
) -> Leak:
    """Train and evaluate `model` under both protocols with every seed; goes on where it was stopped.

    `draw` adds figures to each evaluation, see `evaluate`.

    Raises:
        InputError: settings that cannot work on these sections.
    """
    variants = {name: _under(settings, name) for name in (LEAKING, HONEST)}
    plans = {name: RunPlan(model, 0, seeds[0], variant, dataset) for name, variant in variants.items()}
    tables, records = {}, []
    seen = []
    for protocol, first in plans.items():
        parts = []
        for seed in seeds:
            plan = first.changed(seed=seed)
            location = folder / protocol / plan.name / "training"
            record = train_model(plan, location, replace_finished=True, after_epoch=after_epoch)
            calibrate_and_evaluate(record, dataset, "threshold", draw)
            parts.append(read_evaluated(record.evaluation_folder).table.assign(seed=seed))
            if protocol == LEAKING:
                seen.append(_score_sections(record, plans[HONEST].parts.test).assign(seed=seed))
            records.append(record)
        tables[protocol] = pd.concat(parts, ignore_index=True)
    tables[SEEN] = pd.concat(seen, ignore_index=True)
    return Leak(model, dataset.name, tables, records)


def _score_sections(record: RunRecord, test: LabelledSections) -> pd.DataFrame:
    probability = load_predictor(record).predict(test.images, test.places)
    threshold = read_evaluation(record.evaluation_folder).threshold
    table = score_pixels(probability, **test.for_metrics)
    table = table.merge(score_segments(probability, threshold=threshold, **test.for_metrics))
    return table.assign(section=test.numbers)


def _under(settings: Settings, protocol: str) -> Settings:
    changed = settings.protocol.model_copy(update={"name": protocol, "folds": [0]})
    return settings.model_copy(update={"protocol": changed})
