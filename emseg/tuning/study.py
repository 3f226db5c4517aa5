"""A study: opened or gone on with, and what its trials say."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from emseg.data.sources import Source
from emseg.errors import InputError
from emseg.metrics.scoring import LOWER_IS_BETTER
from emseg.models.own import origin_of
from emseg.records.run import Lineage
from emseg.settings import LEAKING_PROTOCOLS, Settings
from emseg.settings.base import validated
from emseg.tuning.space import check_space, starting_points
from emseg.tuning.storage import journal_of, opened_storage

if TYPE_CHECKING:
    import optuna
    from optuna.trial import FrozenTrial

_IDENTITY = "emseg.identity"
WORKER = "worker "
"""User attributes of a study that begin with it: lineage of a worker."""
AGAIN = "again"
"""User attribute of a trial: number of the one that it is in place of, whose worker was killed."""
POINT = "point"
"""User attribute of a trial: its values by name."""
EPOCHS = "epochs"
"""User attribute of a trial: how many it trained."""
STATUS = "status"
"""User attribute of a trial: what became of it, where its state alone does not say."""


def open_study(
    settings: Settings,
    source: Source,
    name: str | None = None,
    storage_url: str | None = None,
    heartbeat_seconds: int = 30,
    must_exist: bool = False,
) -> optuna.Study:
    """Create a study, or go on with it.

    Args:
        settings: params.yaml; its part `tuning` is the study.
        source: the labelled sections.
        name: of the study; None: DATA-MODEL.
        storage_url: a database such as postgresql+psycopg://...; None: a journal below runs/tuning, for one machine.
        heartbeat_seconds: how often workers on a database say that they live; one that was silent three times as
            long is dead, and its trial is tried again.
        must_exist: create nothing.

    Raises:
        InputError: the settings cannot work, the study of this name searches something else, the storage cannot be
            reached or written, or there is no such study and there must be.
    """
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    name = name or f"{source.name}-{settings.tuning.model}"
    if settings.protocol.name in LEAKING_PROTOCOLS:
        raise InputError("protocol.name is paper, which leaks; tune under heldout, kfold or leave_one_stack_out")
    check_space(settings, source)
    unknown = f"there is no study {name} {'in that storage' if storage_url else 'here'}; begin it with `emseg tune run`"
    if must_exist and storage_url is None and not journal_of(name).is_file():
        raise InputError(unknown)
    with opened_storage(name, storage_url, heartbeat_seconds) as storage:
        if must_exist and name not in optuna.get_all_study_names(storage):
            raise InputError(unknown)
        study = _create(name, storage, settings)
    identity, known = _identity(settings, source), study.user_attrs.get(_IDENTITY)
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


def best_of(study: optuna.Study) -> FrozenTrial | None:
    """The complete trial with the best metric, whatever it costs; None before one is complete."""
    from optuna.trial import TrialState

    complete = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    choose = max if study.directions[0].name == "MAXIMIZE" else min
    return choose(complete, key=lambda trial: trial.values[0], default=None)


def require_best(study: optuna.Study) -> FrozenTrial:
    """`best_of` where there must be one.

    Raises:
        InputError: no trial is complete.
    """
    best = best_of(study)
    if best is None:
        raise InputError(f"study {study.study_name} has no complete trial yet; run `emseg tune run`")
    return best


def count_trials(study: optuna.Study) -> int:
    """Finished trials; one that was tried again because its worker was killed counts once."""
    trials = study.get_trials(deepcopy=False)
    # Of a journal, and of a database.
    repeated = {trial.user_attrs.get(AGAIN) for trial in trials}
    repeated.update(number for trial in trials for number in trial.system_attrs.get("retry_history", []))
    return sum(trial.state.is_finished() and trial.number not in repeated for trial in trials)


def workers_of(study: optuna.Study) -> list[Lineage]:
    """Commit, device and packages of every worker that has worked on a study.

    Raises:
        InputError: the storage holds something else under their names.
    """
    where = f"the storage of study {study.study_name}: "
    described = {key: value for key, value in study.user_attrs.items() if key.startswith(WORKER)}
    return [validated(Lineage, value, f"{where}{key}.") for key, value in described.items()]


def _identity(settings: Settings, source: Source) -> dict[str, Any]:
    tuning = settings.tuning
    networks = origin_of(settings.models[tuning.model].architecture or tuning.model)
    return {
        # Settings that workers of one study may differ in say nothing about what it searches.
        "tuning": json.loads(tuning.model_dump_json(exclude={"trials"}, exclude_none=True)),
        "data": source.digest,
        "protocol": settings.protocol.model_dump(),
        "recipe": settings.recipe(tuning.model).model_dump(exclude_none=True),
        **({"networks": networks.sha256} if networks else {}),
    }


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
