"""Write the report of evaluated runs, from their records alone.

    python -m pipelines.report workspaces/isbi2012-quick/runs reports/isbi2012-quick \\
        --title "ISBI 2012, profile quick" --command "make benchmark DATA=isbi2012 PROFILE=quick"

The report keeps those records in records.zip, so it can be made again, or with further runs, where the runs are gone:

    python -m pipelines.report reports/isbi2012-quick/records.zip more/runs reports/isbi2012-quick --title ...
"""

import argparse
from pathlib import Path

from emseg.reporting.report import write_report
from pipelines.stage import run_stage


def main() -> None:
    """Write the report named on the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="+", help="folder below which runs are, or records.zip; later replace")
    parser.add_argument("report", type=Path, help="folder to write to")
    parser.add_argument("--title", required=True)
    parser.add_argument("--command", required=True, help="how the runs were made, to print")
    arguments = parser.parse_args()
    print(write_report(arguments.runs, arguments.report, arguments.title, arguments.command))


if __name__ == "__main__":
    run_stage(main)
