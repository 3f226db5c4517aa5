"""One battery that every model of the catalog passes."""

import math

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from emseg.data.synthetic import make_synthetic
from emseg.errors import InputError
from emseg.models import build_model, catalog_entry, count_parameters, list_models, register_model
from emseg.models.catalog import _CATALOG
from emseg.training.losses import binary_cross_entropy

EXACT = {"dmcn": 7_709_009, "unet1": 31_030_593, "weighted_unet": 31_030_593, "unet2": 8_648_401}
every_model = pytest.mark.parametrize("name", list_models())


def small(name, **overrides):
    torch.manual_seed(0)
    return build_model(name, **({"base_channels": 4} | overrides))


def test_the_references_models_are_there():
    assert list_models()[:4] == list(EXACT)


@pytest.mark.parametrize("name", EXACT)
def test_exact_parameter_counts(name):
    assert count_parameters(build_model(name)) == EXACT[name]


@pytest.mark.parametrize(
    ("name", "convolutions", "transposed", "dropouts"),
    [
        ("dmcn", 17, 3, []),
        ("unet1", 19, 4, []),
        ("weighted_unet", 19, 4, [0.1, 0.2, 0.3, 0.4, 0.5, 0.4, 0.3, 0.2, 0.1]),
        ("unet2", 23, 5, [0.1, 0.2, 0.3, 0.4, 0.5, 0.1, 0.2, 0.3, 0.4]),
    ],
)
def test_layouts_of_the_reference(name, convolutions, transposed, dropouts):
    modules = list(build_model(name).modules())
    assert sum(isinstance(m, torch.nn.Conv2d) for m in modules) == convolutions
    assert sum(isinstance(m, torch.nn.ConvTranspose2d) for m in modules) == transposed
    assert [m.p for m in modules if isinstance(m, torch.nn.Dropout)] == dropouts
    assert not any(isinstance(m, torch.nn.BatchNorm2d) for m in modules)


@pytest.mark.parametrize("name", EXACT)
def test_initial_weights_are_drawn_as_the_reference_names_them(name):
    torch.manual_seed(1)
    network = build_model(name)
    for module in network.modules():
        if not isinstance(module, torch.nn.Conv2d | torch.nn.ConvTranspose2d):
            continue
        assert (module.bias == 0).all()
        weight = module.weight.detach()
        area = weight[0, 0].numel()
        fan_in, fan_out = weight.shape[1] * area, weight.shape[0] * area
        if module is network.head:
            bound = math.sqrt(6 / (fan_in + fan_out))
            assert weight.abs().max() <= bound
            if weight.numel() > 50:
                assert weight.abs().max() > 0.9 * bound
                assert weight.std() == pytest.approx(bound / math.sqrt(3), rel=0.2)
        elif weight.numel() > 4000:
            # Truncated normal: variance 2 / fan_in after cutting at two standard deviations of the parent.
            assert weight.var().item() == pytest.approx(2 / fan_in, rel=0.06)
            assert weight.abs().max() <= 2 * math.sqrt(2 / fan_in) / 0.8796
            kurtosis = ((weight - weight.mean()) ** 4).mean() / weight.var() ** 2
            assert kurtosis.item() == pytest.approx(2.37, abs=0.15)


def test_valid_padding_arithmetic():
    network = small("unet1")
    assert network(torch.rand(1, 1, 572, 572)).shape == (1, 1, 388, 388)
    assert network.margin == 92
    with pytest.raises(ValueError, match="next side it takes is 588"):
        network(torch.rand(1, 1, 574, 574))
    for depth in (1, 2, 3):
        shallow = small("unet1", depth=depth)
        side = next(side for side in range(60, 200) if shallow.is_valid_side(side))
        assert shallow(torch.rand(1, 1, side, side)).shape[-1] == side - 2 * shallow.margin


@every_model
@pytest.mark.parametrize("size", [(64, 64), (65, 47), (33, 100), (7, 5), (1, 1)])
def test_same_padding_keeps_any_size(name, size):
    network = small(name)
    if network.padding == "valid":
        network = small(name, padding="same")
    assert network(torch.rand(2, 1, *size)).shape == (2, 1, *size)


@every_model
def test_gradient_reaches_every_parameter(name):
    network = small(name, dropout=0.0)
    side = next(side for side in range(100, 260) if network.is_valid_side(side))
    images = torch.rand(4, 1, side, side)
    network(images).square().mean().backward()
    without = [key for key, p in network.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    # A ReLU unit of a two-channel branch may be silent for one draw; a whole layer must not be disconnected.
    assert not without or (name == "dmcn" and len(without) <= 4), without


@every_model
def test_save_and_load(name, tmp_path):
    network = small(name).eval()
    side = next(side for side in range(100, 260) if network.is_valid_side(side))
    images = torch.rand(1, 1, side, side)
    save_file(network.state_dict(), tmp_path / "weights.safetensors")
    torch.manual_seed(99)
    other = build_model(name, base_channels=4).eval()
    assert not torch.equal(other(images), network(images))
    other.load_state_dict(load_file(tmp_path / "weights.safetensors"))
    assert torch.equal(other(images), network(images))


@every_model
@pytest.mark.parametrize("normalization", ["none", "batch"])
def test_overfits_one_small_crop(name, normalization):
    overrides = {"base_channels": 8, "dropout": 0.0, "normalization": normalization}
    if name != "dmcn":
        overrides["depth"] = 2
    network = small(name, **overrides)
    images, labels = make_synthetic(1, 96, 0)
    output = next(side for side in range(48, 96) if network.is_valid_side(side + 2 * network.margin))
    side = output + 2 * network.margin
    image = torch.from_numpy(images[:, None, :side, :side].astype(np.float32) / 255)
    label = torch.from_numpy((labels > 0).astype(np.float32))[:, None]
    label = label[..., network.margin : network.margin + output, network.margin : network.margin + output]
    optimizer = torch.optim.Adam(network.parameters(), lr=3e-3)
    for _ in range(400):
        optimizer.zero_grad()
        binary_cross_entropy(network(image), label).backward()
        optimizer.step()
    error = ((network(image) > 0) != (label > 0.5)).float().mean().item()
    # All interior would be wrong on about 0.2; dmcn's coarse branches blur thin membranes.
    assert error < (0.1 if name == "dmcn" else 0.05)


@every_model
def test_width_and_dropout_are_adjustable(name):
    assert count_parameters(small(name, base_channels=2)) < count_parameters(small(name, base_channels=4))
    rates = [m.p for m in small(name, dropout=0.25).modules() if isinstance(m, torch.nn.Dropout)]
    assert rates
    assert set(rates) == {0.25}
    assert not [m for m in small(name, dropout=0.0).modules() if isinstance(m, torch.nn.Dropout)]


@every_model
@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"width": 3}, "has no width; it has base_channels, "),
        ({"base_channels": 0}, "base_channels must be at least 1"),
        ({"dropout": 1.5}, "dropout rates"),
        ({"dropout": [0.1, 0.2]}, "dropout needs one rate or"),
        ({"normalization": "layer"}, "normalization must be"),
    ],
)
def test_bad_overrides_are_named(name, overrides, message):
    with pytest.raises(InputError, match=message):
        build_model(name, **overrides)


def test_unknown_model():
    with pytest.raises(InputError, match="no model named unet9; there are dmcn, unet1"):
        build_model("unet9")


def test_a_network_that_was_renamed_is_built_by_its_old_name_from_weights_of_before():
    old, new = small("supervised_unet"), small("deeply_supervised_unet")
    new.load_state_dict(old.state_dict())
    assert old.side_heads
    assert catalog_entry("supervised_unet") == catalog_entry("deeply_supervised_unet")
    assert "supervised_unet" not in list_models()
    with pytest.raises(ValueError, match="already"):
        register_model("supervised_unet", build_model, "mine")


def test_a_users_own_model_joins_the_catalog():
    try:
        register_model("mine", lambda **overrides: build_model("dmcn", **overrides), "my network")
        assert "mine" in list_models()
        assert count_parameters(build_model("mine", base_channels=2)) > 0
        with pytest.raises(ValueError, match="already"):
            register_model("mine", build_model, "again")
    finally:
        _CATALOG.pop("mine")
