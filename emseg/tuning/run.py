"""A worker as a person starts it: every trial is a line on stderr and a run in MLflow."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from emseg.data.sources import Source
from emseg.settings import Settings, check_seed
from emseg.tracking.study_mirror import StudyMirror
from emseg.tuning.figures import draw_study
from emseg.tuning.progress import TrialLines
from emseg.tuning.study import best_of, open_study
from emseg.tuning.worker import Events, run_worker

if TYPE_CHECKING:
    import optuna
    from optuna.trial import FrozenTrial


def tune(
    settings: Settings, source: Source, name: str | None = None, storage_url: str | None = None, seed: int = 0
) -> optuna.Study:
    """Work on a study until it has as many trials as the settings ask for; a store that is away does not stop it.

    Args:
        settings, source, name, storage_url: as in `open_study`.
        seed: as in `run_worker`.

    Returns:
        The study.

    Raises:
        InputError: the seed is none, or as in `open_study`.
    """
    check_seed(seed)
    study, tuning = open_study(settings, source, name, storage_url), settings.tuning
    objectives = [tuning.metric, *([tuning.cost] if tuning.cost else [])]
    described = tuning.model_dump(mode="json") | {"data_digest": source.digest}
    mirror = StudyMirror(study.study_name, source.name, settings.protocol.name, objectives, described)
    lines = TrialLines(tuning.trials, tuning.metric)

    def ended(study: optuna.Study, trial: FrozenTrial) -> None:
        mirror.ended(study, trial)
        lines.ended(study, trial)

    run_worker(study, settings, source, Events(mirror.began, mirror.epoch, ended), seed)
    with tempfile.TemporaryDirectory() as folder:
        mirror.finish(study, best_of(study), draw_study(study, Path(folder), tuning))
    return study
