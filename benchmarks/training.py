"""A training step in our layout (channels_last) against the framework's default layout."""

import torch

from benchmarks.common import print_machine, seconds
from emseg.models import build_model
from emseg.training.losses import binary_cross_entropy

SIZES = {"dmcn": 256, "weighted_unet": 256, "unet2": 256}


def step_seconds(name: str, side: int, memory_format: torch.memory_format) -> float:
    torch.manual_seed(0)
    network = build_model(name, base_channels=16).train()
    network.to(memory_format=memory_format)  # type: ignore[call-overload]
    optimizer = torch.optim.Adam(network.parameters())
    images = torch.rand(4, 1, side, side).contiguous(memory_format=memory_format)
    labels = (torch.rand(4, 1, side, side) > 0.2).float()

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        binary_cross_entropy(network(images), labels).backward()
        optimizer.step()

    return seconds(step, 7)


def main() -> None:
    print_machine()
    for name, side in SIZES.items():
        default = step_seconds(name, side, torch.contiguous_format)
        ours = step_seconds(name, side, torch.channels_last)
        print(
            f"{name}, 16 base channels, 4 crops of {side} x {side}: default layout {default:.3f} s, "
            f"ours {ours:.3f} s, ratio {default / ours:.2f}"
        )


if __name__ == "__main__":
    main()
