"""From a trial to settings: what is searched, and the settings that stand at the start of every study."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from emseg.errors import InputError
from emseg.settings import RangeSettings, Settings, SpaceSettings, validate_settings
from emseg.training.plan import RunPlan, check_plans

if TYPE_CHECKING:
    from optuna import Trial

    from emseg.data.sources import Source

_WHOLE = ("base_channels", "depth")
_LOSS_OF = {"w0": "weighted_bce", "sigma": "weighted_bce", "dice_weight": "bce_dice"}
"""Parameters that one loss alone has."""
_REFERENCE = (
    {"loss": "bce", "dropout": "without"},
    {"loss": "weighted_bce", "dropout": "reference", "w0": 10.0, "sigma": 5.0},
    {"loss": "bce", "dropout": "reference"},
    {"loss": "bce_dice", "dropout": "reference", "dice_weight": 1.0},
)
"""What the reference paper's four models (unet1, weighted_unet, dmcn, unet2) chose of what can be searched."""


def suggest(trial: Trial, space: SpaceSettings) -> dict[str, Any]:
    """Draw one point of the space; what belongs to one loss alone only where that is drawn."""
    drawn: dict[str, Any] = {}
    for name, values in space.model_dump(exclude_none=True).items():
        if name in _LOSS_OF:
            continue
        if isinstance(values, list):
            drawn[name] = trial.suggest_categorical(name, values)
        else:
            drawn[name] = _draw(trial, name, getattr(space, name))
    for name, loss in _LOSS_OF.items():
        # Without a choice of losses the model's own is the one that they belong to.
        if (values := getattr(space, name)) is not None and drawn.get("loss", loss) == loss:
            drawn[name] = _draw(trial, name, values)
    return drawn


def apply_point(settings: Settings, point: dict[str, Any], name: str | None = None) -> Settings:
    """Settings whose tuned model has the values of a point.

    Args:
        settings: params.yaml.
        point: values by name, as `suggest` drew them.
        name: of the model that gets them; None changes the tuned model itself.

    Raises:
        InputError: values that do not fit together.
    """
    return validate_settings(point_values(settings, point, name), "tuning.space: ")


def point_values(settings: Settings, point: dict[str, Any], name: str | None = None) -> dict[str, Any]:
    """`apply_point` as plain values."""
    values = settings.model_dump()
    model = settings.tuning.model
    entry = settings.models[model].model_dump(exclude_none=True)
    entry.setdefault("network", {})
    entry.setdefault("training", {})
    if name is not None:
        entry.setdefault("architecture", model)
    for key in ("base_channels", "depth"):
        if key in point:
            entry["network"][key] = int(point[key])
    if "dropout" in point:
        entry["network"].pop("dropout", None)
        if point["dropout"] != "reference":
            entry["network"]["dropout"] = 0.0 if point["dropout"] == "without" else float(point["dropout"])
    for key in ("learning_rate", "weight_decay", "augmentation_strength"):
        if key in point:
            entry["training"][key] = float(point[key])
    # The epoch that is kept, and what pruning looks at, are judged by what is searched for.
    entry["training"]["select_metric"] = settings.tuning.metric
    entry["loss"] = point.get("loss", entry["loss"])
    if "dice_weight" in point:
        entry["dice_weight"] = float(point["dice_weight"])
    entry.pop("weight_map", None)
    if entry["loss"] == "weighted_bce":
        shared = settings.weight_map.model_dump()
        entry["weight_map"] = shared | {key: float(point[key]) for key in ("w0", "sigma") if key in point}
    target = name or model
    values["models"] = {target: entry}
    values["benchmark"] = [target]
    values["tuning"]["model"] = target
    return values


def starting_points(settings: Settings) -> list[dict[str, Any]]:
    """The model's current settings, then the reference paper's, as far as the space holds them."""
    space = settings.tuning.space
    entry = settings.models[settings.tuning.model]
    recipe = settings.recipe(settings.tuning.model)
    dropout = entry.network.dropout
    current: dict[str, Any] = {
        "base_channels": entry.network.base_channels,
        "depth": entry.network.depth,
        "dropout": "reference" if dropout is None else "without" if dropout == 0 else dropout,
        "loss": entry.loss,
        "dice_weight": entry.dice_weight,
        "learning_rate": recipe.learning_rate,
        "weight_decay": recipe.weight_decay,
        "augmentation_strength": recipe.augmentation_strength,
        **(entry.weight_map or settings.weight_map).model_dump(),
    }
    points: list[dict[str, Any]] = []
    for point in (current, *(current | chosen for chosen in _REFERENCE)):
        held = {name: value for name, value in point.items() if _holds(space, name, value)}
        loss = held.get("loss", entry.loss)
        held = {name: value for name, value in held.items() if _LOSS_OF.get(name, loss) == loss}
        if held and held not in points:
            points.append(held)
    return points


def check_space(settings: Settings, source: Source) -> None:
    """Refuse a space that cannot work, before any trial.

    Raises:
        InputError: names the key.
    """
    space, model = settings.tuning.space, settings.tuning.model
    recipe = settings.recipe(model)
    if space.augmentation_strength and recipe.augmentation != "fresh":
        raise InputError(
            f"tuning.space.augmentation_strength needs models.{model}.training.augmentation: fresh, "
            f"not {recipe.augmentation}: stored images are warped once"
        )
    losses = space.loss or [settings.models[model].loss]
    for name, loss in _LOSS_OF.items():
        if getattr(space, name) and loss not in losses:
            raise InputError(f"tuning.space.{name} needs {loss} among the losses")
    for name in _WHOLE:
        values = getattr(space, name)
        if values is not None and any(value != int(value) for value in (values.low, values.high, values.step or 1)):
            raise InputError(f"tuning.space.{name} takes whole numbers")
    for point in _extremes(space):
        check_plans(apply_point(settings, point), source, [model])


def _extremes(space: SpaceSettings) -> list[dict[str, Any]]:
    """Points that hold, one by one, every value a network may fail to be built or trained with."""
    ends = {name: (values.low, values.high) for name in _WHOLE if (values := getattr(space, name)) is not None}
    smallest = {name: low for name, (low, _) in ends.items()}
    # Every depth: one of 'valid' padding takes other crops than the next.
    depths = range(int(ends["depth"][0]), int(ends["depth"][1]) + 1) if "depth" in ends else []
    step = int(space.depth.step or 1) if space.depth else 1
    return [
        smallest,
        *({**smallest, name: high} for name, (_, high) in ends.items()),
        *({**smallest, "depth": depth} for depth in depths[::step]),
    ]


def gflop(settings: Settings, source: Source) -> float:
    """GFLOP of one crop, forward and backward, with the tuned model's network."""
    plan = RunPlan(settings.tuning.model, settings.protocol.folds[0], 0, settings, source)
    return plan.flop_per_crop / 1e9


def _draw(trial: Trial, name: str, values: RangeSettings) -> float:
    if name in _WHOLE:
        return trial.suggest_int(name, int(values.low), int(values.high), step=int(values.step or 1))
    return trial.suggest_float(name, values.low, values.high, step=values.step, log=values.log)


def _holds(space: SpaceSettings, name: str, value: Any) -> bool:
    values = getattr(space, name, None)
    if values is None or value is None:
        return False
    if isinstance(values, RangeSettings):
        steps = (value - values.low) / (values.step or 1)
        on_grid = values.step is None or math.isclose(steps, round(steps), abs_tol=1e-8)
        return values.low <= value <= values.high and on_grid
    return value in values
