"""Runs that were trained on another machine."""

from __future__ import annotations

import sys
from pathlib import Path

from emseg.data.sources import load_source_of
from emseg.errors import InputError
from emseg.records.bundle import unpack_run
from emseg.records.record import RunRecord
from emseg.reporting.evaluation_figures import add_figures

IMPORTED = Path("runs/imported")


def import_run(bundle: Path) -> RunRecord:
    """Unpack a run below runs/imported and draw the figures that its machine could not.

    Without the data it was trained on, the run is imported without figures, and a line says so.

    Raises:
        InputError: the file is not a packed run.
    """
    record = unpack_run(bundle, IMPORTED)
    if (record.evaluation_folder / "metrics.json").is_file():
        try:
            run = record.read()
            source = load_source_of(run.dataset, run.data_digest)
            add_figures(record, source)
        except InputError as error:
            print(f"{bundle}: imported without figures: {error}", file=sys.stderr)
    return record
