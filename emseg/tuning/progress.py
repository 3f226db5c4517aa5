"""A line per finished trial."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING

from emseg.tuning.study import STATUS, best_of, count_trials

if TYPE_CHECKING:
    from optuna import Study
    from optuna.trial import FrozenTrial


class TrialLines:
    """Print what a worker's trials came to, and how long the study may still take.

    Args:
        trials: that the study is to have.
        metric: its name.
    """

    def __init__(self, trials: int, metric: str) -> None:
        self.trials, self.metric = trials, metric
        self.started, self.done = time.monotonic(), 0

    def ended(self, study: Study, trial: FrozenTrial) -> None:
        """A trial of this worker ended."""
        self.done += 1
        every = study.get_trials(deepcopy=False)
        finished = count_trials(study)
        pruned = sum(t.state.name == "PRUNED" for t in every)
        best = best_of(study)
        # All workers together are as many times faster as they finished more than this one.
        per_trial = (time.monotonic() - self.started) / self.done
        left = max(self.trials - finished, 0) * per_trial
        value = f"{self.metric} {trial.values[0]:.4f}" if trial.state.name == "COMPLETE" else trial.state.name.lower()
        status = f" ({trial.user_attrs[STATUS]})" if trial.user_attrs.get(STATUS) else ""
        print(
            f"trial {trial.number}: {value}{status}  {finished} of {self.trials} done, {pruned} pruned, "
            f"best {'none yet' if best is None else f'{best.values[0]:.4f}'}, at most {left:.0f} s left",
            file=sys.stderr,
            flush=True,
        )
