"""A worker: trials that train, are pruned and scored, until the study has enough; others may share it."""

from __future__ import annotations

import os
import socket
import uuid
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from emseg.data.labelled_sections import LabelledSections
from emseg.data.sources import Source
from emseg.errors import RunError
from emseg.files import is_alive
from emseg.inference import Predictor
from emseg.inference.device import available_device, device_name
from emseg.inference.trained import load_predictor
from emseg.metrics.scoring import is_collapsed, score_validation
from emseg.records.lineage import describe_lineage
from emseg.records.record import RunRecord
from emseg.records.run import FAILED
from emseg.settings import Settings, ValidationMetric
from emseg.training.plan import RunPlan
from emseg.training.run import train_model
from emseg.training.trainer import TrainingDiverged
from emseg.tuning.space import apply_point, starting_points, suggest
from emseg.tuning.storage import STUDIES
from emseg.tuning.study import AGAIN, EPOCHS, POINT, STATUS, WORKER, count_trials, workers_of

if TYPE_CHECKING:
    import optuna
    from optuna.trial import FrozenTrial


@dataclass(frozen=True)
class Events:
    """Who is told: `began(trial, point)`, `epoch(trial, row of its history)`, `ended(study, trial)`."""

    began: Callable[[optuna.Trial, dict[str, Any]], None] = lambda *_: None
    epoch: Callable[[optuna.Trial, dict[str, float]], None] = lambda *_: None
    ended: Callable[[optuna.Study, optuna.trial.FrozenTrial], None] = lambda *_: None


def run_worker(
    study: optuna.Study,
    settings: Settings,
    source: Source,
    events: Events,
    seed: int = 0,
) -> None:
    """Work on a study until it has as many finished trials as the settings ask for.

    Args:
        study: of `open_study`.
        settings: the same.
        source: the same.
        events: told about trials.
        seed: of the sampler, together with the number of workers before this one, and of every training.
    """
    import optuna

    plan = RunPlan(settings.tuning.model, settings.protocol.folds[0], seed, settings, source)
    _ = plan.augmented  # made once, for every trial
    starts = starting_points(settings)
    workers = workers_of(study)
    worker = describe_lineage(device_name(available_device()), torch.get_num_threads(), plan.networks)
    study.set_user_attr(f"{WORKER}{uuid.uuid4().hex}", worker.model_dump(mode="json"))
    study.sampler = optuna.samplers.TPESampler(
        seed=int(np.random.SeedSequence((seed, len(workers))).generate_state(1)[0])
    )

    def is_done() -> bool:
        return count_trials(study) >= settings.tuning.trials

    _give_up_trials_of_dead_workers(study, again=not is_done())

    def objective(trial: optuna.Trial) -> tuple[float, ...]:
        trial.set_user_attr("worker", {"host": socket.gethostname(), "process": os.getpid()})
        point = suggest(trial, settings.tuning.space)
        trial.set_user_attr(POINT, point)
        own = plan.changed(settings=apply_point(settings, point))
        record = RunRecord(STUDIES / study.study_name / f"trial-{trial.number:04d}" / "training")
        events.began(trial, point)
        # A start that is pruned might have been better than all that come after it.
        may_prune = point not in starts
        return _train_and_score(trial, own, record, events, may_prune)

    def look_around(study: optuna.Study, _: FrozenTrial) -> None:
        _give_up_trials_of_dead_workers(study, again=not is_done())
        if is_done():
            study.stop()

    if is_done():
        return
    study.optimize(
        objective,
        callbacks=[events.ended, look_around],
        # Of a trial alone; anything else is a defect and must be seen.
        catch=(RunError, MemoryError, torch.OutOfMemoryError),
    )


def score_network(predictor: Predictor, validation: LabelledSections, metric: ValidationMetric) -> float:
    """A metric on the validation sections."""
    probability = predictor.predict(validation.images, validation.places)
    return score_validation(probability, metrics=[metric], **validation.for_metrics)[metric]


def _train_and_score(
    trial: optuna.Trial,
    plan: RunPlan,
    record: RunRecord,
    events: Events,
    may_prune: bool,
) -> tuple[float, ...]:
    import optuna

    tuning, size = plan.settings.tuning, plan.flop_per_crop / 1e9
    if tuning.largest_gflop is not None and size > tuning.largest_gflop:
        trial.set_user_attr(STATUS, f"too large: {size:.1f} GFLOP per crop")
        raise optuna.TrialPruned
    epochs, seconds, reported = 0, 0.0, -1

    def after_epoch(own: RunRecord) -> None:
        nonlocal epochs, seconds, reported
        for row in own.history()[epochs:]:
            epochs, seconds = epochs + 1, seconds + row["seconds"]
            trial.set_user_attr(EPOCHS, epochs)
            events.epoch(trial, row)
            spent = epochs if tuning.resource == "epochs" else round(seconds)
            # Optuna prunes by one objective only, and takes one value per unit of the resource.
            if tuning.cost is not None or spent == reported:
                continue
            reported = spent
            trial.report(row[f"validation_{tuning.metric}"], spent)
            # Asked of every trial, since that is how the others are compared with it.
            if trial.should_prune() and may_prune and epochs < plan.recipe.epochs:
                raise optuna.TrialPruned

    try:
        train_model(plan, record.folder, replace_finished=True, after_epoch=after_epoch)
    except optuna.TrialPruned:
        record.update(status=FAILED, message="pruned")
        raise
    except TrainingDiverged:
        trial.set_user_attr(STATUS, "diverged")
        raise
    except (MemoryError, torch.OutOfMemoryError):
        trial.set_user_attr(STATUS, "out of memory")
        raise
    predictor = load_predictor(record, normalized=True)
    if is_collapsed(next(predictor.stream(plan.validation.images[:1]))[None]):
        trial.set_user_attr(STATUS, "collapsed")
    quality = score_network(predictor, plan.validation, tuning.metric)
    if tuning.cost is None:
        return (quality,)
    return quality, size if tuning.cost == "gflop" else record.read().outcome.training_seconds


def _give_up_trials_of_dead_workers(study: optuna.Study, again: bool) -> None:
    """Fail trials whose worker was killed on this machine; `again`: and put them back in the queue.

    A database has a heartbeat for this; a journal has none.
    """
    from optuna.storages import JournalStorage
    from optuna.trial import TrialState

    if not isinstance(study._storage, JournalStorage):
        return
    for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        worker = trial.user_attrs.get("worker", {})
        if worker.get("host") != socket.gethostname() or is_alive(worker["process"]):
            continue
        with suppress(ValueError, RuntimeError):  # another worker was faster
            study._storage.set_trial_user_attr(trial._trial_id, STATUS, "its worker was killed")
            study.tell(trial.number, state=TrialState.FAIL)
            if again:
                study.enqueue_trial(trial.params, user_attrs={AGAIN: trial.number})
