import copy

import pytest
import torch

from emseg.models import build_model
from emseg.settings import RecipeSettings
from emseg.training.optimizers import make_optimizer

RATE = 0.01


def stepped(network, tiny_settings, optimizer, weight_decay=0.0):
    """The network after one step from random gradients."""
    changes = {"optimizer": optimizer, "learning_rate": RATE, "weight_decay": weight_decay}
    recipe = RecipeSettings.model_validate(tiny_settings.training.model_dump() | changes)
    after = copy.deepcopy(network)
    torch.manual_seed(0)
    for weight in after.parameters():
        weight.grad = torch.randn(weight.shape)
    make_optimizer(after, recipe).step()
    return after


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_muon_steps_kernels_along_the_orthogonal_factor_of_the_gradient(tiny_settings, layout):
    network = build_model("unet2", base_channels=8, depth=2, normalization="batch").to(memory_format=layout)
    muon, adamw = (stepped(network, tiny_settings, name) for name in ("muon", "adamw"))
    kernels = 0
    for name, before in network.named_parameters():
        after = muon.get_parameter(name)
        if before.ndim != 4 or 1 in before.shape[:2]:
            assert torch.equal(after, adamw.get_parameter(name)), name
            continue
        kernels += 1
        gradient = after.grad.flatten(1)
        left, _, right = torch.linalg.svd(gradient, full_matrices=False)
        # Of the first step, whose momentum is along the gradient. The factor's root mean square is that of Adam, 0.2.
        wanted = -RATE * 0.2 * max(gradient.shape) ** 0.5 * left @ right
        change = (after - before).detach().flatten(1)
        assert torch.cosine_similarity(change.flatten(), wanted.flatten(), dim=0) > 0.95, name
        assert 0.7 < change.norm() / wanted.norm() < 1.2, name
    assert kernels == 11


def test_weight_decay_shrinks_every_weight(tiny_settings):
    network = build_model("unet2", base_channels=8, depth=2, normalization="batch")
    kept, shrunk = (stepped(network, tiny_settings, "muon", weight_decay=decay) for decay in (0.0, 0.5))
    for name, before in network.named_parameters():
        difference = kept.get_parameter(name) - shrunk.get_parameter(name)
        assert torch.allclose(difference, RATE * 0.5 * before, atol=1e-6), name
