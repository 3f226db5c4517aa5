"""Progress of a training run: a live bar on a terminal, a line per epoch in a log."""

from __future__ import annotations

import sys
import time

from rich.console import Console
from rich.progress import BarColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar


class Progress:
    """Show loss, validation metric, speed and time left.

    Args:
        name: of the run.
        epochs: in the whole run.
        steps: in an epoch.
    """

    def __init__(self, name: str, epochs: int, steps: int) -> None:
        self.name, self.epochs, self.steps = name, epochs, steps
        self.console = Console(file=sys.stderr)
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

    def step(self, loss: float) -> None:
        """An optimiser step was made."""
        self.done += 1
        speed = self.done / (time.perf_counter() - self.started)
        self.bar.update(
            self.task,
            advance=1,
            status=f"epoch {self.epoch}/{self.epochs}  loss {loss:.4f}  {self.validated}{speed:.1f} steps/s",
        )

    def end(self, row: dict[str, float]) -> None:
        """An epoch was validated; `row` is its row of the history."""
        self.validated = f"pixel error {row['validation_pixel_error']:.4f}  "
        if not self.console.is_terminal:
            left = (self.epochs - self.epoch) * row["seconds"]
            self.console.print(
                f"{self.name}  epoch {self.epoch}/{self.epochs}  loss {row['train_loss']:.4f}  "
                f"{self.validated}Dice {row['validation_dice']:.4f}  "
                f"{self.steps / row['seconds']:.1f} steps/s  {left:.0f} s left",
                soft_wrap=True,
                highlight=False,
            )
