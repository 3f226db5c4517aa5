"""Who is told what a command passes by."""

from __future__ import annotations

import sys
from collections.abc import Callable

Tell = Callable[[str], None]
"""Told in a sentence what is passed by."""


def say(sentence: str) -> None:
    """Print a sentence to stderr."""
    print(sentence, file=sys.stderr)


def say_nothing(sentence: str) -> None:
    """For who was told before."""
