"""The initial weights of the reference paper."""

from __future__ import annotations

import math

import torch
from torch import nn

# Standard deviation of a standard normal cut at +-2, so that the truncated draw has the variance asked for.
_TRUNCATED_STD = 0.87962566103423978


def initialise(network: nn.Module, head: nn.Module, seed: int | None = None) -> None:
    """Draw every weight as the reference paper did; biases become zero.

    Convolutions: He normal (He et al. 2015), a normal cut at two standard deviations with variance 2 / fan_in.
    The sigmoid head: Glorot uniform (Glorot and Bengio 2010), +-sqrt(6 / (fan_in + fan_out)).
    Fan-in of a transposed convolution is out_channels x kernel area, as Keras and PyTorch count it.

    Args:
        network: module whose convolutions are drawn.
        head: its last convolution.
        seed: None draws from PyTorch's global generator.
    """
    generator = None if seed is None else torch.Generator().manual_seed(seed)
    for module in network.modules():
        if not isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            continue
        fan_in, fan_out = nn.init._calculate_fan_in_and_fan_out(module.weight)
        if module is head:
            bound = math.sqrt(6 / (fan_in + fan_out))
            nn.init.uniform_(module.weight, -bound, bound, generator=generator)
        else:
            std = math.sqrt(2 / fan_in) / _TRUNCATED_STD
            nn.init.trunc_normal_(module.weight, 0.0, std, -2 * std, 2 * std, generator=generator)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
