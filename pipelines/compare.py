"""Stage compare: the leaderboard of this benchmark, with baselines, as CSV, Markdown and figures."""

import pandas as pd

from emseg.evaluation.evaluate import evaluation_folder
from emseg.files import write_text
from emseg.reporting.figures import comparison_figure, learning_curves_figure, save_figure
from emseg.reporting.leaderboard import as_csv, as_markdown, as_numbers, make_boards
from emseg.training.record import RunRecord
from pipelines.stage import (
    RESULTS,
    benchmark_records,
    current_settings,
    run_stage,
)

CURVES = ("train_loss", "validation_pixel_error")
"""What dvc.yaml plots."""


def main() -> None:
    """Write results/leaderboard.csv, leaderboard.md, comparison.png, curves.png and a table per learning curve."""
    settings = current_settings()
    records = benchmark_records(settings)
    (board,) = make_boards([evaluation_folder(record) for record in records])
    write_text(RESULTS / "leaderboard.csv", as_csv(as_numbers([board])))
    write_text(RESULTS / "leaderboard.md", as_markdown([board]))
    # Baselines would squeeze the models into a corner; the table has them.
    models = [row for row in board.rows if "runs" in row]
    figure = comparison_figure(board.title, models, ["v_rand", "v_info", "pixel_error"])
    save_figure(figure, RESULTS / "comparison.png")
    histories = {record.name: record.history() for record in records}
    save_figure(learning_curves_figure(board.title, histories), RESULTS / "curves.png")
    for quantity in CURVES:
        write_text(RESULTS / f"{quantity}.csv", curves(records, quantity).to_csv(float_format="%.6f"))


def curves(records: list[RunRecord], quantity: str) -> pd.DataFrame:
    """A quantity of the histories, one row per epoch and a column per model: the mean over its folds and seeds."""
    every = pd.concat([pd.DataFrame(record.history()).assign(model=record.read()["model"]) for record in records])
    return every.pivot_table(index="epoch", columns="model", values=quantity, sort=False)


if __name__ == "__main__":
    run_stage(main)
