"""What record.json must hold."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from emseg.settings import (
    AugmentedSetSettings,
    NetworkSettings,
    ProtocolName,
    ProtocolSettings,
    RecipeSettings,
    WeightMapSettings,
)

RUNNING, FINISHED, FAILED = "running", "finished", "failed"
Digest = Field(pattern=r"^([0-9a-f]{32}|none)$")


class _Part(BaseModel):
    model_config = ConfigDict(extra="allow", strict=True, allow_inf_nan=False)


class SettingsOfRun(_Part):
    """The part of params.yaml that decides the weights."""

    architecture: str = Field(min_length=1)
    network: NetworkSettings
    loss: Literal["bce", "weighted_bce", "bce_dice"]
    dice_weight: float
    weight_map: WeightMapSettings | None
    training: RecipeSettings
    protocol: ProtocolSettings
    augment: AugmentedSetSettings


class NormalizationOfRun(_Part):
    """Grey levels that become 0 and 1."""

    low: float
    high: float


class SplitOfRun(_Part):
    """Section numbers; under `paper` those of `test` are numbers of augmented images."""

    training: list[int]
    validation: list[int]
    test: list[int]


class Lineage(_Part):
    """Where the run was made."""

    git_commit: str | None = Field(pattern=r"^[0-9a-f]{7,64}$")
    git_dirty: bool
    dvc: dict[str, str]
    code_digest: str = Digest
    packages: dict[str, str]
    device: str
    threads: int


class Run(_Part):
    """record.json: identity, settings, lineage and state of one training run."""

    id: str = Field(pattern=r"^[0-9a-f]{32}$")
    fingerprint: str = Digest
    status: Literal["running", "finished", "failed"]
    message: str | None
    resumed: int
    created: str
    finished: str | None
    model: str = Field(min_length=1, max_length=200)
    """A lab names its models as it likes; who shows the name makes it inert."""
    dataset: str = Field(pattern=r"^[\w.-]{1,100}$")
    protocol: ProtocolName
    fold: int = Field(ge=0)
    seed: int = Field(ge=0)
    data_digest: str = Digest
    augmented_digest: str = Digest
    code_digest: str = Digest
    maximum_steps: int | None
    settings: SettingsOfRun
    parameters: int
    flop_per_crop: int
    normalization: NormalizationOfRun
    grey_levels: dict[str, float]
    split: SplitOfRun
    lineage: Lineage

    best_epoch: int | None = None
    epochs: int | None = None
    collapsed: bool | None = None
    seconds_per_epoch: float | None = None
    training_seconds: float | None = None
    images_seen: int | None = None
    weights_sha256: str | None = Field(default=None, pattern=r"^[0-9a-f]{64}$")
    """None in records of before it was noted."""
    profile: str | None = None
    variation: str | None = None

    @model_validator(mode="after")
    def _whole_when_finished(self) -> Run:
        if self.status == FINISHED and (missing := [key for key in _OF_FINISHED if getattr(self, key) is None]):
            raise ValueError(f"finished without {', '.join(missing)}")
        return self


_OF_FINISHED = ("best_epoch", "epochs", "collapsed", "seconds_per_epoch", "training_seconds", "images_seen")


_MADE_FROM = ("id", "fingerprint", "weights_sha256", "data_digest", "augmented_digest", "split")


def made_from(facts: dict[str, Any]) -> dict[str, Any]:
    """What scores and thresholds name, so that they cannot pass for those of other weights or data.

    Args:
        facts: record.json.
    """
    return {key: facts.get(key) for key in _MADE_FROM}
