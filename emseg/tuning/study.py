"""A study: trials that train, are pruned and scored, by any number of workers on one storage."""

from __future__ import annotations

import json
import os
import socket
import time
import uuid
import warnings
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from emseg.data.labelled_sections import LabelledSections
from emseg.data.sources import Source
from emseg.errors import InputError, RunError
from emseg.files import is_alive
from emseg.inference import Predictor
from emseg.metrics.scoring import LOWER_IS_BETTER, is_collapsed, score_validation
from emseg.records.run import FAILED
from emseg.settings import LEAKING_PROTOCOLS, Settings, ValidationMetric
from emseg.text import plain, without_secrets
from emseg.training.distributed import available_device
from emseg.training.lineage import describe_lineage
from emseg.training.plan import RunPlan
from emseg.training.record import RunRecord
from emseg.training.run import train_model
from emseg.training.trainer import TrainingDiverged
from emseg.tuning.journal import mend_journal
from emseg.tuning.space import apply_point, check_space, starting_points, suggest

if TYPE_CHECKING:
    import optuna
    from optuna.trial import FrozenTrial

STUDIES = Path("runs/tuning")
_CREATION_ATTEMPTS = 3
_IDENTITY = "emseg.identity"
_WORKER = "worker "
_AGAIN = "again"
POINT = "point"
"""User attribute of a trial: its values by name."""
EPOCHS = "epochs"
"""User attribute of a trial: how many it trained."""
STATUS = "status"
"""User attribute of a trial: what became of it, where its state alone does not say."""


@dataclass(frozen=True)
class Events:
    """Who is told: `began(trial, point)`, `epoch(trial, row of its history)`, `ended(study, trial)`."""

    began: Callable[[optuna.Trial, dict[str, Any]], None] = lambda *_: None
    epoch: Callable[[optuna.Trial, dict[str, float]], None] = lambda *_: None
    ended: Callable[[optuna.Study, optuna.trial.FrozenTrial], None] = lambda *_: None


def open_study(
    settings: Settings, source: Source, name: str, storage_url: str | None = None, heartbeat_seconds: int = 30
) -> optuna.Study:
    """Create a study, or go on with it.

    Args:
        settings: params.yaml; its part `tuning` is the study.
        source: the labelled sections.
        name: of the study.
        storage_url: a database such as postgresql+psycopg://...; None: a journal below runs/tuning, for one machine.
        heartbeat_seconds: how often workers on a database say that they live; one that was silent three times as
            long is dead, and its trial is tried again.

    Raises:
        InputError: the settings cannot work, the study of this name searches something else, or the storage cannot be
            reached or written.
    """
    import optuna
    from optuna.exceptions import StorageInternalError
    from sqlalchemy.exc import SQLAlchemyError

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    if settings.protocol.name in LEAKING_PROTOCOLS:
        raise InputError("protocol.name is paper, which leaks; tune under heldout or kfold")
    check_space(settings, source)
    tuning = settings.tuning
    # Settings that workers of one study may differ in say nothing about what it searches.
    described = json.loads(tuning.model_dump_json(exclude={"trials"}, exclude_none=True))
    recipe = settings.recipe(tuning.model).model_dump(exclude_none=True)
    identity = {
        "tuning": described,
        "data": source.digest,
        "protocol": settings.protocol.model_dump(),
        "recipe": recipe,
    }
    try:
        study = _create(name, _open_storage(name, storage_url, heartbeat_seconds), settings)
    except (OSError, ImportError, SQLAlchemyError, StorageInternalError) as error:
        reason = plain(without_secrets(error))[:160]
        storage = without_secrets(storage_url or STUDIES / name)
        raise InputError(f"the storage {storage} cannot be used ({reason})") from error
    known = study.user_attrs.get(_IDENTITY)
    if known is None:
        study.set_user_attr(_IDENTITY, identity)
        for point in starting_points(settings):
            study.enqueue_trial(point, skip_if_exists=True)
    elif changed := [key for key in identity if json.loads(json.dumps(identity[key])) != known.get(key)]:
        raise InputError(
            f"study {name} was begun with another {', '.join(changed)}; go on with the old one, or choose a new "
            f"--name, such as {name}-2"
        )
    return study


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
    study.set_user_attr(f"{_WORKER}{uuid.uuid4().hex}", describe_lineage(available_device()))
    study.sampler = optuna.samplers.TPESampler(
        seed=int(np.random.SeedSequence((seed, len(workers))).generate_state(1)[0])
    )
    _free_trials_of_dead_workers(study)

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

    def stop_when_done(study: optuna.Study, _: FrozenTrial) -> None:
        if count_trials(study) >= settings.tuning.trials:
            study.stop()

    if count_trials(study) >= settings.tuning.trials:
        return
    study.optimize(
        objective,
        callbacks=[events.ended, stop_when_done],
        # Of a trial alone; anything else is a defect and must be seen.
        catch=(RunError, MemoryError, torch.OutOfMemoryError),
    )


def best_of(study: optuna.Study) -> FrozenTrial | None:
    """The complete trial with the best metric, whatever it costs; None before one is complete."""
    from optuna.trial import TrialState

    complete = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    choose = max if study.directions[0].name == "MAXIMIZE" else min
    return choose(complete, key=lambda trial: trial.values[0], default=None)


def count_trials(study: optuna.Study) -> int:
    """Finished trials; one that was tried again because its worker was killed counts once."""
    trials = study.get_trials(deepcopy=False)
    # Of a journal, and of a database.
    repeated = {trial.user_attrs.get(_AGAIN) for trial in trials}
    repeated.update(number for trial in trials for number in trial.system_attrs.get("retry_history", []))
    return sum(trial.state.is_finished() and trial.number not in repeated for trial in trials)


def workers_of(study: optuna.Study) -> list[dict[str, Any]]:
    """Commit, device and packages of every worker that has worked on a study."""
    return [value for key, value in study.user_attrs.items() if key.startswith(_WORKER)]


def score_network(predictor: Predictor, validation: LabelledSections, metric: ValidationMetric) -> float:
    """A metric on the validation sections."""
    probability = predictor.predict(validation.images, validation.numbers)
    return score_validation(probability, validation.labels, [metric])[metric]


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
    predictor = record.load_predictor(normalized=True)
    if is_collapsed(next(predictor.stream(plan.validation.images[:1]))[None]):
        trial.set_user_attr(STATUS, "collapsed")
    quality = score_network(predictor, plan.validation, tuning.metric)
    if tuning.cost is None:
        return (quality,)
    return quality, size if tuning.cost == "gflop" else record.read()["training_seconds"]


def _open_storage(name: str, url: str | None, heartbeat_seconds: int) -> Any:
    import optuna
    from optuna.exceptions import StorageInternalError
    from optuna.storages.journal import JournalFileBackend
    from sqlalchemy.exc import SQLAlchemyError

    if url is None:
        (STUDIES / name).mkdir(parents=True, exist_ok=True)
        mend_journal(STUDIES / name / "journal.log")
        return optuna.storages.JournalStorage(JournalFileBackend(str(STUDIES / name / "journal.log")))
    # Workers that start together on an empty database stumble over each other's tables; the next try finds them.
    for _ in range(_CREATION_ATTEMPTS - 1):
        with suppress(SQLAlchemyError, StorageInternalError):
            return _database(url, heartbeat_seconds)
        time.sleep(1)
    return _database(url, heartbeat_seconds)


def _database(url: str, heartbeat_seconds: int) -> Any:
    import optuna
    from optuna.exceptions import ExperimentalWarning

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)  # the heartbeat
        return optuna.storages.RDBStorage(
            url,
            heartbeat_interval=heartbeat_seconds,
            grace_period=3 * heartbeat_seconds,
            heartbeat_stale_trial_callback=optuna.storages.RetryHeartbeatStaleTrialCallback(max_retry=2),
        )


def _create(name: str, storage: Any, settings: Settings) -> optuna.Study:
    import optuna

    tuning = settings.tuning
    directions = ["minimize" if tuning.metric in LOWER_IS_BETTER else "maximize"]
    return optuna.create_study(
        study_name=name,
        storage=storage,
        pruner=optuna.pruners.SuccessiveHalvingPruner(
            min_resource=tuning.minimum_resource, reduction_factor=3, min_early_stopping_rate=0
        ),
        directions=directions if tuning.cost is None else [*directions, "minimize"],
        load_if_exists=True,
    )


def _free_trials_of_dead_workers(study: optuna.Study) -> None:
    """Give up trials whose worker was killed on this machine, and put them back in the queue.

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
            study.tell(trial.number, state=TrialState.FAIL)
            study.enqueue_trial(trial.params, user_attrs={_AGAIN: trial.number})
