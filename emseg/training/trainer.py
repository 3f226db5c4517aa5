"""The training loop: batch, forward, backward, step, validate, save."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import nn

from emseg.errors import RunError
from emseg.inference import Predictor
from emseg.inference.device import autocast
from emseg.metrics.scoring import LOWER_IS_BETTER, is_collapsed, score_validation
from emseg.models.network import Network
from emseg.records.record import RunRecord
from emseg.records.run import FAILED, Outcome
from emseg.settings import ValidationMetric
from emseg.training.averaging import WeightAverage
from emseg.training.distributed import Ranks
from emseg.training.losses import Loss
from emseg.training.optimizers import make_optimizer
from emseg.training.plan import RunPlan
from emseg.training.progress import Progress
from emseg.training.recorder import Recorder
from emseg.training.samples import Sample, TrainingSamples

_VALIDATION_METRICS: tuple[ValidationMetric, ...] = ("iou", "dice", "pixel_error")
_SIDE_WEIGHT = 0.5
"""Of the mean loss of the levels that are supervised beside the network's own logits."""
_CHECK_EVERY = 8
"""Steps between two looks at the loss; looking makes a GPU wait."""


class TrainingDiverged(RunError):  # noqa: N818
    """The loss or a gradient is not finite; the last good checkpoint and the best weights so far are kept."""


@dataclass
class TrainingState:
    """What a run carries from epoch to epoch, besides network and optimiser."""

    epoch: int = 0
    best: float | None = None
    best_epoch: int = 0
    stopping_best: float | None = None
    epochs_without_gain: int = 0
    collapsed: bool = False
    out_of_time: bool = False
    images_seen: int = 0
    validation_seconds: float = 0.0
    seconds: list[float] = field(default_factory=list)


class Trainer:
    """Train one network into one run record.

    Every epoch draws its randomness from (seed, epoch) alone, so a run that was killed and goes on from its
    last checkpoint sees the same batches and dropout as one that was not. Under a time budget how far it gets
    depends on the machine.

    Args:
        plan: of the run; its validation sections choose the checkpoint.
        network: with freshly drawn weights, on the device.
        samples: training crops.
        loss: on logits, labels, distances and pixels to ignore.
        record: where rank 0 writes everything; the others never look at it.
        ranks: the processes that share the run; batches must divide among them.
        after_epoch: called with the record when the run starts, after each epoch and when it ends.
    """

    def __init__(
        self,
        plan: RunPlan,
        network: Network,
        samples: TrainingSamples,
        loss: Loss,
        record: Recorder,
        ranks: Ranks,
        after_epoch: Callable[[RunRecord], None] = lambda _: None,
    ) -> None:
        self.network, self.samples, self.loss, self.validation = network, samples, loss, plan.validation
        self.recipe, self.record, self.seed, self.ranks = plan.recipe, record, plan.seed, ranks
        self.after_epoch = after_epoch if ranks.leads else lambda _: None
        self.maximum_steps = plan.maximum_steps
        self.device = samples.images.device
        self.training_logits = ranks.training_logits(network)
        recipe = plan.recipe
        self.average = WeightAverage(network, recipe.weight_average) if recipe.weight_average else None
        self.optimizer = make_optimizer(network, recipe)
        self.steps_per_epoch = -(-recipe.images_per_epoch // recipe.batch)
        self.state = TrainingState()
        self._learning_rate = 0.0
        self._epoch_started = time.perf_counter()

    def run(self) -> TrainingState:
        """Train to the end, from the last checkpoint if there is one.

        Raises:
            TrainingDiverged: the loss or a gradient became NaN or infinite; the record says so.
        """
        self._resume()
        self.after_epoch(self.record)
        try:
            name = self.record.name if self.ranks.leads else ""
            with Progress(name, self.recipe, self.steps_per_epoch, self.ranks.leads) as progress:
                while not self.ranks.share(self._finished()):
                    self._epoch(progress)
                    self.after_epoch(self.record)
        except TrainingDiverged as error:
            if self.ranks.leads:
                self.record.update(status=FAILED, message=str(error))
            self.after_epoch(self.record)
            raise
        if self.ranks.leads:
            self.record.finish(
                Outcome(
                    best_epoch=self.state.best_epoch,
                    epochs=self.state.epoch,
                    collapsed=self.state.collapsed,
                    seconds_per_epoch=float(np.median(self.state.seconds)),
                    training_seconds=sum(self.state.seconds),
                    images_seen=self.state.images_seen,
                )
            )
        self.after_epoch(self.record)
        return self.state

    @property
    def _kept_network(self) -> Network:
        """What is validated and saved."""
        return self.average.network if self.average else self.network

    def _finished(self) -> bool:
        stopping = self.recipe.early_stopping
        return (
            self.state.epoch >= self.recipe.epochs
            or (stopping is not None and self.state.epochs_without_gain >= stopping.patience)
            or (self.maximum_steps is not None and self.state.epoch * self.steps_per_epoch >= self.maximum_steps)
            or self.state.out_of_time
        )

    def _epoch(self, progress: Progress) -> None:
        self._epoch_started = started = time.perf_counter()
        epoch = self.state.epoch + 1
        progress.begin(epoch)
        train_loss = self._train(epoch, progress)
        if self.ranks.leads:
            validation_started = time.perf_counter()
            row = {"epoch": epoch, "train_loss": train_loss, **self._validate(), "learning_rate": self._learning_rate}
            self.state.validation_seconds = time.perf_counter() - validation_started
            row["seconds"] = time.perf_counter() - started
            self._judge(row)
            self.state.epoch = epoch
            self.state.seconds.append(row["seconds"])
            self.record.append_history(row)
            self.record.save_checkpoint(
                {
                    "epoch": epoch,
                    "state": vars(self.state),
                    "network": self.network.state_dict(),
                    "average": self.average.network.state_dict() if self.average else None,
                    "optimizer": self.optimizer.state_dict(),
                }
            )
            progress.end(row)
        self.state = self.ranks.share(self.state)

    def _train(self, epoch: int, progress: Progress) -> float:
        """One pass; returns the mean training loss."""
        self.network.train()
        torch.manual_seed(_mix(self.seed, epoch) + self.ranks.rank)
        generator = torch.Generator().manual_seed(_mix(self.seed, epoch) + 1)
        samples = self.samples.epoch(generator)
        first, last = (epoch - 1) * self.steps_per_epoch, epoch * self.steps_per_epoch
        steps = range(first, last if self.maximum_steps is None else min(last, self.maximum_steps))
        time_share = self._share_of_time()
        losses: list[float] = []
        unchecked: list[torch.Tensor] = []
        for step in steps:
            self._learning_rate = self.learning_rate(step, time_share)
            for group in self.optimizer.param_groups:
                group["lr"] = self._learning_rate
            start = (step - first) * self.recipe.batch
            unchecked.append(self._step(samples[start : start + self.recipe.batch], generator))
            self.state.images_seen += len(samples[start : start + self.recipe.batch])
            if self.average:
                self.average.update(self.network, step)
            if len(unchecked) == _CHECK_EVERY or step == steps[-1]:
                losses += self._check(unchecked, step)
                progress.step(len(unchecked), losses[-1])
                unchecked.clear()
                time_share = self._share_of_time()
                if time_share >= 1:
                    self.state.out_of_time = True
                    break
        return float(np.mean(losses))

    def _step(self, samples: list[Sample], generator: torch.Generator) -> torch.Tensor:
        """One optimiser step; returns loss and gradient norm, on the device."""
        self.optimizer.zero_grad()
        warps = self.samples.draw_warps(len(samples), generator)
        part = self.ranks.part(len(samples))
        samples, warps = samples[part], None if warps is None else warps[part]
        size = self.recipe.micro_batch or self.recipe.batch
        total = torch.zeros((), device=self.device)
        for start in range(0, len(samples), size):
            piece = slice(start, start + size)
            batch = self.samples.batch(samples[piece], None if warps is None else warps[piece])
            known = batch.labels, batch.separations, batch.ignore
            with autocast(self.device, self.recipe.precision):
                logits, *side_logits = self.training_logits(batch.images)
            loss = self.loss(logits.float(), *known)
            if side_logits:
                sides = [self.loss(side.float(), *known) for side in side_logits]
                loss = loss + _SIDE_WEIGHT * torch.stack(sides).mean()
            loss = loss * (len(samples[piece]) / len(samples))
            loss.backward()
            total += loss.detach()
        norm = nn.utils.clip_grad_norm_(self.network.parameters(), self.recipe.gradient_clip or math.inf)
        self.optimizer.step()
        return torch.stack([self.ranks.mean(total), norm])

    def _check(self, steps: list[torch.Tensor], last: int) -> list[float]:
        """Losses of the last steps, whose last is number `last`.

        Raises:
            TrainingDiverged: one of them, or its gradient norm, is not finite.
        """
        values = torch.stack(steps).tolist()
        for step, (loss, norm) in enumerate(values, start=last - len(values) + 2):
            if not (math.isfinite(loss) and math.isfinite(norm)):
                raise TrainingDiverged(
                    f"step {step}: loss {loss:g}, gradient norm {norm:g}; training stopped, "
                    f"the checkpoint of epoch {self.state.epoch} is kept (try a smaller learning_rate or gradient_clip)"
                )
        return [loss for loss, _ in values]

    def _share_of_time(self) -> float:
        """Share of the time budget that is spent, the coming validation included; 0 without a budget."""
        if self.recipe.budget_minutes is None:
            return 0.0
        spent = sum(self.state.seconds) + time.perf_counter() - self._epoch_started + self.state.validation_seconds
        return self.ranks.share(spent / (60 * self.recipe.budget_minutes))

    def _validate(self) -> dict[str, float]:
        # Without test-time augmentation: which epoch is best is not worth eight predictions.
        probability = Predictor(self._kept_network, precision=self.recipe.precision).predict(
            self.validation.images, self.validation.places
        )
        if not np.isfinite(probability).all():
            raise TrainingDiverged(f"the network predicts NaN after epoch {self.state.epoch + 1}; training stopped")
        self.state.collapsed = is_collapsed(probability)
        # V_rand and V_info cost more than the prediction, so only where the recipe looks at them.
        metrics = [*_VALIDATION_METRICS, self.recipe.select_metric]
        if (stopping := self.recipe.early_stopping) and stopping.metric != "train_loss":
            metrics.append(stopping.metric)
        scores = score_validation(probability, metrics=dict.fromkeys(metrics), **self.validation.for_metrics)
        return {f"validation_{metric}": value for metric, value in scores.items()}

    def _judge(self, row: dict[str, float]) -> None:
        """Keep the weights where they are to be kept, and count epochs without gain."""
        value = row[f"validation_{self.recipe.select_metric}"]
        is_best = _is_better(value, self.state.best, self.recipe.select_metric)
        if is_best or self.recipe.select == "last":
            self.record.save_weights(self._kept_network)
            self.state.best_epoch = int(row["epoch"])
        if is_best:
            self.state.best = value
        if stopping := self.recipe.early_stopping:
            value = row["train_loss" if stopping.metric == "train_loss" else f"validation_{stopping.metric}"]
            gained = _is_better(value, self.state.stopping_best, stopping.metric)
            self.state.epochs_without_gain = 0 if gained else self.state.epochs_without_gain + 1
            if gained:
                self.state.stopping_best = value

    def learning_rate(self, step: int, time_share: float = 0.0) -> float:
        """Learning rate of an optimiser step, counted from 0 over the whole run, at a share of the time budget."""
        warmup = self.recipe.warmup_epochs * self.steps_per_epoch
        rate = self.recipe.learning_rate
        if step < warmup:
            return rate * (step + 1) / (warmup + 1)
        if self.recipe.schedule == "constant":
            return rate
        total = self.recipe.epochs * self.steps_per_epoch
        progress = max((step - warmup) / max(1, total - warmup), min(time_share, 1.0))
        return rate * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * progress)))

    def _resume(self) -> None:
        # The record may lie on rank 0's machine alone.
        checkpoint = self.ranks.share(self.record.load_checkpoint() if self.ranks.leads else None)
        if checkpoint:
            self.network.load_state_dict(checkpoint["network"])
            self.optimizer.load_state_dict(checkpoint["optimizer"])
            if self.average:
                self.average.network.load_state_dict(checkpoint["average"])
            self.state = TrainingState(**checkpoint["state"])


def _is_better(value: float, best: float | None, metric: str) -> bool:
    if best is None:
        return True
    return value < best if metric in LOWER_IS_BETTER else value > best


def _mix(seed: int, epoch: int) -> int:
    return int(np.random.SeedSequence((seed, epoch)).generate_state(1)[0])
