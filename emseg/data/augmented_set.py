"""The augmented set: what a fold's training sections were turned into, with where each image came from."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy import ndimage

from emseg.data.cell_numbers import number_parts
from emseg.data.datasets.download import Progress
from emseg.data.io.stack import read_stack, stack_digest, write_stack
from emseg.data.normalization import Normalization
from emseg.data.protocol import Split
from emseg.data.separation import separation_distances
from emseg.data.sources import Source
from emseg.data.warp import augment_sections
from emseg.errors import InputError
from emseg.files import atomic_folder, write_json
from emseg.settings import AugmentedSetSettings

_FILES = ("images.tif", "labels.tif", "separation.tif", "ignore.tif", "cells.tif", "augmented.json")


@dataclass(frozen=True)
class AugmentedSet:
    """Augmented training images.

    Attributes:
        images: uint8 (N, Y, X), normalised grey levels times 255.
        labels: bool (N, Y, X), True for cell interior.
        separations: float16 (N, Y, X), d1 + d2 in pixels.
        sources: (N,), index in the training stack of the section each image was made from.
        normalization: grey levels of the training sections to [0, 1].
        identity: what the set was made of; two sets with the same identity are the same.
        ignore: bool (N, Y, X), True where pixels neither train nor score; None: all of them do.
        cells: uint32 (N, Y, X), the number of each cell of an image, 0 on membrane; None: cells are the components of
            the interior. Only a protocol that scores augmented images asks for them.
    """

    images: np.ndarray
    labels: np.ndarray
    separations: np.ndarray
    sources: np.ndarray
    normalization: Normalization
    identity: dict[str, Any]
    ignore: np.ndarray | None = None
    cells: np.ndarray | None = None

    @property
    def digest(self) -> str:
        """Digest of every image, label, distance, ignored pixel and cell; 'none' where there are no images."""
        more = [part for part in (self.ignore, self.cells) if part is not None]
        return stack_digest(self.images, self.labels, self.separations, *more) if len(self.images) else "none"


def augmented_identity(source: Source, split: Split, settings: AugmentedSetSettings) -> dict[str, Any]:
    """What determines an augmented set."""
    return {
        "data_digest": source.digest,
        "protocol": split.protocol,
        "fold": split.fold,
        "sections": list(split.training),
        "settings": settings.model_dump(),
    }


def make_augmented(
    source: Source, split: Split, settings: AugmentedSetSettings, progress: Progress = lambda done, total: None
) -> AugmentedSet:
    """Augment the training sections of a split, and no others; `progress` is told how many images are done."""
    sections = list(split.training)
    labels = source.labels[sections]
    cells, ignore = (None if part is None else part[sections] for part in (source.cells, source.ignore))
    normalization = Normalization.of(source.images[sections], ignore)
    separations = separation_distances(labels, cells, settings.separation_limit)
    cells = cells if split.divides_augmented else None
    shape = (settings.count, *labels.shape[1:])
    made = AugmentedSet(
        np.empty(shape, np.uint8),
        np.empty(shape, bool),
        np.empty(shape, np.float16),
        np.empty(settings.count, np.int64),
        normalization,
        augmented_identity(source, split, settings),
        None if ignore is None else np.empty(shape, bool),
        None if cells is None else np.empty(shape, np.uint32),
    )
    along = [] if ignore is None else [ignore]
    along += [] if cells is None else [_numbers_everywhere(cells)]
    images = normalization(source.images[sections])
    start = 0
    for image, label, separation, sources, warped in augment_sections(
        images, labels, separations, settings.count, settings, settings.seed, along
    ):
        part = slice(start, start + len(image))
        np.rint(image * 255, out=image)
        made.images[part], made.labels[part], made.separations[part] = image, label, separation
        made.sources[part] = np.asarray(sections)[sources]
        if made.ignore is not None:
            made.ignore[part] = warped[0]
        if made.cells is not None:
            made.cells[part] = number_parts(np.where(label, warped[-1], 0))[0]
        start = part.stop
        progress(start, settings.count)
    return made


def _numbers_everywhere(cells: np.ndarray) -> np.ndarray:
    """Cells of each section as 1, 2 ... int32 (Z, Y, X), each pixel of membrane that of the nearest cell.

    So every pixel that a warp makes interior has the number of a cell.
    """
    numbers = np.zeros(cells.shape, np.int32)
    for number, section in zip(numbers, cells, strict=True):
        if section.any():
            nearest = ndimage.distance_transform_edt(section == 0, return_distances=False, return_indices=True)
            number[:] = np.unique(section[tuple(nearest)], return_inverse=True)[1].reshape(section.shape) + 1
    return numbers


def no_augmented(source: Source, split: Split, settings: AugmentedSetSettings) -> AugmentedSet:
    """The empty set of a run that warps every crop anew: nothing but the grey levels of its training sections."""
    shape, sections = (0, *source.images.shape[1:]), list(split.training)
    ignore = None if source.ignore is None else source.ignore[sections]
    return AugmentedSet(
        np.empty(shape, np.uint8),
        np.empty(shape, bool),
        np.empty(shape, np.float16),
        np.empty(0, np.int64),
        Normalization.of(source.images[sections], ignore),
        augmented_identity(source, split, settings),
    )


def write_augmented(folder: Path, augmented: AugmentedSet) -> None:
    """Write images.tif, labels.tif, separation.tif and augmented.json, whole or not at all.

    Where there are ignored pixels, or cells by number, ignore.tif and cells.tif go with them.
    """
    with atomic_folder(folder, _FILES) as temporary:
        write_stack(temporary / "images.tif", augmented.images)
        write_stack(temporary / "labels.tif", augmented.labels)
        write_stack(temporary / "separation.tif", augmented.separations)
        if augmented.ignore is not None:
            write_stack(temporary / "ignore.tif", augmented.ignore)
        if augmented.cells is not None:
            write_stack(temporary / "cells.tif", augmented.cells)
        write_json(
            temporary / "augmented.json",
            {
                "identity": augmented.identity,
                "sources": augmented.sources.tolist(),
                "normalization": {"low": augmented.normalization.low, "high": augmented.normalization.high},
            },
        )


def read_augmented(folder: Path, identity: dict[str, Any]) -> AugmentedSet:
    """Read an augmented set back.

    Raises:
        InputError: there is none in `folder`, or it was made of something else than `identity`.
    """
    manifest_file = folder / "augmented.json"
    if not manifest_file.is_file():
        raise InputError(f"{folder} holds no augmented set; run `dvc repro augment`")
    manifest = json.loads(manifest_file.read_text(encoding="utf-8"))
    if manifest["identity"] != identity:
        changed = [key for key in identity if manifest["identity"].get(key) != identity[key]]
        raise InputError(f"{folder} was made with another {', '.join(changed)}; run `dvc repro augment`")
    return AugmentedSet(
        read_stack(folder / "images.tif"),
        read_stack(folder / "labels.tif") > 0,
        read_stack(folder / "separation.tif"),
        np.array(manifest["sources"]),
        Normalization(**manifest["normalization"]),
        manifest["identity"],
        read_stack(ignored) > 0 if (ignored := folder / "ignore.tif").exists() else None,
        read_stack(cells, labels=True) if (cells := folder / "cells.tif").exists() else None,
    )
