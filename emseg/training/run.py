"""One training run from settings and data to a finished record."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import torch

from emseg.data.augmented import (
    AugmentedSet,
    FoldData,
    augmented_identity,
    fold_data,
    make_augmented,
    no_augmented,
    read_augmented,
)
from emseg.data.normalization import grey_levels
from emseg.data.protocol import Split, divide_augmented, split_sections
from emseg.data.separation import separation_distance
from emseg.data.sources import Source
from emseg.errors import InputError
from emseg.inference.memory import keep_freed_memory
from emseg.models import Network, build_model, count_parameters
from emseg.records.run import FINISHED
from emseg.settings import LEAKING_PROTOCOLS, AugmentedSetSettings, ProtocolSettings, RecipeSettings, Settings
from emseg.training.cost import flop_per_crop
from emseg.training.distributed import available_device, join_ranks
from emseg.training.lineage import code_digest, describe_lineage
from emseg.training.losses import make_loss
from emseg.training.record import RunRecord
from emseg.training.samples import TrainingSamples, check_crop, crop_size
from emseg.training.trainer import Trainer

AUGMENTED_FOLDER = Path("data/augmented")
_MOST_PARAMETERS = 2_000_000_000


def check_settings(settings: Settings, source: Source, models: list[str]) -> None:
    """Refuse settings that cannot work on these sections with these models, before any work.

    Raises:
        InputError: names the key.
    """
    for fold in settings.protocol.folds:
        split_of(settings, source, fold)
    if settings.protocol.name in LEAKING_PROTOCOLS:
        divide_augmented(settings.augment.count, seed=0)
    for name in models:
        recipe = settings.recipe(name)
        network = _layout(name, settings)
        check_crop(name, network, recipe, *source.images.shape[1:])
        _check_neighbours(name, network, recipe, settings.protocol.name)
        _check_network(name, network, settings, crop_size(recipe, source.images))


def split_of(settings: Settings, source: Source, fold: int) -> Split:
    """The split of one fold."""
    return split_sections(settings.protocol, len(source.images), fold, len(source.test_labels))


def augmented_folder(fold: int) -> Path:
    """Where the pipeline keeps the augmented set of a fold."""
    return AUGMENTED_FOLDER / f"fold{fold}"


def load_or_make_augmented(settings: Settings, source: Source, model: str, fold: int) -> AugmentedSet:
    """The augmented set that a model is trained on: the pipeline's where it is the right one, else one made in memory.

    It is empty where the recipe warps every crop anew, unless the protocol tests on augmented images.
    """
    split = split_of(settings, source, fold)
    return _load_or_make(source, split, settings.augment, settings.recipe(model).augmentation)


def augmented_of_record(record: RunRecord, source: Source) -> AugmentedSet:
    """The augmented set a run was trained on: the pipeline's where it is the same, else made again."""
    facts = record.read()
    protocol = ProtocolSettings(**facts["settings"]["protocol"])
    split = split_sections(protocol, len(source.images), facts["fold"], len(source.test_labels))
    settings = AugmentedSetSettings(**facts["settings"]["augment"])
    return _load_or_make(source, split, settings, facts["settings"]["training"]["augmentation"])


def train_model(
    model: str,
    settings: Settings,
    source: Source,
    augmented: AugmentedSet,
    fold: int,
    seed: int,
    folder: Path,
    replace_finished: bool = False,
    after_epoch: Callable[[RunRecord], None] = lambda _: None,
    device: torch.device | None = None,
    maximum_steps: int | None = None,
) -> RunRecord:
    """Train one model on one fold with one seed, or go on with a run that was killed.

    Args:
        model: a name under `models` in the settings.
        settings: params.yaml.
        source: the labelled sections.
        augmented: the augmented set of the fold.
        fold: which fold of the protocol.
        seed: of initial weights, batches and dropout.
        folder: of the run record.
        replace_finished: whether a finished run of other settings in that folder may be replaced. One of the same
            settings, data and code is kept as it is.
        after_epoch: called with the record at the start, after each epoch and at the end.
        device: None takes a GPU where there is one, this process's own under `torchrun`.
        maximum_steps: stop after so many optimiser steps.

    Raises:
        InputError: settings that cannot work, or a folder that holds something else.
        TrainingDiverged: the loss or a gradient became NaN or infinite.
    """
    device = device or available_device()
    keep_freed_memory(device)
    recipe, entry = settings.recipe(model), settings.models[model]
    split = split_of(settings, source, fold)
    data = fold_data(source, split, augmented, seed)
    torch.manual_seed(seed)
    architecture = entry.architecture or model
    network = build_model(architecture, **entry.network.overrides())
    check_crop(model, network, recipe, *data.images.shape[1:])
    _check_neighbours(model, network, recipe, split.protocol)
    identity = {
        "model": model,
        "dataset": source.name,
        "protocol": split.protocol,
        "fold": fold,
        "seed": seed,
        "data_digest": source.digest,
        "augmented_digest": augmented.digest,
        "code_digest": code_digest(),
        "maximum_steps": maximum_steps,
        "settings": {
            "architecture": architecture,
            "network": entry.network.overrides(),
            "loss": entry.loss,
            "dice_weight": entry.dice_weight,
            "weight_map": entry.weight_map.model_dump() if entry.weight_map else None,
            "training": recipe.model_dump(),
            "protocol": settings.protocol.model_dump(),
            "augment": settings.augment.model_dump(),
        },
    }
    facts = {
        "parameters": count_parameters(network),
        "flop_per_crop": flop_per_crop(architecture, entry.network.overrides(), *crop_size(recipe, data.images)),
        "normalization": {"low": data.normalization.low, "high": data.normalization.high},
        "grey_levels": grey_levels(data.normalization(source.images[list(split.training)])),
        "split": {
            "training": split.training,
            "validation": split.validation,
            "test": data.test_sections.tolist(),
        },
        "lineage": describe_lineage(device),
    }
    record = RunRecord(folder)
    with join_ranks(device) as ranks, record.lock() if ranks.leads else nullcontext():
        if recipe.batch % ranks.size or recipe.images_per_epoch % ranks.size:
            raise InputError(
                f"{ranks.size} processes cannot share models.{model}.training: batch {recipe.batch} and "
                f"images_per_epoch {recipe.images_per_epoch} must be multiples of {ranks.size}"
            )
        if ranks.leads:
            record.start(identity, facts, replace_finished)
        if ranks.share(ranks.leads and record.read()["status"] == FINISHED):
            if ranks.leads:
                after_epoch(record)
            return record
        network.to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        images, labels, separations = _training_images(data, source, split, recipe, settings)
        samples = TrainingSamples(
            images,
            labels,
            separations if entry.weight_map else None,
            split.training,
            network,
            recipe,
            settings.augment.scaled(recipe.augmentation_strength) if recipe.augmentation == "fresh" else None,
            device,
        )
        Trainer(
            network,
            samples,
            make_loss(entry.loss, entry.weight_map, float(labels.mean()), entry.dice_weight, ranks),
            (data.validation_images, data.validation_labels, data.validation_sections),
            recipe,
            record,
            seed,
            ranks,
            after_epoch,
            maximum_steps,
        ).run()
    return record


def _layout(model: str, settings: Settings) -> Network:
    """The network of a model without its weights."""
    entry = settings.models[model]
    try:
        with torch.device("meta"):
            return build_model(entry.architecture or model, **entry.network.overrides())
    except InputError as error:
        raise InputError(f"models.{model}: {error}") from error


def _check_neighbours(model: str, network: Network, recipe: RecipeSettings, protocol: str) -> None:
    if network.neighbours and (recipe.augmentation != "fresh" or protocol in LEAKING_PROTOCOLS):
        raise InputError(
            f"models.{model}.network.neighbours is {network.neighbours}, but augmented images have no neighbours; "
            "set it to 0, or training.augmentation to fresh under another protocol than paper"
        )


def _check_network(model: str, network: Network, settings: Settings, crop: tuple[int, int]) -> None:
    """Refuse what would train for nothing: no machine holds it, no batch norm takes it, no prediction covers it."""
    recipe, entry = settings.recipe(model), settings.models[model]
    if (parameters := count_parameters(network)) > _MOST_PARAMETERS:
        raise InputError(
            f"models.{model}.network has {parameters:,} parameters, more than {_MOST_PARAMETERS:,}; "
            "make base_channels or depth smaller"
        )
    if recipe.prediction in ("average", "resize") and network.padding != "valid":
        raise InputError(
            f"models.{model}.training.prediction is {recipe.prediction}, which is for networks of 'valid' padding; "
            "set auto or overlap_tile"
        )
    try:
        flop_per_crop(entry.architecture or model, entry.network.overrides(), *crop)
    except (RuntimeError, ValueError) as error:
        raise InputError(
            f"models.{model}.training.crop: {crop[0]} x {crop[1]} pixels are too few for this network, whose deepest "
            f"level sees one for every {network.stride} x {network.stride}; make the crop larger or the depth smaller"
        ) from error


def _training_images(
    data: FoldData, source: Source, split: Split, recipe: RecipeSettings, settings: Settings
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Images, labels and distances that crops are cut from."""
    if recipe.augmentation == "stored" or split.divides_augmented:
        return data.images, data.labels, data.separations
    sections = list(split.training)
    labels = source.labels[sections]
    limit = settings.augment.separation_limit
    key = (source.digest, tuple(sections), limit)
    # Distances depend on no setting that is tuned: the trials of a study share them.
    if key not in _separations:
        _separations.clear()
        _separations[key] = np.stack([separation_distance(label, limit) for label in labels]).astype(np.float16)
    return data.normalization.grey(source.images[sections]), labels, _separations[key]


_separations: dict[tuple[str, tuple[int, ...], float], np.ndarray] = {}


def _load_or_make(source: Source, split: Split, settings: AugmentedSetSettings, augmentation: str) -> AugmentedSet:
    if augmentation == "fresh" and not split.divides_augmented:
        return no_augmented(source, split, settings)
    try:
        return read_augmented(augmented_folder(split.fold), augmented_identity(source, split, settings))
    except InputError:
        return make_augmented(source, split, settings)
