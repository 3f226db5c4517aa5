"""Training batches: crops cut from a stack that stays on the training device."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from emseg.errors import InputError
from emseg.inference.tiling import mirror_indices, spread_starts
from emseg.models.network import Network
from emseg.settings import RecipeSettings


@dataclass(frozen=True)
class Sample:
    """Where one training example is cut: image number, corner of the label crop, symmetry in 0..7."""

    image: int
    top: int
    left: int
    symmetry: int


class TrainingSamples:
    """Crops of augmented images with their labels, and distances where the loss wants them.

    A network of 'valid' padding gets `margin` pixels more of the image around the crop, mirrored at borders.

    Args:
        images: uint8 (N, Y, X).
        labels: bool (N, Y, X).
        separations: float16 (N, Y, X), pixels; None where the loss uses no weight map.
        network: tells the margin.
        recipe: crop, positions, symmetries, images per epoch.
        device: where the stack lives and batches are cut.
    """

    def __init__(
        self,
        images: np.ndarray,
        labels: np.ndarray,
        separations: np.ndarray | None,
        network: Network,
        recipe: RecipeSettings,
        device: torch.device,
    ) -> None:
        self.images = torch.from_numpy(images).to(device)
        self.labels = torch.from_numpy(labels).to(device)
        self.separations = None if separations is None else torch.from_numpy(separations).to(device)
        self.margin = network.margin
        self.recipe = recipe
        height, width = images.shape[1:]
        self.crop = (recipe.crop, recipe.crop) if recipe.crop else (height, width)

    def epoch(self, generator: torch.Generator) -> list[Sample]:
        """The examples of one epoch, in order: every image (or tile) once before any comes twice."""
        count, height, width = self.images.shape

        def draw(high: int) -> int:
            return int(torch.randint(high, (1,), generator=generator))

        if self.recipe.positions == "corners":
            tops, lefts = spread_starts(height, self.crop[0]), spread_starts(width, self.crop[1])
            corners = [(top, left) for top in tops for left in lefts]
        else:
            corners = []
        items = count * max(1, len(corners))
        samples: list[Sample] = []
        while len(samples) < self.recipe.images_per_epoch:
            for item in torch.randperm(items, generator=generator).tolist():
                if corners:
                    top, left = corners[item % len(corners)]
                    item //= len(corners)
                else:
                    top, left = draw(height - self.crop[0] + 1), draw(width - self.crop[1] + 1)
                samples.append(Sample(item, top, left, draw(8) if self.recipe.symmetries else 0))
        return samples[: self.recipe.images_per_epoch]

    def batch(self, samples: list[Sample]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
        """Images (N, 1, Y + 2 margin, X + 2 margin) in [0, 1], labels (N, 1, Y, X) in {0, 1} and distances."""
        images = self._cut(self.images, samples, self.margin).float() / 255
        labels = self._cut(self.labels, samples, 0).float()
        separations = None if self.separations is None else self._cut(self.separations, samples, 0).float()
        return images.to(memory_format=torch.channels_last), labels, separations

    def _cut(self, stack: torch.Tensor, samples: list[Sample], margin: int) -> torch.Tensor:
        _, height, width = stack.shape
        crops = []
        for sample in samples:
            rows = mirror_indices(sample.top - margin, sample.top + self.crop[0] + margin, height)
            columns = mirror_indices(sample.left - margin, sample.left + self.crop[1] + margin, width)
            window = stack[sample.image, torch.from_numpy(rows)[:, None], torch.from_numpy(columns)[None, :]]
            window = torch.rot90(window, sample.symmetry % 4)
            crops.append(window if sample.symmetry < 4 else window.flip(-1))
        return torch.stack(crops)[:, None]


def check_crop(model: str, network: Network, recipe: RecipeSettings, height: int, width: int) -> None:
    """Refuse a crop that the network or the sections of (height, width) pixels cannot give.

    Raises:
        InputError: names the key of params.yaml.
    """
    key = f"models.{model}.training.crop"
    crop = (recipe.crop, recipe.crop) if recipe.crop else (height, width)
    margin = network.margin
    if crop[0] > height or crop[1] > width:
        raise InputError(f"{key} is {recipe.crop} but sections are {height} x {width} pixels; make it smaller")
    if min(height, width) <= margin:
        raise InputError(
            f"models.{model}.network: sections of {height} x {width} pixels are smaller than the context of "
            f"{margin} pixels that this 'valid' network needs; set padding: same or a smaller depth"
        )
    for side in crop:
        if not network.is_valid_side(side + 2 * margin):
            legal = [s for s in range(1, min(height, width) + 1) if network.is_valid_side(s + 2 * margin)]
            nearest = min(legal, key=lambda s: abs(s - side), default=None)
            raise InputError(f"{key} is {side}, which this 'valid' network cannot put out; the nearest is {nearest}")
    if recipe.symmetries and crop[0] != crop[1]:
        raise InputError(f"models.{model}.training.symmetries needs square crops; set {key}")
