"""One training run, from its plan to a finished record."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch

from emseg.data.normalization import grey_levels
from emseg.errors import InputError
from emseg.inference.memory import keep_freed_memory
from emseg.models import build_model, count_parameters
from emseg.records.run import FINISHED
from emseg.training.distributed import available_device, join_ranks
from emseg.training.lineage import describe_lineage
from emseg.training.losses import make_loss
from emseg.training.plan import RunPlan
from emseg.training.record import RunRecord
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
    record = RunRecord(folder)
    with join_ranks(device) as ranks, record.lock() if ranks.leads else nullcontext():
        if recipe.batch % ranks.size or recipe.images_per_epoch % ranks.size:
            raise InputError(
                f"{ranks.size} processes cannot share models.{plan.model}.training: batch {recipe.batch} and "
                f"images_per_epoch {recipe.images_per_epoch} must be multiples of {ranks.size}"
            )
        if ranks.leads:
            record.start(plan.identity, _facts(plan, device), replace_finished)
        if ranks.share(ranks.leads and record.read()["status"] == FINISHED):
            if ranks.leads:
                after_epoch(record)
            return record
        torch.manual_seed(plan.seed)
        network = build_model(plan.architecture, **entry.network.overrides())
        network.to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        stack = plan.training_stack
        augment = plan.settings.augment.scaled(recipe.augmentation_strength)
        samples = TrainingSamples(stack, network, recipe, augment if recipe.augmentation == "fresh" else None, device)
        loss = make_loss(entry.loss, entry.weight_map, float(stack.labels.mean()), entry.dice_weight, ranks)
        Trainer(plan, network, samples, loss, record, ranks, after_epoch).run()
    return record


def _facts(plan: RunPlan, device: torch.device) -> dict[str, Any]:
    normalization = plan.augmented.normalization
    return {
        "parameters": count_parameters(plan.layout),
        "flop_per_crop": plan.flop_per_crop,
        "normalization": {"low": normalization.low, "high": normalization.high},
        "grey_levels": grey_levels(normalization(plan.dataset.images[list(plan.split.training)])),
        "split": {
            "training": plan.split.training,
            "validation": plan.split.validation,
            "test": plan.parts.test.numbers.tolist(),
        },
        "lineage": describe_lineage(device),
    }
