"""Stage compare: the leaderboard of this benchmark, with baselines, as CSV, Markdown and figures."""

from emseg.files import write_text
from emseg.reporting.evaluation import evaluation_folder
from emseg.reporting.figures import comparison_figure, learning_curves_figure, save_figure
from emseg.reporting.leaderboard import as_csv, as_markdown, as_numbers, make_boards
from pipelines.stage import (
    RESULTS,
    benchmark_records,
    current_settings,
    run_stage,
)


def main() -> None:
    """Write results/leaderboard.csv, leaderboard.md, comparison.png and curves.png."""
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


if __name__ == "__main__":
    run_stage(main)
