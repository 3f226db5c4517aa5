"""record.json: what a run is, what it was trained from, and what became of it."""

from __future__ import annotations

import hashlib
import json
from typing import Annotated, Any, Final, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    field_serializer,
    model_serializer,
    model_validator,
)

from emseg.data.datasets.card import Noted
from emseg.records.earlier import upgraded_run
from emseg.settings import (
    AugmentedSetSettings,
    NetworkSettings,
    ProtocolName,
    ProtocolSettings,
    RecipeSettings,
    WeightMapSettings,
)

RUNNING: Final = "running"
FINISHED: Final = "finished"
FAILED: Final = "failed"
Digest = Annotated[str, Field(pattern=r"^([0-9a-f]{32}|none)$")]
SectionDigest = Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]


class RecordPart(BaseModel):
    """What a later version of emseg adds to a file is kept as it is."""

    model_config = ConfigDict(extra="allow", strict=True, allow_inf_nan=False, frozen=True)


class SettingsOfRun(RecordPart):
    """The part of params.yaml that decides the weights."""

    architecture: str = Field(min_length=1)
    network: NetworkSettings
    loss: Literal["bce", "weighted_bce", "bce_dice"]
    dice_weight: float
    weight_map: WeightMapSettings | None
    training: RecipeSettings
    protocol: ProtocolSettings
    augment: AugmentedSetSettings

    @field_serializer("network")
    def _as_given(self, network: NetworkSettings) -> dict[str, Any]:
        return network.overrides()


class NormalizationOfRun(RecordPart):
    """Grey levels that become 0 and 1."""

    low: float
    high: float


class SplitOfRun(RecordPart):
    """Section numbers; under `paper` those of `test` are numbers of augmented images."""

    training: list[int]
    validation: list[int]
    test: list[int]


class SectionsOfRun(RecordPart):
    """Digests of the sections, as `emseg.data.io.stack.section_digest` gives them, in the order of their numbers.

    Under `paper` those that the images of each part are warped copies of.
    """

    training: list[SectionDigest]
    validation: list[SectionDigest]
    test: list[SectionDigest]


class Lineage(RecordPart):
    """Where the run was made."""

    git_commit: str | None = Field(pattern=r"^[0-9a-f]{7,64}$")
    git_dirty: bool
    dvc: dict[str, str]
    code_digest: Digest
    packages: dict[str, str]
    python: str | None = None
    device: str
    threads: int
    emseg: str | None = None
    """Its version; None, as all below, in records of before it was noted."""
    code_in_project: bool = True
    """Whether emseg lay in the project's repository rather than being installed."""
    git_remote: str | None = None
    """Where the repository can be cloned from; addresses are kept without user and password."""
    git_folder: str | None = None
    """The project's folder in it; None also where git ignores it."""
    dvc_remote: str | None = None
    networks_file: str | None = None
    """Of the project, that the network comes from."""
    networks_sha256: str | None = Field(default=None, pattern=r"^[0-9a-f]{64}$")


class MadeFrom(RecordPart):
    """What scores and thresholds name, so that they cannot pass for those of other weights or data."""

    id: str
    fingerprint: str
    weights_sha256: str | None
    data_digest: str
    augmented_digest: str
    split: SplitOfRun

    def differing(self, other: MadeFrom) -> list[str]:
        """Names of what is another in `other`."""
        return [key for key in MadeFrom.model_fields if getattr(self, key) != getattr(other, key)]


class Outcome(RecordPart):
    """What a finished run came to."""

    best_epoch: int
    epochs: int
    collapsed: bool
    seconds_per_epoch: float
    training_seconds: float
    images_seen: int


class _State(RecordPart):
    format: Literal[1] = 1
    id: str = Field(pattern=r"^[0-9a-f]{32}$")
    fingerprint: Digest
    """Of the run's `Identity`."""
    status: Literal["running", "finished", "failed"]
    message: str | None
    resumed: int
    created: str
    finished: str | None


class Identity(RecordPart):
    """What decides the weights of a run."""

    model: str = Field(min_length=1, max_length=200)
    """A lab names its models as it likes; who shows the name makes it inert."""
    dataset: str = Field(pattern=r"^[\w.-]{1,100}$")
    protocol: ProtocolName
    fold: int = Field(ge=0)
    seed: int = Field(ge=0)
    data_digest: Digest
    augmented_digest: Digest
    code_digest: Digest
    networks_sha256: str | None = Field(default=None, pattern=r"^[0-9a-f]{64}$")
    """Of the project's file that the network comes from; None: it is one of the catalog's own."""
    maximum_steps: int | None
    settings: SettingsOfRun

    @property
    def digest(self) -> str:
        """The same for runs that come to the same weights: 32 hexadecimal digits of a SHA-256."""
        values = self.model_dump(mode="json", include=set(Identity.model_fields))
        if self.networks_sha256 is None:
            values.pop("networks_sha256", None)  # as in records of before there were such files
        return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:32]


# In this order the fields of the state come first in the file.
class Run(Identity, _State):
    """record.json: identity, settings, lineage and state of one training run."""

    dataset_card: Noted | None = None
    """None where nothing is known of the sections, and in records of before it was noted."""
    parameters: int
    flop_per_crop: int
    normalization: NormalizationOfRun
    grey_levels: dict[str, float]
    split: SplitOfRun
    section_digests: SectionsOfRun | None = None
    """None in records of before they were noted."""
    lineage: Lineage

    best_epoch: int | None = None
    epochs: int | None = None
    collapsed: bool | None = None
    seconds_per_epoch: float | None = None
    training_seconds: float | None = None
    images_seen: int | None = None
    weights_sha256: str | None = Field(default=None, pattern=r"^[0-9a-f]{64}$")
    """None in records of before it was noted."""
    profile: str | None = None
    variation: str | None = None

    @model_validator(mode="before")
    @classmethod
    def _as_written_now(cls, values: Any) -> Any:
        return upgraded_run(values)

    @model_validator(mode="after")
    def _whole_when_finished(self) -> Run:
        if self.status == FINISHED and (missing := [key for key in Outcome.model_fields if getattr(self, key) is None]):
            raise ValueError(f"finished without {', '.join(missing)}")
        return self

    @model_serializer(mode="wrap")
    def _without_what_is_not_known_yet(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return {key: value for key, value in handler(self).items() if value is not None or key not in _NOT_KNOWN_YET}

    @property
    def name(self) -> str:
        """Such as unet2-fold0-seed0."""
        return run_name(self.model, self.fold, self.seed)

    @property
    def outcome(self) -> Outcome:
        """What the run came to.

        Raises:
            ValueError: it is not finished.
        """
        return Outcome.model_validate({key: getattr(self, key) for key in Outcome.model_fields})

    @property
    def made_from(self) -> MadeFrom:
        """What scores and thresholds of this run name."""
        return MadeFrom.model_validate({key: getattr(self, key) for key in MadeFrom.model_fields})

    @property
    def trained_on(self) -> frozenset[str] | None:
        """Digests of the sections that the weights were trained or chosen by; None where they were not noted."""
        sections = self.section_digests
        return None if sections is None else frozenset(sections.training) | frozenset(sections.validation)

    @property
    def tested_on(self) -> frozenset[str] | None:
        """Digests of the sections that scores are of; None where they were not noted."""
        return None if self.section_digests is None else frozenset(self.section_digests.test)


_NOT_KNOWN_YET = frozenset(key for key, field in Run.model_fields.items() if not field.is_required())


def run_name(model: str, fold: int, seed: int) -> str:
    """The name of a run: unet2-fold0-seed0."""
    return f"{model}-fold{fold}-seed{seed}"
