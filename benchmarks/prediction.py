"""Prediction of whole sections in megapixels per second, against the default layout in float32."""

import numpy as np
import torch

from benchmarks.common import print_machine, seconds, sections
from emseg.inference import predict
from emseg.models import build_model


def default_layout(network: torch.nn.Module, images: np.ndarray) -> None:
    with torch.no_grad():
        for image in images:
            torch.sigmoid(network(torch.from_numpy(image[None, None].astype(np.float32) / 255)))


def main() -> None:
    images, _, name = sections(2)
    print_machine()
    theirs, networks = {}, {}
    # Before any prediction of ours, which changes how this process keeps memory.
    for model in ("dmcn", "weighted_unet", "unet2"):
        torch.manual_seed(0)
        networks[model] = build_model(model, base_channels=16).eval()
        theirs[model] = seconds(lambda: default_layout(networks[model], images), 3)  # noqa: B023
    for model, network in networks.items():
        network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        ours = seconds(lambda: predict(network, images, precision="auto"), 3)  # noqa: B023
        exact = seconds(lambda: predict(network, images), 3)  # noqa: B023
        speed = images.size / 1e6 / ours
        print(
            f"{model}, 16 base channels, 512 x 512 sections of the {name}: {speed:.2f} megapixels/s, "
            f"{theirs[model] / ours:.2f} times the default layout; in float32 {theirs[model] / exact:.2f} times"
        )
    torch.manual_seed(0)
    network = build_model("unet1", base_channels=16).eval()
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    once = seconds(lambda: predict(network, images, mode="overlap_tile", precision="auto"), 3)
    corners = seconds(lambda: predict(network, images, mode="average", precision="auto"), 3)
    print(
        f"unet1, 16 base channels, overlap_tile: {images.size / 1e6 / once:.2f} megapixels/s, "
        f"{corners / once:.2f} times the reference's four averaged corner tiles"
    )


if __name__ == "__main__":
    main()
