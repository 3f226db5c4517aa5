"""params.yaml as typed, validated settings; unknown keys and wrong types are errors that name the key."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final, Literal, get_args

from pydantic import Field, model_validator

from emseg.errors import InputError
from emseg.settings.base import (
    DATA_NAME,
    LARGEST_SEED,
    DropoutRate,
    Name,
    Seed,
    SettingsPart,
    ValidationMetric,
    validated,
)
from emseg.settings.file import assign, read_yaml
from emseg.settings.tuning import TuningSettings

ProtocolName = Literal["paper", "heldout", "kfold", "leave_one_stack_out", "official"]
PROTOCOLS: tuple[str, ...] = get_args(ProtocolName)
CellMethod = Literal["threshold", "agglomeration"]
PromotionMetric = Literal["v_rand", "v_info", "iou", "dice", "pixel_error", "warping_error"]
LEAKING_PROTOCOLS = ("paper",)
"""Protocols whose test images are warped copies of training sections: upper bounds, not generalisation."""
TRANSFER: Final = "transfer"
"""What scores on another dataset than the one trained on have for a protocol. No run is trained under it."""


LabelsAs = Literal["cells", "interior"]


class DataSettings(SettingsPart):
    """Which labelled sections."""

    source: str = Field(pattern=DATA_NAME)
    labels: LabelsAs | None = None
    """How cells count: by number, as connected parts of the interior, or, None, as they were brought in."""


class ProtocolSettings(SettingsPart):
    """How sections are divided between training, validation and test."""

    name: ProtocolName
    held_out: int = Field(ge=1)
    """`heldout`: how many sections are tested on, at the end of each stack in proportion to its length."""
    validation: int = Field(ge=1)
    """How many sections choose the checkpoint, at the end of what trains of each stack, in proportion to its length."""
    blocks: int = Field(ge=2, le=1000)
    """`kfold`: into how many contiguous blocks each stack is cut."""
    folds: list[int] = Field(min_length=1)
    """Which folds are run: of `kfold` the blocks, of `leave_one_stack_out` the stacks, each from 0; else [0]."""

    @model_validator(mode="after")
    def _folds_exist(self) -> ProtocolSettings:
        # How many stacks there are is not known before the sections.
        limit = {"kfold": self.blocks, "leave_one_stack_out": None}.get(self.name, 1)
        is_one = [fold >= 0 and (limit is None or fold < limit) for fold in self.folds]
        if not all(is_one) or len(set(self.folds)) < len(self.folds):
            last = "on" if limit is None else f"to {limit - 1}"
            allowed = "[0]" if limit == 1 else f"different numbers from 0 {last}"
            raise ValueError(f"folds must be {allowed} under protocol {self.name}")
        return self


class AugmentSettings(SettingsPart):
    """The random warp and the intensity jitter of one image; 0 turns a term off."""

    rotation: float = Field(default=90.0, ge=0, le=180)
    """Degrees, drawn from +-rotation."""
    shift: float = Field(default=0.05, ge=0, le=0.5)
    """Share of the side, each axis."""
    shear: float = Field(default=30.0, ge=0, lt=80)
    """Degrees."""
    zoom: float = Field(default=0.05, ge=0, lt=0.9)
    """Share, each axis."""
    flip: bool = True
    """Flip each axis with probability one half."""
    elastic_amplitude: float = Field(default=0.0, ge=0, le=100)
    """Standard deviation of the displacement, pixels."""
    elastic_spacing: float = Field(default=64.0, ge=4)
    """Distance between the control points of the displacement, pixels."""
    brightness: float = Field(default=0.0, ge=0, le=1)
    """Added to the image, in units of its [0, 1] range."""
    contrast: float = Field(default=0.0, ge=0, lt=1)
    """Relative change of contrast around the image's mean."""


class AugmentedSetSettings(AugmentSettings):
    """The augmented set that DVC versions."""

    count: int = Field(ge=1, le=100_000)
    seed: Seed
    separation_limit: float = Field(ge=1, le=200)
    """d1 + d2 is stored up to this distance, pixels."""


class WeightMapSettings(SettingsPart):
    """w(x) = w_c(x) + w0 exp(-(d1 + d2)^2 / (2 sigma^2))."""

    w0: float = Field(ge=0)
    sigma: float = Field(gt=0)
    """Pixels."""
    calibrated: bool = False
    """Whether a probability of one half stays one half under the weights; without, membranes come out thicker."""


class NetworkSettings(SettingsPart):
    """Changes to the catalog's layout; what is absent stays as the catalog has it."""

    base_channels: int | None = Field(default=None, ge=1, le=512)
    depth: int | None = Field(default=None, ge=1, le=8)
    dropout: DropoutRate | list[DropoutRate] | None = None
    padding: Literal["same", "valid"] | None = None
    normalization: Literal["batch", "none"] | None = None
    neighbours: int | None = Field(default=None, ge=0, le=3)
    """Sections before and after the one that is segmented that the network sees too, as channels. Residual U-Nets only;
    needs fresh augmentation, since augmented images have no neighbours."""

    def overrides(self) -> dict[str, Any]:
        """The settings that were given, as keyword arguments of `build_model`."""
        return self.model_dump(exclude_none=True)


class EarlyStoppingSettings(SettingsPart):
    """Stop when a metric has not improved for `patience` epochs."""

    metric: Literal["train_loss"] | ValidationMetric
    patience: int = Field(ge=1)


class RecipeSettings(SettingsPart):
    """How a network is trained."""

    optimizer: Literal["adam", "adamw", "muon"]
    """muon: of the kernels of convolutions, with AdamW for the rest (`emseg.training.optimizers`)."""
    learning_rate: float = Field(gt=0)
    weight_decay: float = Field(ge=0)
    schedule: Literal["constant", "cosine"]
    warmup_epochs: float = Field(ge=0)
    epochs: int = Field(ge=1, le=100_000)
    budget_minutes: float | None = Field(gt=0)
    """Stop after so much training time, with the schedule fitted to it; null: after `epochs`, whatever they take."""
    augmentation: Literal["stored", "fresh"]
    """Crops of the augmented images that DVC versions, or crops of the sections themselves, each warped anew."""
    augmentation_strength: float = Field(gt=0, le=10)
    """Of fresh augmentation: its ranges are multiplied by this."""
    weight_average: float = Field(ge=0, lt=1)
    """Share that a step keeps of the running mean of the weights, which is validated and kept; 0: no mean."""
    images_per_epoch: int = Field(ge=1, le=1_000_000)
    batch: int = Field(ge=1, le=4096)
    micro_batch: int | None = Field(ge=1, le=4096)
    """Images that go through the network at once; gradients of a batch are accumulated. null: the batch."""
    precision: Literal["auto", "float32", "bfloat16"]
    """Of training and prediction; auto: bfloat16 where the device has instructions for it."""
    crop: int | None = Field(ge=8)
    """Side of the label crop, pixels; null: the whole section."""
    positions: Literal["random", "corners"]
    """Where crops are taken: anywhere, or at the four corners as the reference paper cut its tiles."""
    symmetries: bool
    """Turn and mirror every crop by a random one of the 8 symmetries of the square."""
    gradient_clip: float | None = Field(gt=0)
    early_stopping: EarlyStoppingSettings | None
    select: Literal["best", "last"]
    """Which weights are kept: of the best epoch on the validation sections, or of the last epoch."""
    select_metric: ValidationMetric
    prediction: Literal["auto", "overlap_tile", "average", "resize"]
    test_time_augmentation: bool
    cells: CellMethod
    """Cells are the components above a threshold, or regions merged by a rule that is learned on the training sections
    (`emseg.segmentation.agglomeration`). Images of protocol `paper` have no neighbours: there always by threshold."""


class ModelSettings(SettingsPart):
    """One model of the benchmark: what differs from the catalog and from `training`."""

    architecture: str | None = None
    """The catalog's name of the network, where the model goes by another one, such as `tuned`."""
    loss: Literal["bce", "weighted_bce", "bce_dice"]
    dice_weight: float = Field(default=1.0, ge=0)
    """Of Dice beside half the cross-entropy in bce_dice; the reference paper's is 1."""
    weight_map: WeightMapSettings | None = None
    """Of weighted_bce; keys that are absent are those of the shared `weight_map`."""
    network: NetworkSettings = NetworkSettings()
    """What differs from the catalog's layout."""
    training: dict[str, Any] = Field(default={})
    """What differs from the shared `training`."""

    @model_validator(mode="after")
    def _weight_map_where_used(self) -> ModelSettings:
        if (self.loss == "weighted_bce") != (self.weight_map is not None):
            raise ValueError("weight_map goes with loss weighted_bce, and only with it")
        return self


class PromotionSettings(SettingsPart):
    """The rule by which a version becomes champion."""

    metric: PromotionMetric
    minimum_gain: float = Field(ge=0)
    """By which the metric must better the champion's, with `confidence`."""
    confidence: float = Field(gt=0.5, lt=1)
    """Of the paired bootstrap interval over sections and seeds."""
    not_worse: dict[PromotionMetric, float]
    """Other metrics, and by how much each may be worse than the champion's."""
    minimum_sections: int = Field(ge=1)
    """On which the version and the champion are compared."""
    minimum_seeds: int = Field(ge=1)
    """Seeds with which the same recipe was trained and registered."""
    clean_git: bool
    """Refuse versions trained with uncommitted changes."""


class Settings(SettingsPart):
    """Everything in params.yaml."""

    code: str | None = Field(default=None, pattern=r"^[\w -]+(/[\w -]+)*\.py$")
    """A Python file of the project, from the folder where commands run, that registers networks of its own."""
    task: str | None = Field(default=None, pattern=DATA_NAME, max_length=100)
    """What its runs are published as versions of, and so whose champion they can become; null: the dataset's name."""
    data: DataSettings
    protocol: ProtocolSettings
    augment: AugmentedSetSettings
    weight_map: WeightMapSettings
    """Of every model with loss weighted_bce; `models.NAME.weight_map` changes single keys."""
    seeds: list[Seed] = Field(min_length=1)
    """Every model of the benchmark is trained once per fold and seed."""
    training: RecipeSettings
    """Of every model; `models.NAME.training` changes single keys."""
    promotion: PromotionSettings
    tuning: TuningSettings
    benchmark: list[str] = Field(min_length=1)
    """Names under `models` that `dvc repro` trains."""
    models: dict[Name, ModelSettings]
    """By the name they go by: a network of the catalog, or one with `architecture`."""

    @model_validator(mode="before")
    @classmethod
    def _weight_maps_inherited(cls, values: Any) -> Any:
        """What a model's weight map does not say, the shared one does."""
        if not isinstance(values, dict) or not isinstance(values.get("models"), dict):
            return values
        shared, models = values.get("weight_map"), dict(values["models"])
        for name, entry in models.items():
            if isinstance(entry, dict) and entry.get("loss") == "weighted_bce" and isinstance(shared, dict):
                own = entry.get("weight_map")
                if own is None or isinstance(own, dict):
                    models[name] = entry | {"weight_map": shared | (own or {})}
        return values | {"models": models}

    @model_validator(mode="after")
    def _consistent(self) -> Settings:
        for key in ("seeds", "benchmark"):
            values = getattr(self, key)
            if twice := [value for value in values if values.count(value) > 1]:
                raise ValueError(f"{key} names {twice[0]} twice")
        for name in self.benchmark:
            if name not in self.models:
                raise ValueError(f"benchmark names {name}, which has no entry under models")
        if self.tuning.model not in self.models:
            raise ValueError(f"tuning.model is {self.tuning.model}, which has no entry under models")
        for name in self.models:
            self.recipe(name)
        return self

    def recipe(self, model: str) -> RecipeSettings:
        """`training` with the changes of one model.

        Raises:
            InputError: the model has no entry, or one of its training keys is unknown or wrong.
        """
        if model not in self.models:
            raise InputError(f"no model {model} under models; there are {', '.join(self.models)}")
        return validated(
            RecipeSettings,
            self.training.model_dump() | self.models[model].training,
            f"models.{model}.training.",
        )


def load_settings(path: str | Path = "params.yaml", assignments: list[str] | None = None) -> Settings:
    """Read and validate params.yaml; `assignments` such as `training.epochs=2` change single keys.

    Raises:
        InputError: the file is missing or not YAML, or a key is unknown, missing, or of the wrong type.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path} does not exist; run this where params.yaml is")
    values = read_yaml(path)
    for assignment in assignments or []:
        assign(values, assignment)
    return validate_settings(values, f"{path} with --set: " if assignments else f"{path}: ")


def check_seed(seed: int) -> None:
    """Refuse what is no seed.

    Raises:
        InputError: it is below 0 or above `LARGEST_SEED`.
    """
    if not 0 <= seed <= LARGEST_SEED:
        raise InputError(f"--seed is a whole number from 0 to {LARGEST_SEED}, not {seed}")


def validate_settings(values: dict[str, Any], where: str) -> Settings:
    """Settings from plain values.

    Raises:
        InputError: a key is unknown, missing, or of the wrong type; the sentence begins with `where`.
    """
    return validated(Settings, values, where)
