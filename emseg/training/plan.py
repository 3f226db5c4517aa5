"""One run before it ran: what is trained on what, settled and checked once."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from emseg.data.augmented_set import AugmentedSet, augmented_identity, make_augmented, no_augmented, read_augmented
from emseg.data.labelled_sections import LabelledSections, Parts, divide
from emseg.data.normalization import Normalization
from emseg.data.protocol import Split, divide_augmented, split_sections
from emseg.data.separation import separation_distances
from emseg.data.sources import Source
from emseg.errors import InputError
from emseg.models import Network, build_model, count_parameters
from emseg.models.own import NetworkFile, load_networks, origin_of
from emseg.records.code import code_digest
from emseg.records.record import RunRecord
from emseg.records.run import Identity, SectionsOfRun, SettingsOfRun, run_name
from emseg.settings import LEAKING_PROTOCOLS, AugmentedSetSettings, ModelSettings, RecipeSettings, Settings, check_seed
from emseg.training.cost import flop_per_crop
from emseg.training.progress import warping
from emseg.training.samples import TrainingStack, check_crop, fit_crop

AUGMENTED_FOLDER = Path("data/augmented")
_MOST_PARAMETERS = 2_000_000_000


@dataclass(frozen=True)
class RunPlan:
    """One model, trained on one fold of a dataset with one seed. A plan that exists can be trained and evaluated.

    Args:
        model: a name under `models` in the settings.
        fold: of the protocol.
        seed: of initial weights, batches and dropout.
        settings: params.yaml.
        dataset: the labelled sections.
        maximum_steps: stop after so many optimiser steps, to try a recipe out; None: train to the end.

    Raises:
        InputError: names the setting that cannot work on these sections.
    """

    model: str
    fold: int
    seed: int
    settings: Settings
    dataset: Source
    maximum_steps: int | None = None

    def __post_init__(self) -> None:
        self.settings.recipe(self.model)  # names the models that there are
        if self.settings.code is not None:
            load_networks(self.settings.code)
        check_seed(self.seed)
        if self.maximum_steps is not None and self.maximum_steps < 1:
            raise InputError(f"--maximum-steps is at least 1, not {self.maximum_steps}")
        if self.settings.protocol.name in LEAKING_PROTOCOLS:
            divide_augmented(self.settings.augment.count, self.seed)
        layout, height_and_width = self.layout, self.dataset.images.shape[1:]
        check_crop(self.model, layout, self.recipe, *height_and_width)
        _check_neighbours(self.model, layout, self.recipe, self.split.protocol)
        self._check_network()

    @property
    def entry(self) -> ModelSettings:
        """The model's part of the settings."""
        return self.settings.models[self.model]

    @property
    def architecture(self) -> str:
        """The catalog's name of the network."""
        return self.entry.architecture or self.model

    @property
    def networks(self) -> NetworkFile | None:
        """The project's file that the network comes from; None: it is one of the catalog's own."""
        return origin_of(self.architecture)

    @property
    def name(self) -> str:
        """Such as unet2-fold0-seed0."""
        return run_name(self.model, self.fold, self.seed)

    @cached_property
    def recipe(self) -> RecipeSettings:
        """How it is trained; a crop larger than the sections is the largest that fits."""
        recipe = self.settings.recipe(self.model)
        return recipe.model_copy(update={"crop": fit_crop(recipe, self.layout, *self.dataset.images.shape[1:])})

    @property
    def notes(self) -> list[str]:
        """What a person should know before the run starts."""
        asked, height, width = self.settings.recipe(self.model).crop, *self.dataset.images.shape[1:]
        if asked == self.recipe.crop:
            return self.split.notes
        crop = f"crops are {self.recipe.crop} pixels, not {asked}: the sections have {height} x {width} pixels"
        return [crop, *self.split.notes]

    @cached_property
    def split(self) -> Split:
        """Which sections train, validate and test."""
        return split_of(self.settings, self.dataset, self.fold)

    @cached_property
    def layout(self) -> Network:
        """The network without weights."""
        try:
            with torch.device("meta"):
                return build_model(self.architecture, **self.entry.network.overrides())
        except InputError as error:
            raise InputError(f"models.{self.model}: {error}") from error

    @cached_property
    def flop_per_crop(self) -> int:
        """Of convolutions, forward and backward."""
        height, width = self.dataset.images.shape[1:]
        crop = self.recipe.crop
        return flop_per_crop(self.architecture, self.entry.network.overrides(), crop or height, crop or width)

    @cached_property
    def augmented(self) -> AugmentedSet:
        """The pipeline's augmented set where it is the right one, else one made in memory.

        It is empty where the recipe warps every crop anew, unless the protocol tests on augmented images.
        """
        return _augmented(self.dataset, self.split, self.settings.augment, self.recipe.augmentation)

    @cached_property
    def parts(self) -> Parts:
        """Sections to train, validate and test on."""
        return divide(self.dataset, self.split, self.augmented.normalization, self.augmented, self.seed)

    @property
    def validation(self) -> LabelledSections:
        """What chooses the checkpoint."""
        return self.parts.validation

    @cached_property
    def training_stack(self) -> TrainingStack:
        """What crops are cut from."""
        wants_distances = self.entry.weight_map is not None
        if self.recipe.augmentation == "stored" and not self.split.divides_augmented:
            made = self.augmented
            distances = made.separations if wants_distances else None
            return TrainingStack(made.images, made.labels, distances, made.sources, made.ignore)
        part = self.parts.training
        distances = None
        if wants_distances and self.split.divides_augmented:
            distances = self.augmented.separations[part.numbers]
        elif wants_distances:
            limit = self.settings.augment.separation_limit
            distances = separation_distances(part.labels, part.cells, limit).astype(np.float16)
        return TrainingStack(part.images, part.labels, distances, part.places, part.ignore)

    @property
    def identity(self) -> Identity:
        """What decides the weights."""
        return self.identity_with(self.augmented.digest)

    def identity_with(self, augmented_digest: str) -> Identity:
        """The identity for a digest of the augmented set, which follows from the rest and takes a while to make."""
        entry, networks = self.entry, self.networks
        return Identity(
            model=self.model,
            dataset=self.dataset.name,
            protocol=self.settings.protocol.name,
            fold=self.fold,
            seed=self.seed,
            data_digest=self.dataset.digest,
            augmented_digest=augmented_digest,
            code_digest=code_digest(),
            networks_sha256=networks.sha256 if networks else None,
            maximum_steps=self.maximum_steps,
            settings=SettingsOfRun(
                architecture=self.architecture,
                network=entry.network,
                loss=entry.loss,
                dice_weight=entry.dice_weight,
                weight_map=entry.weight_map,
                training=self.recipe,
                protocol=self.settings.protocol,
                augment=self.settings.augment,
            ),
        )

    @property
    def section_digests(self) -> SectionsOfRun:
        """Of the sections that the parts consist of, or are warped copies of."""
        split, own, tested = self.split, self.dataset.section_digests, self.dataset.section_digests
        training, validation, test = split.training, split.validation, split.test
        if split.divides_augmented:
            parts = (self.parts.training, self.parts.validation, self.parts.test)
            training, validation, test = (tuple(np.unique(self.augmented.sources[part.numbers])) for part in parts)
        elif split.protocol == "official":
            tested = self.dataset.test_section_digests
        return SectionsOfRun(
            training=[own[index] for index in training],
            validation=[own[index] for index in validation],
            test=[tested[index] for index in test],
        )

    def changed(self, **fields: Any) -> RunPlan:
        """The plan with other fields; an augmented set that is the same is not made again."""
        other = replace(self, **fields)
        if "augmented" in vars(self) and other._augmented_key == self._augmented_key:
            vars(other)["augmented"] = self.augmented
        if "training_stack" in vars(self) and other._stack_key == self._stack_key:
            vars(other)["training_stack"] = self.training_stack
        return other

    @property
    def _augmented_key(self) -> Any:
        identity = augmented_identity(self.dataset, self.split, self.settings.augment)
        return identity, self.recipe.augmentation == "fresh"

    @property
    def _stack_key(self) -> Any:
        divided_by = self.seed if self.split.divides_augmented else None
        return self._augmented_key, self.entry.weight_map is None, divided_by

    def _check_network(self) -> None:
        """Refuse what would train for nothing: no machine holds it, no batch norm takes it, no prediction covers it."""
        model = f"models.{self.model}"
        if (parameters := count_parameters(self.layout)) > _MOST_PARAMETERS:
            raise InputError(
                f"{model}.network has {parameters:,} parameters, more than {_MOST_PARAMETERS:,}; "
                "make base_channels or depth smaller"
            )
        if self.recipe.prediction in ("average", "resize") and self.layout.padding != "valid":
            raise InputError(
                f"{model}.training.prediction is {self.recipe.prediction}, which is for networks of 'valid' padding; "
                "set auto or overlap_tile"
            )
        try:
            _ = self.flop_per_crop
        except (RuntimeError, ValueError) as error:
            crop, stride = self.recipe.crop, self.layout.stride
            height, width = (crop, crop) if crop else self.dataset.images.shape[1:]
            raise InputError(
                f"{model}.training.crop: {height} x {width} pixels are too few for this network, whose deepest level "
                f"sees one for every {stride} x {stride}; make the crop larger or the depth smaller"
            ) from error


def check_plans(settings: Settings, dataset: Source, models: list[str]) -> list[str]:
    """Refuse settings that cannot work on these sections with these models, before any work.

    Returns:
        The notes of the plans.

    Raises:
        InputError: names the setting.
    """
    notes: dict[str, None] = {}
    for model in models:
        for fold in settings.protocol.folds:
            plan = RunPlan(model, fold, settings.seeds[0], settings, dataset)
            notes |= dict.fromkeys(f"{model}: {note}" for note in plan.notes)
    return list(notes)


def split_of(settings: Settings, dataset: Source, fold: int) -> Split:
    """The split of one fold."""
    return split_sections(settings.protocol, dataset.lengths, fold, len(dataset.test_labels))


def augmented_folder(fold: int) -> Path:
    """Where the pipeline keeps the augmented set of a fold."""
    return AUGMENTED_FOLDER / f"fold{fold}"


def parts_of_run(record: RunRecord, dataset: Source) -> Parts:
    """What a run trained, validated and is tested on.

    Raises:
        InputError: `dataset` is not what it was trained on.
    """
    run = record.read()
    if run.data_digest != dataset.digest:
        raise InputError(
            f"{record.folder} was trained on {run.dataset} with digest {run.data_digest}, "
            f"but {dataset.name} now has digest {dataset.digest}"
        )
    settings = run.settings
    split = split_sections(settings.protocol, dataset.lengths, run.fold, len(dataset.test_labels))
    augmented = None
    if split.divides_augmented:
        augmented = _augmented(dataset, split, settings.augment, settings.training.augmentation)
    return divide(dataset, split, Normalization(run.normalization.low, run.normalization.high), augmented, run.seed)


def _augmented(dataset: Source, split: Split, settings: AugmentedSetSettings, augmentation: str) -> AugmentedSet:
    if augmentation == "fresh" and not split.divides_augmented:
        return no_augmented(dataset, split, settings)
    try:
        return read_augmented(augmented_folder(split.fold), augmented_identity(dataset, split, settings))
    except InputError:
        with warping(settings.count, len(split.training)) as progress:
            return make_augmented(dataset, split, settings, progress)


def _check_neighbours(model: str, network: Network, recipe: RecipeSettings, protocol: str) -> None:
    if network.neighbours and (recipe.augmentation != "fresh" or protocol in LEAKING_PROTOCOLS):
        raise InputError(
            f"models.{model}.network.neighbours is {network.neighbours}, but augmented images have no neighbours; "
            "set it to 0, or training.augmentation to fresh under another protocol than paper"
        )
