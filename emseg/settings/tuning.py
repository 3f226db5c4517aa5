"""The part `tuning` of params.yaml: what `emseg tune run` searches."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from emseg.settings.base import DropoutRate, SettingsPart, ValidationMetric


class RangeSettings(SettingsPart):
    """Numbers from `low` to `high`."""

    low: float
    high: float
    step: float | None = Field(default=None, gt=0)
    log: bool = False

    @model_validator(mode="after")
    def _not_empty(self) -> RangeSettings:
        if self.low >= self.high:
            raise ValueError(f"low must be below high, not {self.low:g} and {self.high:g}")
        if self.log and (self.low <= 0 or self.step is not None):
            raise ValueError("a logarithmic range needs low above 0 and takes no step")
        return self


class SpaceSettings(SettingsPart):
    """What a study searches; what is absent stays as the model has it."""

    base_channels: RangeSettings | None = None
    depth: RangeSettings | None = None
    dropout: list[Literal["without", "reference"] | DropoutRate] | None = Field(default=None, min_length=1)
    """`without`: none; `reference`: the catalog's rates, which rise with depth; a number: that rate everywhere."""
    loss: list[Literal["bce", "weighted_bce", "bce_dice"]] | None = Field(default=None, min_length=1)
    dice_weight: RangeSettings | None = None
    """Searched only where the loss is bce_dice."""
    w0: RangeSettings | None = None
    """Searched only where the loss is weighted_bce; so is sigma."""
    sigma: RangeSettings | None = None
    learning_rate: RangeSettings | None = None
    weight_decay: RangeSettings | None = None
    augmentation_strength: RangeSettings | None = None
    """Needs fresh augmentation."""

    @model_validator(mode="after")
    def _something_to_search(self) -> SpaceSettings:
        if not self.model_dump(exclude_none=True):
            raise ValueError("the space is empty; name at least one of its settings")
        return self


class TuningSettings(SettingsPart):
    """A study: which model, how long, over what."""

    model: str
    metric: ValidationMetric
    trials: int = Field(ge=1, le=100_000)
    cost: Literal["gflop", "seconds"] | None
    """A second objective, which is to be small: GFLOP per crop and step, or seconds of training. With it there is
    a front of best trials instead of one, and none is pruned."""
    resource: Literal["epochs", "seconds"]
    """What pruning counts in: a trial's epochs, or its seconds of training."""
    minimum_resource: int = Field(ge=1)
    """Before a trial may be pruned; rungs of successive halving follow at multiples of 3. The trials a study starts
    with, the current settings and the reference paper's, are never pruned."""
    largest_gflop: float | None = Field(gt=0)
    """Per crop and step; larger networks are not trained."""
    space: SpaceSettings
