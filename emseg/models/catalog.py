"""The models by name: how each is built."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import entry_points
from typing import Any

from torch import nn

from emseg.errors import InputError
from emseg.models.dmcn import DMCN
from emseg.models.network import Network
from emseg.models.residual_unet import ResidualUNet
from emseg.models.unet import UNet


@dataclass(frozen=True)
class CatalogEntry:
    """A model of the catalog.

    `build` takes overrides as keyword arguments and returns a network with freshly drawn weights.
    """

    build: Callable[..., Network]
    description: str


_CATALOG: dict[str, CatalogEntry] = {}
_RENAMED = {"supervised_unet": "deeply_supervised_unet"}
"""Names in records, packages and settings of before, and what the same networks are called now."""


def register_model(name: str, build: Callable[..., Network], description: str) -> None:
    """Add a model to the catalog.

    A package adds its own without being imported first through an entry point of group `emseg.models` that
    names a function without arguments which calls this one.

    Raises:
        ValueError: the name is taken.
    """
    if name in _CATALOG or name in _RENAMED:
        raise ValueError(f"a model named {name} is already in the catalog")
    _CATALOG[name] = CatalogEntry(build, description)


def forget_models(names: list[str]) -> None:
    """Take models out of the catalog."""
    for name in names:
        del _CATALOG[name]


def list_models() -> list[str]:
    """Names in the catalog, the reference's four first."""
    _load_entry_points()
    return list(_CATALOG)


def catalog_entry(name: str) -> CatalogEntry:
    """The entry of one model; a model that was renamed is found by its old name too.

    Raises:
        InputError: there is no such model.
    """
    name = _RENAMED.get(name, name)
    if name not in list_models():
        raise InputError(f"no model named {name}; there are {', '.join(_CATALOG)}")
    return _CATALOG[name]


def build_model(name: str, **overrides: Any) -> Network:
    """Build a network with freshly drawn weights (PyTorch's global generator).

    Args:
        name: a catalog name: dmcn, unet1, weighted_unet, unet2 (the reference's), residual_unet,
            deeply_supervised_unet,
            or one that was registered.
        overrides: changes to the layout. All: `base_channels`, `normalization` ('none' or 'batch'),
            `dropout` (one rate for every level, or a rate per level). U-Nets: `depth`; the reference's: `padding`;
            the residual ones: `neighbours`.

    Returns:
        A module that maps (N, 1, Y, X) float32 to logits (N, 1, Y', X'); see `Network` for more channels.

    Raises:
        InputError: unknown model, unknown override or one out of range; or what was registered is no `Network`.
    """
    build = catalog_entry(name).build
    try:
        network = build(**overrides)
    except TypeError as error:
        taken = inspect.signature(build).parameters
        unknown = [override for override in overrides if override not in taken]
        wrong = f"has no {', '.join(unknown)}; it has {', '.join(taken)}" if unknown else f"cannot be built: {error}"
        raise InputError(f"model {name} {wrong}") from error
    if not isinstance(network, Network):
        raise InputError(f"model {name} is a {type(network).__name__}; derive its class from emseg.models.Network")
    if missing := [each for each in ("padding", "margin", "stride") if not hasattr(network, each)]:
        raise InputError(f"model {name} lacks {', '.join(missing)}; emseg.models.Network says what they are")
    return network


def count_parameters(network: nn.Module) -> int:
    """Trainable parameters of a network."""
    return sum(parameter.numel() for parameter in network.parameters() if parameter.requires_grad)


def _rates(dropout: float | list[float] | None, default: list[float]) -> list[float]:
    if dropout is None:
        return default
    rates = [float(dropout)] * len(default) if isinstance(dropout, int | float) else [float(r) for r in dropout]
    if len(rates) != len(default):
        raise InputError(f"dropout needs one rate or {len(default)}, a rate per level, not {len(rates)}")
    if any(not 0 <= rate < 1 for rate in rates):
        raise InputError(f"dropout rates must be at least 0 and below 1, not {rates}")
    return rates


def _check(base_channels: int, normalization: str, depth: int = 1, padding: str = "same") -> None:
    if base_channels < 1:
        raise InputError(f"base_channels must be at least 1, not {base_channels}")
    if normalization not in ("none", "batch"):
        raise InputError(f"normalization must be 'none' or 'batch', not {normalization!r}")
    if depth < 1:
        raise InputError(f"depth must be at least 1, not {depth}")
    if padding not in ("same", "valid"):
        raise InputError(f"padding must be 'same' or 'valid', not {padding!r}")


def _dmcn(
    *, base_channels: int = 64, dropout: float | list[float] | None = None, normalization: str = "none"
) -> Network:
    _check(base_channels, normalization)
    return DMCN(base_channels, _rates(dropout, [0.0] * 4), normalization)


def _classic_unet(default_padding: str, rate_step: float) -> Callable[..., Network]:
    def build(
        *,
        base_channels: int = 64,
        depth: int = 4,
        padding: str = default_padding,
        dropout: float | list[float] | None = None,
        normalization: str = "none",
    ) -> Network:
        _check(base_channels, normalization, depth, padding)
        down = [round(rate_step * (level + 1), 2) for level in range(depth + 1)]
        rates = _rates(dropout, down + down[-2::-1])
        return UNet(
            base_channels,
            depth,
            padding,
            rates,
            dropout_between=False,
            up_kernel=2,
            head_kernel=1,
            normalization=normalization,
        )

    return build


def _unet2(
    *,
    base_channels: int = 16,
    depth: int = 5,
    padding: str = "same",
    dropout: float | list[float] | None = None,
    normalization: str = "none",
) -> Network:
    _check(base_channels, normalization, depth, padding)
    if padding != "same":
        raise InputError("unet2 has 'same' padding only; its 3 x 3 transposed convolutions need it")
    rates = [round(0.1 * level, 2) for level in range(depth + 1)]
    return UNet(
        base_channels,
        depth,
        padding,
        _rates(dropout, rates + rates[:-1]),
        dropout_between=True,
        up_kernel=3,
        head_kernel=3,
        normalization=normalization,
    )


def _residual_unet(supervised: bool) -> Callable[..., Network]:
    def build(
        *,
        base_channels: int = 32,
        depth: int = 3,
        dropout: float | list[float] | None = None,
        normalization: str = "batch",
        neighbours: int = 0,
    ) -> Network:
        _check(base_channels, normalization, depth)
        if neighbours < 0:
            raise InputError(f"neighbours must be at least 0, not {neighbours}")
        rates = _rates(dropout, [0.0] * (2 * depth + 1))
        return ResidualUNet(base_channels, depth, rates, normalization, supervised, neighbours)

    return build


def _load_entry_points() -> None:
    for entry_point in entry_points(group="emseg.models"):
        if entry_point.name not in _loaded_entry_points:
            _loaded_entry_points.add(entry_point.name)
            entry_point.load()()


_loaded_entry_points: set[str] = set()


register_model("dmcn", _dmcn, "Deep Multilevel Contextual Network (Chen et al. 2016)")
register_model("unet1", _classic_unet("valid", 0.0), "U-Net, 'valid' padding (Ronneberger et al. 2015)")
register_model("weighted_unet", _classic_unet("same", 0.1), "U-Net, 'same' padding, dropout and the weight-map loss")
register_model("unet2", _unet2, "six-level U-Net from 16 channels, BCE-Dice loss")
register_model("residual_unet", _residual_unet(supervised=False), "residual U-Net at half resolution")
register_model(
    "deeply_supervised_unet",
    _residual_unet(supervised=True),
    "residual U-Net at half resolution, every level supervised",
)
