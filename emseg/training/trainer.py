"""The training loop: batch, forward, backward, step, validate, save."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import nn

from emseg.inference import Predictor
from emseg.metrics.scoring import LOWER_IS_BETTER, is_collapsed, score_pixels
from emseg.models.network import Network
from emseg.settings import RecipeSettings
from emseg.training.losses import Loss
from emseg.training.progress import Progress
from emseg.training.record import FAILED, RunRecord
from emseg.training.samples import TrainingSamples

_VALIDATION_METRICS = ("iou", "dice", "pixel_error")


class TrainingDiverged(RuntimeError):  # noqa: N818
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
    seconds: list[float] = field(default_factory=list)


class Trainer:
    """Train one network into one run record.

    Every epoch draws its randomness from (seed, epoch) alone, so a run that was killed and goes on from its
    last checkpoint sees the same batches and dropout as one that was not.

    Args:
        network: with freshly drawn weights, on the device.
        samples: training crops.
        loss: on logits, labels and distances.
        validation: images uint8 (Z, Y, X) and labels bool that choose the checkpoint.
        recipe: optimiser, schedule, epochs, stopping.
        record: where everything is written.
        seed: of batches and dropout.
        after_epoch: called with the record when the run starts, after each epoch and when it ends.
        maximum_steps: stop after so many optimiser steps, to try a recipe out; None: run it whole.
    """

    def __init__(
        self,
        network: Network,
        samples: TrainingSamples,
        loss: Loss,
        validation: tuple[np.ndarray, np.ndarray],
        recipe: RecipeSettings,
        record: RunRecord,
        seed: int,
        after_epoch: Callable[[RunRecord], None] = lambda _: None,
        maximum_steps: int | None = None,
    ) -> None:
        self.network, self.samples, self.loss, self.validation = network, samples, loss, validation
        self.recipe, self.record, self.seed, self.after_epoch = recipe, record, seed, after_epoch
        self.maximum_steps = maximum_steps
        self.device = samples.images.device
        kind = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[recipe.optimizer]
        self.optimizer = kind(network.parameters(), lr=recipe.learning_rate, weight_decay=recipe.weight_decay)
        self.steps_per_epoch = -(-recipe.images_per_epoch // recipe.batch)
        self.state = TrainingState()

    def run(self) -> TrainingState:
        """Train to the end, from the last checkpoint if there is one.

        Raises:
            TrainingDiverged: the loss or a gradient became NaN or infinite; the record says so.
        """
        self._resume()
        self.after_epoch(self.record)
        try:
            with Progress(self.record.name, self.recipe.epochs, self.steps_per_epoch) as progress:
                while not self._finished():
                    self._epoch(progress)
                    self.after_epoch(self.record)
        except TrainingDiverged as error:
            self.record.update(status=FAILED, message=str(error))
            self.after_epoch(self.record)
            raise
        self.record.finish(
            best_epoch=self.state.best_epoch,
            epochs=self.state.epoch,
            collapsed=self.state.collapsed,
            seconds_per_epoch=float(np.median(self.state.seconds)),
        )
        self.after_epoch(self.record)
        return self.state

    def _finished(self) -> bool:
        stopping = self.recipe.early_stopping
        return (
            self.state.epoch >= self.recipe.epochs
            or (stopping is not None and self.state.epochs_without_gain >= stopping.patience)
            or (self.maximum_steps is not None and self.state.epoch * self.steps_per_epoch >= self.maximum_steps)
        )

    def _epoch(self, progress: Progress) -> None:
        started = time.perf_counter()
        epoch = self.state.epoch + 1
        progress.begin(epoch)
        train_loss = self._train(epoch, progress)
        row = {
            "epoch": epoch,
            "train_loss": train_loss,
            **self._validate(),
            "learning_rate": self._learning_rate,
        }
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
                "optimizer": self.optimizer.state_dict(),
            }
        )
        progress.end(row)

    def _train(self, epoch: int, progress: Progress) -> float:
        """One pass; returns the mean training loss."""
        self.network.train()
        torch.manual_seed(_mix(self.seed, epoch))
        samples = self.samples.epoch(torch.Generator().manual_seed(_mix(self.seed, epoch) + 1))
        losses = []
        for step in range(self.steps_per_epoch):
            done = (epoch - 1) * self.steps_per_epoch + step
            if self.maximum_steps is not None and done >= self.maximum_steps:
                break
            self._learning_rate = self.learning_rate(done)
            for group in self.optimizer.param_groups:
                group["lr"] = self._learning_rate
            losses.append(self._step(samples[step * self.recipe.batch : (step + 1) * self.recipe.batch], done))
            progress.step(losses[-1])
        return float(np.mean(losses))

    def _step(self, samples: list[Any], step: int) -> float:
        self.optimizer.zero_grad(set_to_none=True)
        size = self.recipe.micro_batch or self.recipe.batch
        total = 0.0
        for start in range(0, len(samples), size):
            part = samples[start : start + size]
            images, labels, separations = self.samples.batch(part)
            with torch.autocast(self.device.type, torch.bfloat16, enabled=self.device.type == "cuda"):
                logits = self.network(images)
            loss = self.loss(logits.float(), labels, separations) * (len(part) / len(samples))
            loss.backward()
            total += float(loss.detach())
        limit = self.recipe.gradient_clip or math.inf
        norm = float(nn.utils.clip_grad_norm_(self.network.parameters(), limit))
        if not (math.isfinite(total) and math.isfinite(norm)):
            raise TrainingDiverged(
                f"step {step + 1}: loss {total:g}, gradient norm {norm:g}; training stopped, "
                f"the checkpoint of epoch {self.state.epoch} is kept (try a smaller learning_rate or gradient_clip)"
            )
        self.optimizer.step()
        return total

    def _validate(self) -> dict[str, float]:
        images, labels = self.validation
        # Without test-time augmentation: which epoch is best is not worth eight predictions.
        probability = np.stack(list(Predictor(self.network).stream(images)))
        if not np.isfinite(probability).all():
            raise TrainingDiverged(f"the network predicts NaN after epoch {self.state.epoch + 1}; training stopped")
        self.state.collapsed = is_collapsed(probability)
        scores = score_pixels(probability, labels)
        return {f"validation_{metric}": float(scores[metric].mean()) for metric in _VALIDATION_METRICS}

    def _judge(self, row: dict[str, float]) -> None:
        """Keep the weights where they are to be kept, and count epochs without gain."""
        value = row[f"validation_{self.recipe.select_metric}"]
        is_best = _is_better(value, self.state.best, self.recipe.select_metric)
        if is_best or self.recipe.select == "last":
            self.record.save_weights(self.network)
            self.state.best_epoch = int(row["epoch"])
        if is_best:
            self.state.best = value
        if stopping := self.recipe.early_stopping:
            value = row["train_loss" if stopping.metric == "train_loss" else f"validation_{stopping.metric}"]
            gained = _is_better(value, self.state.stopping_best, stopping.metric)
            self.state.epochs_without_gain = 0 if gained else self.state.epochs_without_gain + 1
            if gained:
                self.state.stopping_best = value

    def learning_rate(self, step: int) -> float:
        """Learning rate of an optimiser step, counted from 0 over the whole run."""
        warmup = self.recipe.warmup_epochs * self.steps_per_epoch
        rate = self.recipe.learning_rate
        if step < warmup:
            return rate * (step + 1) / (warmup + 1)
        if self.recipe.schedule == "constant":
            return rate
        total = self.recipe.epochs * self.steps_per_epoch
        progress = (step - warmup) / max(1, total - warmup)
        return rate * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * progress)))

    def _resume(self) -> None:
        self._learning_rate = 0.0
        if checkpoint := self.record.load_checkpoint():
            self.network.load_state_dict(checkpoint["network"])
            self.optimizer.load_state_dict(checkpoint["optimizer"])
            self.state = TrainingState(**checkpoint["state"])


def _is_better(value: float, best: float | None, metric: str) -> bool:
    if best is None:
        return True
    return value < best if metric in LOWER_IS_BETTER else value > best


def _mix(seed: int, epoch: int) -> int:
    return int(np.random.SeedSequence((seed, epoch)).generate_state(1)[0])
