"""What happens to files: bits flip, copies end early, editors and other programs write something else into them."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from typing import Any

ODD_VALUES = (None, -1, 0, 1e400, float("nan"), "", "text", "../../x", "=1+1|<b>\x1b[31m", [], {}, [[1]], True, 10**30)
"""What JSON and YAML files may hold where something else belongs."""


def damaged_bytes(content: bytes, seed: int, count: int = 8) -> Iterator[tuple[str, bytes]]:
    """Name and content of `count` damaged copies: empty, garbage, cut short, bits flipped, a part zeroed."""
    draw = random.Random(seed)
    kinds = ("empty", "garbage", "cut", "flip", "zeros", "doubled")
    for index in range(count):
        kind = kinds[index % len(kinds)]
        damaged = bytearray(content)
        if kind == "empty":
            damaged = bytearray()
        elif kind == "garbage":
            damaged = bytearray(draw.randbytes(draw.randint(1, 200)))
        elif kind == "cut":
            damaged = damaged[: draw.randrange(len(damaged))]
        elif kind == "flip":
            for _ in range(draw.randint(1, 3)):
                damaged[draw.randrange(len(damaged))] ^= 1 << draw.randrange(8)
        elif kind == "zeros":
            start = draw.randrange(len(damaged))
            stop = min(len(damaged), start + draw.randint(1, 64))
            damaged[start:stop] = bytes(stop - start)
        else:
            damaged *= 2
        yield f"{kind}-{index}", bytes(damaged)


def damaged_values(values: Any, seed: int, count: int = 8) -> Iterator[tuple[str, Any]]:
    """Name and value of `count` copies of JSON-like `values`, in each of which one entry is odd or gone."""
    draw = random.Random(seed)
    for index in range(count):
        copy = json.loads(json.dumps(values))
        places = list(_places(copy))
        holder, key = places[draw.randrange(len(places))]
        if draw.random() < 0.3:
            del holder[key]
            yield f"without-{key}-{index}", copy
        else:
            value = draw.choice(ODD_VALUES)
            holder[key] = value
            yield f"{key}-{str(value)[:8]!r}-{index}", copy


def _places(values: Any) -> Iterator[tuple[Any, Any]]:
    """Every (holder, key) of nested mappings and lists."""
    items = list(values.items()) if isinstance(values, dict) else list(enumerate(values))
    for key, value in items:
        yield values, key
        if isinstance(value, dict | list) and value:
            yield from _places(value)
