"""What training costs in arithmetic."""

from __future__ import annotations

import functools
import json
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from emseg.models import build_model


def flop_per_crop(model: str, network: dict[str, Any], height: int, width: int) -> int:
    """Floating-point operations of convolutions, forward and backward, for one label crop (height, width).

    Counted on the layout alone: nothing is computed.

    Args:
        model: a catalog name.
        network: overrides of `build_model`.
        height: of the label crop, pixels; 'valid' networks see `margin` pixels more on each side.
        width: likewise.
    """
    # Counting takes as long as a few steps, and a study asks again for every trial.
    return _counted(model, json.dumps(network, sort_keys=True), height, width)


@functools.cache
def _counted(model: str, network: str, height: int, width: int) -> int:
    with torch.device("meta"):
        layout = build_model(model, **json.loads(network))
        border = 2 * layout.margin
        images = torch.empty(1, layout.channels, height + border, width + border)
    with FlopCounterMode(display=False) as counter:
        torch.stack([logits.sum() for logits in layout.training_logits(images)]).sum().backward()
    return counter.get_total_flops()
