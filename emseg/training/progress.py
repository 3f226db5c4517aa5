"""Progress of a training run: a live bar on a terminal, a line per epoch in a log."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

from emseg.settings import RecipeSettings


@contextmanager
def warping(images: int, sections: int) -> Iterator[Callable[[int, int], None]]:
    """Say that augmented images are made, which takes a while: a bar on a terminal, a line in a log.

    Args:
        images: to be made.
        sections: that they are made of.

    Yields:
        A function to tell how many images of how many are done.
    """
    # Under torchrun one process speaks.
    console = Console(file=sys.stderr, quiet=os.environ.get("RANK", "0") != "0")
    what = f"warping {images} images of {sections} sections"
    if not console.is_terminal:
        console.print(f"{what} ...", highlight=False)
        yield lambda done, total: None
        return
    columns = (TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn())
    with Bar(*columns, console=console, transient=True) as bar:
        task = bar.add_task(what, total=images)
        yield lambda done, total: bar.update(task, completed=done)


class Progress:
    """Show loss, validation metric, speed and time left.

    Args:
        name: of the run.
        recipe: tells epochs and time budget.
        steps: in an epoch.
        is_shown: False says nothing, for all but one of the processes of a run.
    """

    def __init__(self, name: str, recipe: RecipeSettings, steps: int, is_shown: bool) -> None:
        self.name, self.epochs, self.steps = name, recipe.epochs, steps
        self.seconds_left = 60 * recipe.budget_minutes if recipe.budget_minutes else None
        self.console = Console(file=sys.stderr, quiet=not is_shown)
        self.bar = Bar(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.fields[status]}"),
            TimeRemainingColumn(),
            console=self.console,
            disable=not self.console.is_terminal,
        )
        self.status = ""
        self.validated = ""

    def __enter__(self) -> Progress:
        self.bar.start()
        self.task = self.bar.add_task(self.name, total=self.epochs * self.steps, status="")
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.stop()

    def begin(self, epoch: int) -> None:
        """An epoch begins."""
        self.epoch, self.started, self.done = epoch, time.perf_counter(), 0
        self.bar.update(self.task, completed=(epoch - 1) * self.steps)

    def step(self, count: int, loss: float) -> None:
        """`count` optimiser steps were made, the last with `loss`."""
        self.done += count
        speed = self.done / (time.perf_counter() - self.started)
        self.bar.update(
            self.task,
            advance=count,
            status=f"epoch {self.epoch}/{self.epochs}  loss {loss:.4f}  {self.validated}{speed:.1f} steps/s",
        )

    def end(self, row: dict[str, float]) -> None:
        """An epoch was validated; `row` is its row of the history."""
        self.validated = f"pixel error {row['validation_pixel_error']:.4f}  "
        if not self.console.is_terminal:
            left = (self.epochs - self.epoch) * row["seconds"]
            if self.seconds_left is not None:
                self.seconds_left -= row["seconds"]
                left = min(left, max(self.seconds_left, 0))
            self.console.print(
                f"{self.name}  epoch {self.epoch}/{self.epochs}  loss {row['train_loss']:.4f}  "
                f"{self.validated}Dice {row['validation_dice']:.4f}  "
                f"{self.done / row['seconds']:.1f} steps/s  {left:.0f} s left",
                soft_wrap=True,
                highlight=False,
            )
