"""Training batches: crops cut, and warped if the recipe says so, from a stack that stays on the training device."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch

from emseg.data.protocol import consecutive
from emseg.data.warp import Warps, apply_warps, draw_warps, warp_nearest
from emseg.errors import InputError
from emseg.inference.tiling import mirror_indices, spread_starts
from emseg.models.network import Network
from emseg.settings import AugmentSettings, RecipeSettings

_CONTEXT = 0.25
"""Around a crop that is warped, as a share of its side, so that turning it rarely reaches for mirrored pixels."""
_LOST_NEIGHBOURS = 0.1
"""How often a neighbour is replaced by the section itself, as where a stack ends or a section is missing."""


@dataclass(frozen=True)
class Sample:
    """Where one training example is cut: image number, corner of the label crop, symmetry in 0..7.

    `before` and `after` are the numbers of the images that a network with neighbours sees too.
    """

    image: int
    top: int
    left: int
    symmetry: int
    before: tuple[int, ...] = ()
    after: tuple[int, ...] = ()


@dataclass(frozen=True)
class TrainingStack:
    """What crops are cut from.

    Attributes:
        images: uint8 (N, Y, X).
        labels: bool (N, Y, X).
        separations: float16 (N, Y, X), pixels; None where the loss uses no weight map.
        places: of the images along z (N,), which tell neighbours; looked at if the network sees some.
        ignore: bool (N, Y, X), True where pixels do not train; None: all do.
    """

    images: np.ndarray
    labels: np.ndarray
    separations: np.ndarray | None
    places: np.ndarray
    ignore: np.ndarray | None = None

    @property
    def interior_share(self) -> float:
        """Of the pixels that train."""
        return float((self.labels if self.ignore is None else self.labels[~self.ignore]).mean())


class Batch(NamedTuple):
    """What a training step sees.

    Attributes:
        images: float (N, C, Y + 2 margin, X + 2 margin) in [0, 1].
        labels: float (N, 1, Y, X) in {0, 1}.
        separations: float (N, 1, Y, X), pixels; None where the loss uses no weight map.
        ignore: bool (N, 1, Y, X), True where pixels do not train; None: all do.
    """

    images: torch.Tensor
    labels: torch.Tensor
    separations: torch.Tensor | None
    ignore: torch.Tensor | None


class TrainingSamples:
    """Crops of images with their labels, and distances where the loss wants them.

    A network of 'valid' padding gets `margin` pixels more of the image around the crop, mirrored at borders.

    Args:
        stack: what they are cut from.
        network: tells the margin and the neighbours.
        recipe: crop, positions, symmetries, images per epoch.
        augment: warp every crop anew with these settings; None takes the images as they are.
        device: where the stack lives and batches are cut.
    """

    def __init__(
        self,
        stack: TrainingStack,
        network: Network,
        recipe: RecipeSettings,
        augment: AugmentSettings | None,
        device: torch.device,
    ) -> None:
        self.images = torch.from_numpy(stack.images).to(device)
        self.labels = torch.from_numpy(stack.labels).to(device)
        self.separations = None if stack.separations is None else torch.from_numpy(stack.separations).to(device)
        self.ignore = None if stack.ignore is None else torch.from_numpy(stack.ignore).to(device)
        self.margin = network.margin
        self.nearby = _nearby(stack.places, network.neighbours) if network.neighbours else None
        self.recipe = recipe
        self.augment = augment
        self.crop = (recipe.crop, recipe.crop) if recipe.crop else stack.images.shape[1:]
        self.context = 0 if augment is None else round(_CONTEXT * (max(self.crop) + 2 * self.margin))

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
                symmetry = draw(8) if self.recipe.symmetries else 0
                samples.append(Sample(item, top, left, symmetry, *self._draw_neighbours(item, generator)))
        return samples[: self.recipe.images_per_epoch]

    def _draw_neighbours(self, image: int, generator: torch.Generator) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Images before and after, in either order: a stack may be cut from either side. Now and then one is lost."""
        if self.nearby is None:
            return (), ()
        before, after = self.nearby[image]
        lost = torch.rand(len(before) + len(after), generator=generator) < _LOST_NEIGHBOURS
        drawn = tuple(image if gone else near for near, gone in zip(before + after, lost.tolist(), strict=True))
        if torch.rand(1, generator=generator) < 0.5:
            drawn = drawn[::-1]
        return drawn[: len(before)], drawn[len(before) :]

    def draw_warps(self, count: int, generator: torch.Generator) -> Warps | None:
        """The warps of `count` samples; None where images are taken as they are."""
        if self.augment is None:
            return None
        around = 2 * (self.margin + self.context)
        return draw_warps(count, self.crop[0] + around, self.crop[1] + around, self.augment, generator)

    def batch(self, samples: list[Sample], warps: Warps | None) -> Batch:
        """The examples, cut and warped."""
        border = self.context + (0 if warps is None else self.margin)
        seen = [(*sample.before, sample.image, *sample.after) for sample in samples]
        images = self._cut(self.images, samples, self.margin + self.context, seen).float() / 255
        labels = self._cut(self.labels, samples, border).float()
        separations = None if self.separations is None else self._cut(self.separations, samples, border).float()
        ignore = None if self.ignore is None else self._cut(self.ignore, samples, border)
        if warps is not None:
            others = () if separations is None else (separations,)
            images, labels, *warped = apply_warps(warps, images, labels, *others)
            images = _without_border(images, self.context)
            labels = _without_border(labels, border)
            separations = _without_border(warped[0], border) if warped else None
            ignore = None if ignore is None else _without_border(warp_nearest(warps, ignore), border)
        return Batch(images.contiguous(memory_format=torch.channels_last), labels, separations, ignore)

    def _cut(
        self, stack: torch.Tensor, samples: list[Sample], border: int, seen: list[tuple[int, ...]] | None = None
    ) -> torch.Tensor:
        """Windows (N, C, Y, X) of the crops with `border` pixels around them, mirrored where they reach outside.

        `seen` are the images that are cut for each sample; None: its own.
        """
        _, height, width = stack.shape
        rows = [mirror_indices(s.top - border, s.top + self.crop[0] + border, height) for s in samples]
        columns = [mirror_indices(s.left - border, s.left + self.crop[1] + border, width) for s in samples]
        # One gather for the batch: the indices are all that travels to the device.
        image = torch.tensor(seen or [(s.image,) for s in samples])[:, :, None, None].to(stack.device)
        y = torch.from_numpy(np.stack(rows))[:, None, :, None].to(stack.device)
        x = torch.from_numpy(np.stack(columns))[:, None, None, :].to(stack.device)
        windows = stack[image, y, x]
        if self.recipe.symmetries:
            windows = torch.stack([_turned(w, s.symmetry) for w, s in zip(windows, samples, strict=True)])
        return windows


def _nearby(places: np.ndarray, reach: int) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
    """For each image those before and after it; at the end of a block of sections the last one stands in."""
    nearby = []
    for block in consecutive(places):
        for place in block:
            around = np.clip(np.arange(place - reach, place + reach + 1), block[0], block[-1]).tolist()
            nearby.append((tuple(around[:reach]), tuple(around[reach + 1 :])))
    return nearby


def _turned(window: torch.Tensor, symmetry: int) -> torch.Tensor:
    turned = torch.rot90(window, symmetry % 4, dims=(-2, -1))
    return turned if symmetry < 4 else turned.flip(-1)


def _without_border(batch: torch.Tensor, border: int) -> torch.Tensor:
    return batch[..., border : batch.shape[-2] - border, border : batch.shape[-1] - border]


def fit_crop(recipe: RecipeSettings, network: Network, height: int, width: int) -> int | None:
    """The side of the label crop: the recipe's, or the largest that sections of (height, width) pixels hold."""
    smaller = min(height, width)
    if recipe.crop is None or recipe.crop <= smaller:
        return recipe.crop
    legal = (side for side in range(smaller, 0, -1) if network.is_valid_side(side + 2 * network.margin))
    return next(legal, recipe.crop)


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
            if not legal:
                raise InputError(f"models.{model}.network: sections of {height} x {width} pixels are too small for it")
            nearest = min(legal, key=lambda s: abs(s - side))
            raise InputError(f"{key} is {side}, which this 'valid' network cannot put out; the nearest is {nearest}")
    if recipe.symmetries and crop[0] != crop[1]:
        raise InputError(f"models.{model}.training.symmetries needs square crops; set {key}")
