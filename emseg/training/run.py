"""One training run, from its plan to a finished record."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import torch

from emseg.data.normalization import grey_levels
from emseg.errors import InputError
from emseg.inference.device import available_device, device_name, keep_freed_memory
from emseg.models import build_model, count_parameters
from emseg.records.lineage import describe_lineage
from emseg.records.record import RunRecord, now
from emseg.records.run import FINISHED, RUNNING, NormalizationOfRun, Run, SplitOfRun
from emseg.settings import AugmentSettings
from emseg.training.distributed import join_ranks
from emseg.training.losses import make_loss
from emseg.training.plan import RunPlan
from emseg.training.recorder import Recorder
from emseg.training.samples import TrainingSamples
from emseg.training.trainer import Trainer


def train_model(
    plan: RunPlan,
    folder: Path,
    replace_finished: bool = False,
    after_epoch: Callable[[RunRecord], None] = lambda _: None,
    device: torch.device | None = None,
) -> RunRecord:
    """Train what a plan says, or go on with a run that was killed.

    Args:
        plan: of the run.
        folder: of the run record.
        replace_finished: whether a finished run of another plan in that folder may be replaced. One of the same
            settings, data and code is kept as it is.
        after_epoch: called with the record at the start, after each epoch and at the end.
        device: None takes a GPU where there is one, this process's own under `torchrun`.

    Returns:
        The finished record.

    Raises:
        InputError: the folder holds something else, or processes cannot share the batch.
        TrainingDiverged: the loss or a gradient became NaN or infinite.
    """
    device = device or available_device()
    keep_freed_memory(device)
    recipe, entry = plan.recipe, plan.entry
    record = Recorder(folder)
    with join_ranks(device) as ranks, record.lock() if ranks.leads else nullcontext():
        if recipe.batch % ranks.size or recipe.images_per_epoch % ranks.size:
            raise InputError(
                f"{ranks.size} processes cannot share models.{plan.model}.training: batch {recipe.batch} and "
                f"images_per_epoch {recipe.images_per_epoch} must be multiples of {ranks.size}"
            )
        if ranks.leads:
            known = record.finished_run()
            # The augmented set follows from the rest of the identity: what is finished does not wait for it.
            if known is None or known.fingerprint != plan.identity_with(known.augmented_digest).digest:
                record.start(_begun(plan, device), replace_finished)
        if ranks.share(ranks.leads and record.read().status == FINISHED):
            if ranks.leads:
                after_epoch(record)
            return record
        torch.manual_seed(plan.seed)
        network = build_model(plan.architecture, **entry.network.overrides())
        network.to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        stack = plan.training_stack
        augment = _scaled(plan.settings.augment, recipe.augmentation_strength)
        samples = TrainingSamples(stack, network, recipe, augment if recipe.augmentation == "fresh" else None, device)
        loss = make_loss(entry.loss, entry.weight_map, stack.interior_share, entry.dice_weight, ranks)
        Trainer(plan, network, samples, loss, record, ranks, after_epoch).run()
    return record


def _scaled(settings: AugmentSettings, strength: float) -> AugmentSettings:
    """Every range times `strength`, as far as it goes; flips and shifts stay as they are."""
    largest = {"rotation": 180.0, "shear": 79.0, "zoom": 0.89, "brightness": 1.0, "contrast": 0.99}
    names = (*largest, "elastic_amplitude")
    ranges = {name: min(getattr(settings, name) * strength, largest.get(name, float("inf"))) for name in names}
    return settings.model_copy(update=ranges)


def _begun(plan: RunPlan, device: torch.device) -> Run:
    identity, normalization = plan.identity, plan.augmented.normalization
    images, ignore, training = plan.dataset.images, plan.dataset.ignore, list(plan.split.training)
    return Run(
        **dict(identity),
        fingerprint=identity.digest,
        id=uuid.uuid4().hex,
        status=RUNNING,
        message=None,
        resumed=0,
        created=now(),
        finished=None,
        dataset_card=plan.dataset.noted,
        parameters=count_parameters(plan.layout),
        flop_per_crop=plan.flop_per_crop,
        normalization=NormalizationOfRun(low=normalization.low, high=normalization.high),
        grey_levels=grey_levels(normalization(images[training]), None if ignore is None else ignore[training]),
        split=SplitOfRun(
            training=list(plan.split.training),
            validation=list(plan.split.validation),
            test=plan.parts.test.numbers.tolist(),
        ),
        section_digests=plan.section_digests,
        lineage=describe_lineage(device_name(device), torch.get_num_threads(), plan.networks),
    )
