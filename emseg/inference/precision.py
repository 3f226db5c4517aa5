"""Arithmetic of training and prediction: float32, or bfloat16 where the device multiplies it faster."""

from __future__ import annotations

from typing import Literal

import torch

Precision = Literal["auto", "float32", "bfloat16"]


def autocast(device: torch.device, precision: Precision) -> torch.autocast:
    """Context of the forward pass.

    Args:
        device: that multiplies.
        precision: `float32`, `bfloat16`, or `auto`, bfloat16 where `has_fast_bfloat16`.
    """
    reduced = precision == "bfloat16" or (precision == "auto" and has_fast_bfloat16(device))
    return torch.autocast(device.type, torch.bfloat16, enabled=reduced)


def has_fast_bfloat16(device: torch.device) -> bool:
    """Whether the device has bfloat16 instructions. Without them a CPU emulates it and gains nothing."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    # PyTorch names these checks as its own; a version without them takes float32.
    checks = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return any(getattr(torch.cpu, check, lambda: False)() for check in checks)
