"""Stage compare: the leaderboard of this benchmark, with baselines, as CSV, Markdown and figures."""

import pandas as pd

from emseg.files import write_text
from emseg.project.folders import RESULTS, benchmark_records
from emseg.records.record import RunRecord
from emseg.reporting.figures import comparison_figure, learning_curves_figure, save_figure
from emseg.reporting.leaderboard import as_csv, as_markdown, as_numbers, make_boards
from emseg.settings import Settings

CURVES = ("train_loss", "validation_pixel_error")
"""What dvc.yaml plots."""


def run(settings: Settings) -> None:
    """Write results/leaderboard.csv, leaderboard.md, comparison.png, curves.png and a table per learning curve."""
    records = benchmark_records(settings)
    (board,) = make_boards([record.evaluation_folder for record in records])
    write_text(RESULTS / "leaderboard.csv", as_csv(as_numbers([board])))
    write_text(RESULTS / "leaderboard.md", as_markdown([board]))
    # Baselines would squeeze the models into a corner; the table has them.
    models = {row.model: row.metrics for row in board.trained}
    figure = comparison_figure(board.title, models, ["v_rand", "v_info", "pixel_error"])
    save_figure(figure, RESULTS / "comparison.png")
    histories = {record.name: record.history() for record in records}
    save_figure(learning_curves_figure(board.title, histories), RESULTS / "curves.png")
    for quantity in CURVES:
        write_text(RESULTS / f"{quantity}.csv", curves(records, quantity).to_csv(float_format="%.6f"))


def curves(records: list[RunRecord], quantity: str) -> pd.DataFrame:
    """A quantity of the histories, one row per epoch and a column per model: the mean over its folds and seeds."""
    every = pd.concat([pd.DataFrame(record.history()).assign(model=record.read().model) for record in records])
    return every.pivot_table(index="epoch", columns="model", values=quantity, sort=False)
