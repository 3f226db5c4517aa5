"""The report on what a leaking protocol is worth."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from emseg.evaluation.leak import HONEST, LEAKING, SEEN, Leak
from emseg.files import write_text
from emseg.metrics.scoring import PIXEL_METRICS, summarise
from emseg.reporting.figures import comparison_figure, save_figure

_METRICS = (*PIXEL_METRICS, "v_rand", "v_info", "warping_error")
_RESAMPLES = 5000


def leak_table(leak: Leak, seed: int = 0) -> pd.DataFrame:
    """A row per metric: mean and 95 % interval of each table of the leak, and of the gap `heldout` - `seen`.

    The gap is between the two models on the very same sections, resampled in pairs.
    """
    random = np.random.default_rng(seed)
    rows = []
    for metric in _METRICS:
        row: dict[str, Any] = {"metric": metric}
        values = {name: table.groupby("section")[metric].mean() for name, table in leak.tables.items()}
        for name, per_image in values.items():
            row |= {f"{name}_{part}": value for part, value in summarise(per_image.to_numpy())}
        gap = (values[HONEST] - values[SEEN]).to_numpy()
        row["gap"] = gap.mean()
        draws = gap[random.integers(0, len(gap), (_RESAMPLES, len(gap)))].mean(axis=1)
        row["gap_low"], row["gap_high"] = np.quantile(draws, [0.025, 0.975])
        rows.append(row)
    return pd.DataFrame(rows)


def write_leak_report(leak: Leak, reports: Path, command: str) -> Path:
    """Write leak-DATASET-MODEL.md, .csv and .png to `reports`; returns the Markdown file."""
    table = leak_table(leak)
    name = f"leak-{leak.dataset}-{leak.model}"
    run = leak.records[0].read()
    lineage, training = run.lineage, run.settings.training

    def cell(row: Any, what: str) -> str:
        mean = row.gap if what == "gap" else getattr(row, f"{what}_mean")
        return f"{mean:.4f} [{getattr(row, f'{what}_low'):.4f}, {getattr(row, f'{what}_high'):.4f}]"

    lines = [
        f"| {row.metric} | {cell(row, LEAKING)} | {cell(row, SEEN)} | {cell(row, HONEST)} | {cell(row, 'gap')} |"
        for row in table.itertuples(index=False)
    ]
    seeds = sorted({record.read().seed for record in leak.records})
    images = {protocol: part["section"].nunique() for protocol, part in leak.tables.items()}
    write_text(
        reports / f"{name}.md",
        f"""# What the leaking protocol is worth: {leak.model} on {leak.dataset}

Made by `{command}`.

| metric | paper, own test images (leaks) | paper, held-out sections (leaks) | heldout, the same sections | gap |
|---|---|---|---|---|
{chr(10).join(lines)}

Mean and 95 % bootstrap interval over images, each first averaged over seeds {seeds}. The same network, recipe and
budget under both protocols: {training.epochs} epochs of {training.images_per_epoch} images.

The first column is what a paper would print: {images[LEAKING]} augmented test images, warped copies of sections
that were trained on. The next two are the models of both protocols on the same {images[HONEST]} sections: the first
saw warped copies of them, the second never did. The gap is the last minus the one before, paired by section. Cell
metrics use the threshold that each model's own validation images chose, pixel metrics 0.5.

| | |
|---|---|
| machine | {lineage.device}, torch {lineage.packages["torch"]}, {lineage.threads} threads |
| commit | {lineage.git_commit}{" with uncommitted changes" if lineage.git_dirty else ""} |
| data digest | {run.data_digest} |

![both protocols]({name}.png)
""",
    )
    write_text(reports / f"{name}.csv", table.to_csv(index=False, float_format="%.6f"))
    shown = ["pixel_error", "dice", "v_rand"]
    models = {
        label: {m: summarise(leak.tables[protocol].groupby("section")[m].mean().to_numpy()) for m in shown}
        for protocol, label in ((SEEN, "paper (leaks)"), (HONEST, "heldout"))
    }
    figure = comparison_figure(f"{leak.model} on the same sections of {leak.dataset}", models, shown)
    save_figure(figure, reports / f"{name}.png")
    return reports / f"{name}.md"
