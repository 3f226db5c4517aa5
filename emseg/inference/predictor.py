"""Whole-section prediction with any network, section by section, so memory does not grow with the stack."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from typing import Literal, get_args

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812

from emseg.data.normalization import Normalization
from emseg.data.protocol import consecutive
from emseg.inference.device import Precision, autocast, keep_freed_memory
from emseg.inference.tiling import (
    blending_window,
    exact_starts,
    mirrored_window,
    spread_starts,
)
from emseg.models.network import Network

Mode = Literal["auto", "overlap_tile", "average", "resize"]

REFERENCE_OUTPUT_SIDE = 388
"""Side of the reference paper's tiles: 572 pixels in, 388 out."""
WHOLE_SECTION_SIDE = 1024
"""Sections up to this side go through a 'same' network in one piece."""
LARGEST_TILE = 512
"""Results of larger sections are put together from tiles up to this side."""
BLEND_OVERLAP = 64


class Predictor:
    """A network with what it needs to segment sections of any size.

    Args:
        network: maps (N, C, Y, X) float32 to logits; tells `margin`, `stride`, `padding`, `neighbours`,
            `is_valid_side`.
        normalization: applied to the sections; None where they are float in [0, 1] already, or 8 bit.
        mode: how a section is covered.
            `overlap_tile`: tiles whose results cover every pixel exactly once with mirrored context outside
            ('valid' padding), or overlapping tiles blended linearly ('same' padding).
            `average`: the reference paper's: tiles of 388 pixels on the corners, averaged where they overlap.
            `resize`: the reference paper's: shrink to 388 x 388, predict once, enlarge the result.
            `auto`: `overlap_tile`, but whole sections up to 1024 pixels for 'same' padding.
        test_time_augmentation: average over the 8 symmetries of the square.
        device: None keeps the network where it is. On a CPU the process keeps the memory that it frees from then on.
        precision: `float32`; `bfloat16`, half the time on a device that has instructions for it, with probabilities
            that differ by a few hundredths at most; `auto`, bfloat16 on such a device.

    Raises:
        ValueError: an unknown mode or precision, or `average` or `resize` with a network of 'same' padding.
    """

    def __init__(
        self,
        network: Network,
        normalization: Normalization | None = None,
        mode: Mode = "auto",
        test_time_augmentation: bool = False,
        device: str | torch.device | None = None,
        precision: Precision = "float32",
    ) -> None:
        if mode not in get_args(Mode):
            raise ValueError(f"mode must be one of {', '.join(get_args(Mode))}, not {mode!r}")
        if precision not in get_args(Precision):
            raise ValueError(f"precision must be one of {', '.join(get_args(Precision))}, not {precision!r}")
        if mode in ("average", "resize") and network.padding != "valid":
            raise ValueError(f"mode {mode} is for networks with 'valid' padding; use auto or overlap_tile")
        self.network = network if device is None else network.to(device)
        self.normalization = normalization
        self.mode = mode
        self.test_time_augmentation = test_time_augmentation
        self.precision = precision
        keep_freed_memory(next(self.network.parameters()).device)

    def stream(self, sections: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        """Probabilities (Y, X) float32 of consecutive sections (Y, X), one after the other.

        Holds one section, or as many as the network sees.
        """
        for window in _windows(sections, self.network.neighbours):
            yield self.section(window)

    def predict(self, sections: np.ndarray, places: Sequence[int] | np.ndarray) -> np.ndarray:
        """Probabilities float32 of sections (Z, Y, X) at these places along z: a gap parts neighbours."""
        return np.stack([p for block in consecutive(places) for p in self.stream(sections[block])])

    @torch.inference_mode()
    def section(self, window: Sequence[np.ndarray]) -> np.ndarray:
        """Probability (Y, X) float32 of the section in the middle of those that the network sees.

        Raises:
            ValueError: they are not sections of one size, or not as many as the network sees.
        """
        if len(window) != self.network.channels:
            raise ValueError(f"the network sees {self.network.channels} sections, not {len(window)}")
        for section in window:
            if section.ndim != 2 or not section.size:
                raise ValueError(f"a section has shape (Y, X) and at least one pixel, not {section.shape}")
            if section.shape != window[0].shape:
                raise ValueError(
                    f"neighbouring sections are of {window[0].shape} and {section.shape}; make them one size"
                )
        image = np.stack([self._normalized(section) for section in window])
        was_training = self.network.training
        self.network.eval()
        try:
            mean = np.zeros(image.shape[1:], np.float32)
            for count, probability in enumerate(self._views(image), start=1):
                mean += (probability - mean) / count
        finally:
            self.network.train(was_training)
        return mean

    def _views(self, image: np.ndarray) -> Iterator[np.ndarray]:
        """The probability of an image (C, Y, X) as predicted from each of its views."""
        for index in range(8 if self.test_time_augmentation else 1):
            turned = np.rot90(image, index % 4, axes=(-2, -1))
            probability = self._cover(np.ascontiguousarray(turned if index < 4 else turned[..., ::-1]))
            back = probability if index < 4 else probability[:, ::-1]
            yield np.rot90(back, -(index % 4))

    def _normalized(self, section: np.ndarray) -> np.ndarray:
        if self.normalization is not None:
            return self.normalization(section)
        if section.dtype == np.uint8:
            return Normalization(0.0, 255.0)(section)
        if section.dtype.kind != "f" or not (section.min() >= 0 and section.max() <= 1):
            raise ValueError(
                f"sections are {section.dtype} from {section.min()} to {section.max()}; "
                "expected 8 bit, float in [0, 1], or a normalization"
            )
        return section.astype(np.float32)

    def _cover(self, image: np.ndarray) -> np.ndarray:
        if self.network.padding == "valid":
            if self.mode == "resize":
                return self._resize(image)
            if self.mode == "average":
                return self._average(image, self._output_side(min(max(image.shape[1:]), REFERENCE_OUTPUT_SIDE)))
            return self._exact(image)
        if self.mode == "auto" and max(image.shape[1:]) <= WHOLE_SECTION_SIDE:
            return self._whole(image)
        return self._blend(image)

    def _exact(self, image: np.ndarray) -> np.ndarray:
        """Every pixel once. Tiles start at multiples of `stride`, so they agree with one big tile exactly."""
        stride = self.network.stride
        height, width = image.shape[1:]
        tiles = -(-max(height, width) // LARGEST_TILE)
        step = -(-max(height, width) // (tiles * stride)) * stride
        side = self._output_side(step)
        result = np.empty((height, width), np.float32)
        for top in exact_starts(height, step):
            for left in exact_starts(width, step):
                tile = self._tile(image, top, left, side)[:step, :step]
                target = result[top : top + step, left : left + step]
                target[:] = tile[: target.shape[0], : target.shape[1]]
        return result

    def _average(self, image: np.ndarray, side: int) -> np.ndarray:
        height, width = image.shape[1:]
        total, count = np.zeros((height, width), np.float32), np.zeros((height, width), np.float32)
        for top in spread_starts(height, side):
            for left in spread_starts(width, side):
                window = np.s_[top : top + side, left : left + side]
                rows, columns = total[window].shape
                total[window] += self._tile(image, top, left, side)[:rows, :columns]
                count[window] += 1
        return total / count

    def _resize(self, image: np.ndarray) -> np.ndarray:
        side = self._output_side(REFERENCE_OUTPUT_SIDE)
        small = _resample(image, (side, side))
        return np.clip(_resample(self._tile(small, 0, 0, side)[None], image.shape[1:])[0], 0, 1)

    def _whole(self, image: np.ndarray) -> np.ndarray:
        # Mirror up to the next multiple of the stride: real context instead of zeros at the lower right border.
        stride = self.network.stride
        height, width = (-(-side // stride) * stride for side in image.shape[1:])
        return self._run(mirrored_window(image, 0, 0, height, width))[: image.shape[1], : image.shape[2]]

    def _blend(self, image: np.ndarray) -> np.ndarray:
        stride = self.network.stride
        tile = max(LARGEST_TILE // stride, 1) * stride
        shape = image.shape[1:]
        height, width = (min(side, tile) for side in shape)
        total, weight = np.zeros(shape, np.float32), np.zeros(shape, np.float32)
        window = blending_window(height, width, BLEND_OVERLAP)
        for top in spread_starts(shape[0], height, BLEND_OVERLAP if height < shape[0] else 0):
            for left in spread_starts(shape[1], width, BLEND_OVERLAP if width < shape[1] else 0):
                target = np.s_[top : top + height, left : left + width]
                total[target] += self._whole(image[:, *target]) * window
                weight[target] += window
        return total / weight

    def _tile(self, image: np.ndarray, top: int, left: int, side: int) -> np.ndarray:
        margin = self.network.margin
        size = side + 2 * margin
        return self._run(mirrored_window(image, top - margin, left - margin, size, size))

    def _run(self, image: np.ndarray) -> np.ndarray:
        device = next(self.network.parameters()).device
        batch = torch.from_numpy(np.ascontiguousarray(image))[None].to(device)
        batch = batch.to(memory_format=torch.channels_last)
        with autocast(device, self.precision):
            logits = self.network(batch)
        return torch.sigmoid(logits[0, 0].float()).cpu().numpy()

    def _output_side(self, wanted: int) -> int:
        """The smallest side >= `wanted` that a 'valid' network can put out."""
        side = wanted
        while not self.network.is_valid_side(side + 2 * self.network.margin):
            side += 1
        return side


def predict(
    model: Network,
    sections: np.ndarray,
    mode: Mode = "auto",
    test_time_augmentation: bool = False,
    normalization: Normalization | None = None,
    device: str | torch.device | None = None,
    out: np.ndarray | None = None,
    precision: Precision = "float32",
) -> np.ndarray:
    """Probability of cell interior for every pixel of a stack.

    Args:
        model: a catalog network.
        sections: (Z, Y, X) of any size, consecutive; 8 bit, float in [0, 1], or anything with a `normalization`.
        mode: see `Predictor`.
        test_time_augmentation: average over the 8 symmetries of the square.
        normalization: grey levels to [0, 1].
        device: where to predict; None: where the model is.
        out: float32 (Z, Y, X) to write into, such as a memory map; None makes an array.
        precision: `float32`, or faster `bfloat16` or `auto`; see `Predictor`.

    Returns:
        float32 (Z, Y, X) in [0, 1]; `out` where it was given.

    Raises:
        ValueError: `sections` are not a stack, their grey levels are unknown, or the mode does not fit the network.
    """
    if sections.ndim != 3:
        raise ValueError(f"sections must be a stack (Z, Y, X), not of shape {sections.shape}")
    predictor = Predictor(model, normalization, mode, test_time_augmentation, device, precision)
    result = np.empty(sections.shape, np.float32) if out is None else out
    for index, probability in enumerate(predictor.stream(sections)):
        result[index] = probability
    return result


def _resample(image: np.ndarray, size: tuple[int, ...]) -> np.ndarray:
    tensor = torch.from_numpy(np.ascontiguousarray(image))[None]
    return F.interpolate(tensor, size=size, mode="bilinear", antialias=True, align_corners=False)[0].numpy()


def _windows(sections: Iterable[np.ndarray], reach: int) -> Iterator[list[np.ndarray]]:
    """Each section between `reach` before and after it; at the ends of the stack its last section stands in."""
    window: deque[np.ndarray] = deque(maxlen=2 * reach + 1)
    for section in sections:
        window.extend([section] * (1 if window else reach + 1))
        if len(window) == window.maxlen:
            yield list(window)
    for _ in range(reach if window else 0):
        window.append(window[-1])
        if len(window) == window.maxlen:
            yield list(window)
