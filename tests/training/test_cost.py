from torch import nn

from emseg.models import build_model
from emseg.training.cost import flop_per_crop


def test_flop_are_those_counted_layer_by_layer():
    # 'same' padding: every convolution keeps the size of its level, so its cost is known from its channels.
    network = build_model("residual_unet", base_channels=4, depth=1)
    side, forward, first_layer = 32, 0, 0
    sizes = {id(module): 16 for module in network.modules()}
    for module in network.down[1].modules():
        sizes[id(module)] = 8
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            area = module.kernel_size[0] * module.kernel_size[1]
            pixels = sizes[id(module)] ** 2
            if isinstance(module, nn.ConvTranspose2d):
                pixels = 8**2
            cost = 2 * module.in_channels * module.out_channels * area * pixels
            forward += cost
            # The image needs no gradient, so its convolutions have no backward pass to their input.
            if module.in_channels == 4 and module in (network.down[0].convolutions[0],):
                first_layer += cost
    assert side == 2 * 16
    assert flop_per_crop("residual_unet", {"base_channels": 4, "depth": 1}, side, side) == 3 * forward - first_layer


def test_a_valid_network_pays_for_its_margin():
    same = flop_per_crop("unet1", {"base_channels": 2, "depth": 1, "padding": "same"}, 32, 32)
    valid = flop_per_crop("unet1", {"base_channels": 2, "depth": 1, "padding": "valid"}, 32, 32)
    assert valid > same
