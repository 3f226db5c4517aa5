"""One warp for image, label and separation distance, and intensity jitter for the image alone.

Rotation, shift, shear, zoom, flip and elastic deformation compose into one sampling grid, so every image is
interpolated once, on whatever device the batch is on.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812

from emseg.settings import AugmentSettings


def augment(
    images: torch.Tensor,
    labels: torch.Tensor,
    *others: torch.Tensor,
    settings: AugmentSettings,
    generator: torch.Generator,
) -> tuple[torch.Tensor, ...]:
    """Warp a batch at random, every image differently, borders reflected.

    Args:
        images: float (N, C, Y, X) in [0, 1]; sampled bilinearly, then jittered in brightness and contrast.
        labels: any dtype (N, C, Y, X); sampled at the nearest pixel.
        others: float (N, C, Y, X), such as the separation distance; sampled bilinearly.
        settings: ranges of the warp and of the jitter.
        generator: a CPU generator, whatever the device of the batch, so that a seed means the same everywhere.

    Returns:
        The warped `images`, `labels` and `others`: same shapes, dtypes and device.

    Raises:
        ValueError: batches that differ in size.
    """
    count, _, height, width = images.shape
    if any((*other.shape[:1], *other.shape[2:]) != (count, height, width) for other in (labels, *others)):
        raise ValueError("images, labels and others must agree in N, Y and X")
    grid = _sampling_grid(count, height, width, settings, generator).to(images.device)
    warped = [
        _jitter(_sample(images, grid, "bilinear"), settings, generator),
        _sample(labels, grid, "nearest"),
    ]
    return (*warped, *(_sample(other, grid, "bilinear") for other in others))


def augment_sections(
    images: np.ndarray,
    labels: np.ndarray,
    separations: np.ndarray,
    count: int,
    settings: AugmentSettings,
    seed: int,
    batch: int = 8,
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]]:
    """Make `count` augmented images from a few sections, each section used equally often.

    Args:
        images: float32 (Z, Y, X) in [0, 1].
        labels: bool (Z, Y, X).
        separations: float32 (Z, Y, X), pixels.
        count: images to make.
        settings: ranges of the warp and of the jitter.
        seed: of the whole set; same seed, same set.
        batch: images made at once.

    Yields:
        Batches of image (float32, in [0, 1]), label (bool), separation (float32), each (N, Y, X), and the
        index in `images` of the section each was made from, (N,).
    """
    generator = torch.Generator().manual_seed(seed)
    order = torch.cat([torch.randperm(len(images), generator=generator) for _ in range(-(-count // len(images)))])
    drawn = order[:count].numpy()
    for start in range(0, count, batch):
        sources = drawn[start : start + batch]
        image, label, separation = augment(
            torch.from_numpy(images[sources, None]),
            torch.from_numpy(labels[sources, None].astype(np.float32)),
            torch.from_numpy(separations[sources, None]),
            settings=settings,
            generator=generator,
        )
        yield image[:, 0].numpy(), label[:, 0].numpy() > 0.5, separation[:, 0].numpy(), sources


def _sampling_grid(
    count: int, height: int, width: int, settings: AugmentSettings, generator: torch.Generator
) -> torch.Tensor:
    def uniform(limit: float) -> torch.Tensor:
        return (torch.rand(count, generator=generator) * 2 - 1) * limit

    angle, shear = uniform(math.radians(settings.rotation)), uniform(math.radians(settings.shear))
    zoom_y, zoom_x = 1 + uniform(settings.zoom), 1 + uniform(settings.zoom)
    shift_y, shift_x = uniform(settings.shift) * height, uniform(settings.shift) * width
    flips = torch.where(torch.rand(2, count, generator=generator) < 0.5, -1.0, 1.0)
    if settings.flip:
        zoom_y, zoom_x = zoom_y * flips[0], zoom_x * flips[1]

    cosine, sine = torch.cos(angle), torch.sin(angle)
    # Rows and columns of the source as a function of rows and columns of the result, both from the centre:
    # rotation x shear x zoom, the order in which the study's tool composes them.
    matrix = torch.stack(
        [
            torch.stack([cosine * zoom_y, (sine + cosine * torch.tan(shear)) * zoom_x], dim=-1),
            torch.stack([-sine * zoom_y, (cosine - sine * torch.tan(shear)) * zoom_x], dim=-1),
        ],
        dim=-2,
    )
    y = torch.arange(height, dtype=torch.float32) - (height - 1) / 2
    x = torch.arange(width, dtype=torch.float32) - (width - 1) / 2
    points = torch.stack(torch.meshgrid(y, x, indexing="ij"), dim=-1)
    source = torch.einsum("nij,yxj->nyxi", matrix, points)
    source += torch.stack([shift_y, shift_x], dim=-1)[:, None, None]
    if settings.elastic_amplitude > 0:
        source += _elastic_displacement(count, height, width, settings, generator)
    # grid_sample wants (x, y) in units of half the side.
    return torch.stack([source[..., 1] * (2 / width), source[..., 0] * (2 / height)], dim=-1)


def _elastic_displacement(
    count: int, height: int, width: int, settings: AugmentSettings, generator: torch.Generator
) -> torch.Tensor:
    rows, columns = (max(3, math.ceil(side / settings.elastic_spacing) + 1) for side in (height, width))
    control = torch.randn(count, 2, rows, columns, generator=generator) * settings.elastic_amplitude
    smooth = F.interpolate(control, size=(height, width), mode="bicubic", align_corners=True)
    return smooth.permute(0, 2, 3, 1)


def _sample(batch: torch.Tensor, grid: torch.Tensor, mode: str) -> torch.Tensor:
    sampled = F.grid_sample(batch.to(torch.float32), grid, mode=mode, padding_mode="reflection", align_corners=False)
    return sampled.to(batch.dtype)


def _jitter(images: torch.Tensor, settings: AugmentSettings, generator: torch.Generator) -> torch.Tensor:
    if not (settings.brightness or settings.contrast):
        return images
    draws = (torch.rand(2, len(images), 1, 1, 1, generator=generator) * 2 - 1).to(images.device)
    mean = images.mean(dim=(-2, -1), keepdim=True)
    jittered = (images - mean) * (1 + draws[0] * settings.contrast) + mean + draws[1] * settings.brightness
    return jittered.clamp(0, 1)
