"""What a card of a dataset may say, and how one is read."""

from __future__ import annotations

import re
from pathlib import Path, PurePosixPath
from typing import Annotated, Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, PositiveFloat, PositiveInt, model_validator

from emseg.data.labels import LabelReading
from emseg.errors import InputError
from emseg.files import write_text
from emseg.settings import LEAKING_PROTOCOLS, ProtocolName
from emseg.settings.base import DATA_NAME, validated
from emseg.settings.file import as_yaml, read_yaml

CARD_FILE = "card.yaml"
OWN_SECTIONS = "a lab's own sections"
"""Title of a card that nobody wrote."""
_ENTRY = "an entry of a card"

Text = Annotated[str, Field(min_length=1)]
Url = Annotated[str, Field(pattern=r"^https?://[^\s/]+\S*$")]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
DataDigest = Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]
VoxelSize = Annotated[list[PositiveFloat], Field(min_length=3, max_length=3)]
"""Nanometres (z, y, x)."""
Size = Annotated[list[PositiveInt], Field(min_length=3, max_length=3)]
"""Sections, rows and columns."""
MetricValue = float | Annotated[list[float], Field(min_length=2, max_length=2)]
"""A value, or the lowest and the highest of several."""


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class Citation(_Part):
    """A work that whoever uses the data cites, or where numbers come from."""

    text: Text
    doi: str | None = Field(default=None, pattern=r"^10\.\d{4,}/\S+$")

    def __str__(self) -> str:
        return self.text + (f", doi:{self.doi}" if self.doi else "")


class Provenance(_Part):
    """What labelled sections are, and what is owed to their makers; all that is not known is absent."""

    name: str = Field(pattern=DATA_NAME, max_length=100)
    title: Text
    specimen: Text | None = None
    imaging: Text | None = None
    voxel_size_nm: VoxelSize | None = None
    voxel_size_note: Text | None = None
    drawn_membrane_pixels: PositiveInt | None = None
    """Width of the membranes that were drawn between cells that touch, when the sections were added."""
    licence: Text | None = None
    citations: list[Citation] = []
    homepage: Url | None = None


class Noted(Provenance):
    """What the record of a run notes of the sections that it was trained on."""

    model_config = ConfigDict(extra="allow")  # what a later version notes is kept

    recognised: str | None
    """Name of the known dataset that the pixels are of."""


class RemoteFile(_Part):
    """A file to download."""

    name: str = Field(pattern=r"^\w[\w.-]*$")
    """What it is called here; one that ends in .zip is unpacked."""
    urls: list[Url] = Field(min_length=1)
    """The same file at each; they are tried in this order."""
    sha256: Sha256 | None = None
    bytes: PositiveInt | None = None


class Pixels(_Part):
    """SHA-256 of pixels in C order, whatever file holds them."""

    images: Sha256
    interior: Sha256
    """Of uint8, 255 for cell interior and 0 for membrane."""
    test_images: Sha256 | None = None


def _check_location(location: str) -> str:
    path = PurePosixPath(split_location(location)[0])
    if path.is_absolute() or ".." in path.parts or "\\" in location:
        raise ValueError("expected a path inside the archive or folder, such as stack1/raw or FILE.h5:volumes/raw")
    return location


def split_location(location: str) -> tuple[str, str]:
    """The file and what follows it.

    >>> split_location("sample.hdf:volumes/raw"), split_location("stack1/raw")
    (('sample.hdf', ':volumes/raw'), ('stack1/raw', ''))
    """
    found = re.fullmatch(r"(.+\.(?:h5|hdf|hdf5))(:.+)", location)
    return (found[1], found[2]) if found else (location, "")


def stack_name(folder: str) -> str:
    """The name of the stack that a folder holds.

    >>> stack_name("mouse 3, left")
    'mouse_3__left'
    """
    return re.sub(r"[^\w.-]", "_", folder).lstrip(".-") or "stack"


class Stack(_Part):
    """Consecutive sections. Where parts of it are is said as in `stack1/raw` or `FILE.h5:volumes/raw`.

    `images` and `labels` that are not given are looked for by the usual names; see `read_labelled`.
    """

    name: str | None = Field(default=None, pattern=DATA_NAME)
    """Of one of several stacks. Where its parts are not given, they are in the folder of that name."""
    size: Size | None = None
    test_size: Size | None = None
    files: list[RemoteFile] = []
    images: Text | None = None
    labels: Text | None = None
    test_images: Text | None = None
    test_labels: Text | None = None
    pixels: Pixels | None = None
    data_digests: list[DataDigest] = []
    """What `Source.digest` may be, of a source of this stack alone."""

    @property
    def locations(self) -> list[str]:
        """Where its parts are, of those that are given."""
        return [part for part in (self.images, self.labels, self.test_images, self.test_labels) if part]

    @model_validator(mode="after")
    def _places_are_given(self) -> Stack:
        if (self.images is None) != (self.labels is None):
            raise ValueError("images and labels go together; give both, or neither")
        if self.images is None and (self.test_images or self.test_labels or self.files):
            raise ValueError("images and labels are missing")
        for location in self.locations:
            _check_location(location)
        return self


class Entry(_Part):
    """One result."""

    method: Text
    metrics: dict[str, MetricValue] = Field(min_length=1)
    source: Text


class Published(_Part):
    """Results that others published."""

    on: Text
    """Which sections they were scored on, in a sentence."""
    entries: list[Entry] = Field(min_length=1)


class Reference(_Part):
    """The paper whose table runs are compared with."""

    protocol: ProtocolName
    citation: Citation | None = None
    table: dict[str, dict[str, float]] = Field(min_length=1)
    """Model to metric to value."""

    @property
    def leaks(self) -> bool:
        """Whether its protocol tests on what was trained on."""
        return self.protocol in LEAKING_PROTOCOLS


class Origin(_Part):
    """The file that sections were downloaded as."""

    url: Url
    sha256: Sha256
    bytes: int


class Card(Provenance):
    """A dataset: what it is, where it comes from, how it is read, and what is known to be reached on it."""

    description: Text | None = None
    labels: LabelReading = LabelReading()
    """How they are to be read; what it leaves open is found out."""
    stacks: list[Stack] = Field(default=[Stack()], min_length=1)
    data_digests: list[DataDigest] = []
    """What `Source.digest` may be, of a source of several of the stacks."""
    fetched: bool | None = None
    """Whether its files were ever fetched from their real host with this card."""
    published: Published | None = None
    reference: Reference | None = None
    origins: list[Origin] = []
    """Of sections that were added."""
    note: Text | None = None

    @model_validator(mode="after")
    def _stacks_have_names(self) -> Card:
        names = [stack.name for stack in self.stacks]
        if len(names) > 1 and (None in names or len({str(name).lower() for name in names}) < len(names)):
            raise ValueError("of several stacks each needs a name of its own")
        return self

    def source_name(self, stack: Stack) -> str:
        """What sections of a stack are called in data/sources and in params.yaml."""
        return self.name if stack.name is None else f"{self.name}_{stack.name.lower()}"

    @property
    def source_names(self) -> list[str]:
        """What its sections may be called there: each stack on its own, and all as one source if they are several."""
        names = [self.source_name(stack) for stack in self.stacks]
        return names if len(names) == 1 else [*names, self.name]

    @property
    def digests(self) -> list[str]:
        """What `Source.digest` may be."""
        return [*self.data_digests, *(digest for stack in self.stacks for digest in stack.data_digests)]

    def lengths_of(self, images: np.ndarray, where: Path) -> dict[str, int]:
        """How many of these sections (Z, Y, X) each of several stacks has, by name; empty where there is one stack.

        Raises:
            InputError: the card does not say it, or says what they do not have; `where` is its folder.
        """
        if len(self.stacks) == 1:
            return {}
        sizes = [stack.size or [0, 0, 0] for stack in self.stacks]
        fit = all(size[0] and size[1:] == list(images.shape[1:]) for size in sizes)
        if not fit or sum(size[0] for size in sizes) != len(images):
            said = " and ".join(" x ".join(map(str, size)) if any(size) else "no size" for size in sizes)
            there = " x ".join(map(str, images.shape))
            raise InputError(
                f"{where / CARD_FILE} speaks of stacks of {said}, but the sections are {there}; give each stack the "
                "size that it has"
            )
        return {str(stack.name): size[0] for stack, size in zip(self.stacks, sizes, strict=True)}


def read_card(path: Path) -> Card:
    """Read a card.

    Raises:
        InputError: it cannot be read, or an entry is unknown, missing or of the wrong type; the sentence names it.
    """
    try:
        values = read_yaml(path)
    except InputError as error:
        raise InputError(str(error).replace("a mapping of settings", "a card, such as name: cortex")) from error
    return validated(Card, values, f"{path}: ", _ENTRY)


def write_card(path: Path, card: Card) -> None:
    """Write a card, without what is not known."""
    write_text(path, as_yaml(_told(card.model_dump(mode="json", exclude_defaults=True))))


def _told(value: Any) -> Any:
    """Without empty entries."""
    if isinstance(value, dict):
        return {key: _told(part) for key, part in value.items() if part not in (None, [], {})}
    return [_told(part) for part in value] if isinstance(value, list) else value
