"""Sections, labels and what augmentation makes of them."""

from importlib import import_module
from typing import Any

# torch, scipy and tifffile take seconds to import: each name brings only what it needs.
_HOME = {
    "open_sections": "io.formats",
    "read_stack": "io.stack",
    "write_stack": "io.stack",
    "separation_distance": "separation",
    "weight_map": "separation",
    "augment": "warp",
    "make_synthetic": "synthetic",
    "load_source": "sources",
}
__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__} has no attribute {name}")
    value = getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
    globals()[name] = value
    return value
