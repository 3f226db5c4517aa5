"""The network as one graph for every size: normalisation, mirrored context, sigmoid and views inside."""

from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING

import numpy as np
import torch

from emseg.data.normalization import Normalization
from emseg.models import Network
from emseg.registry.package import DeployedNetwork

if TYPE_CHECKING:
    from onnx import GraphProto, NodeProto


class WholeSections(DeployedNetwork):
    """What `Predictor` does to a whole section, as a module that can be exported with dynamic sizes.

    Maps float32 (N, C, Y, X), grey levels as the sections have them, of any size, to float32 (N, 1, Y, X) in [0, 1].

    Args:
        network: in evaluation mode.
        normalization: that it was trained with.
    """

    def __init__(self, network: Network, normalization: Normalization) -> None:
        super().__init__(network, normalization)
        self.margin, self.stride = network.margin, network.stride
        legal = (side for side in range(1, 1 << 12) if network.is_valid_side(side + 2 * network.margin))
        # Sides that a 'valid' network puts out are a multiple of the stride, and as much more as the smallest.
        self.offset = next(legal) % network.stride if network.margin else 0

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Probability of cell interior."""
        height, width = images.shape[-2:]
        window = images.index_select(-2, self._mirrored(height)).index_select(-1, self._mirrored(width))
        return super().forward(window)[..., :height, :width]

    def _mirrored(self, side: int) -> torch.Tensor:
        """Indices that continue a side by its mirror images to one that the network takes; see `mirror_indices`."""
        result = (side - self.offset + self.stride - 1) // self.stride * self.stride + self.offset
        # As a tensor: the exporter knows no remainder by a symbolic number.
        period = torch.full((1,), 2 * (side - 1)).clamp(min=1)
        positions = torch.remainder(torch.arange(result + 2 * self.margin) - self.margin, period)
        return torch.minimum(positions, period - positions)


def example_images(network: Network) -> torch.Tensor:
    """Images to trace a network with: sides of their own that are no multiples of its stride."""
    side = 2 * network.margin + 4 * network.stride + 3
    return torch.zeros(2, network.channels, side, side + network.stride + 2)


def least_side(network: Network) -> int:
    """Sides from which on the context that is mirrored is that of the section itself, once."""
    return network.margin + network.stride


def average_views(graph: GraphProto) -> None:
    """Make a graph of one input and one output, images (n, c, y, x), predict the 8 views of the square and average.

    Nodes are there 8 times, weights once. It takes seconds less than to trace the views with the network.
    """
    from onnx import numpy_helper
    from onnx.helper import make_node

    source, result = graph.input[0].name, graph.output[0].name
    body = list(graph.node)
    own = {name for node in body for name in node.output if name}
    backwards = {"start": -1, "stop": -(2**31), "step": -1, "rows": 2, "columns": 3}
    graph.initializer.extend(numpy_helper.from_array(np.array([n]), f"flip_{name}") for name, n in backwards.items())
    del graph.node[:], graph.value_info[:]
    views = []
    for index, chosen in enumerate(product((False, True), repeat=3)):
        steps = [step for step, is_chosen in zip(("turned", "rows", "columns"), chosen, strict=True) if is_chosen]
        names = {name: f"{name}_view_{index}" for name in own}
        names[source] = _seen(graph, source, steps, index)
        graph.node.extend(_renamed(node, names, index) for node in body)
        views.append(_seen(graph, names[result], steps[::-1], index))
    graph.node.append(make_node("Mean", views, [result]))


def _seen(graph: GraphProto, image: str, steps: list[str], index: int) -> str:
    """Turn and flip an image; the name of what comes out."""
    from onnx.helper import make_node

    for step in steps:
        before, image = image, f"{image}_{step}_{index}"
        if step == "turned":
            graph.node.append(make_node("Transpose", [before], [image], perm=[0, 1, 3, 2]))
        else:
            flip = [f"flip_{part}" for part in ("start", "stop", step, "step")]
            graph.node.append(make_node("Slice", [before, *flip], [image]))
    return image


def _renamed(node: NodeProto, names: dict[str, str], index: int) -> NodeProto:
    copy = type(node)()
    copy.CopyFrom(node)
    copy.name = f"{node.name}_view_{index}"
    copy.input[:] = [names.get(name, name) for name in node.input]
    copy.output[:] = [names.get(name, name) for name in node.output]
    return copy
