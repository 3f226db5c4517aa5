"""params.yaml: what it may hold, and how it is read."""

from emseg.settings.base import ValidationMetric
from emseg.settings.file import merge, profile_values, read_yaml
from emseg.settings.settings import (
    LEAKING_PROTOCOLS,
    PROTOCOLS,
    TRANSFER,
    AugmentedSetSettings,
    AugmentSettings,
    CellMethod,
    EarlyStoppingSettings,
    ModelSettings,
    NetworkSettings,
    PromotionSettings,
    ProtocolName,
    ProtocolSettings,
    RecipeSettings,
    Settings,
    WeightMapSettings,
    check_seed,
    load_settings,
    validate_settings,
)
from emseg.settings.tuning import RangeSettings, SpaceSettings, TuningSettings

__all__ = [
    "LEAKING_PROTOCOLS",
    "PROTOCOLS",
    "TRANSFER",
    "AugmentSettings",
    "AugmentedSetSettings",
    "CellMethod",
    "EarlyStoppingSettings",
    "ModelSettings",
    "NetworkSettings",
    "PromotionSettings",
    "ProtocolName",
    "ProtocolSettings",
    "RangeSettings",
    "RecipeSettings",
    "Settings",
    "SpaceSettings",
    "TuningSettings",
    "ValidationMetric",
    "WeightMapSettings",
    "check_seed",
    "load_settings",
    "merge",
    "profile_values",
    "read_yaml",
    "validate_settings",
]
