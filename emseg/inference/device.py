"""The device that networks run on: which there is, its memory, and the arithmetic that it is fast in."""

from __future__ import annotations

import ctypes
import os
import platform
from pathlib import Path
from typing import Literal

import torch

Precision = Literal["auto", "float32", "bfloat16"]
_TRIM_THRESHOLD, _MMAP_MAX = -1, -4
"""Parameters of mallopt(3), as in malloc.h."""


def available_device() -> torch.device:
    """This process's GPU where there is one, else the CPU."""
    if not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))


def device_name(device: torch.device) -> str:
    """What the machine calls it, such as the name of its GPU, or of its processor and how many cores it has."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    try:
        models = [
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
            if line.startswith("model name")
        ]
    except OSError:
        models = []
    return f"{models[0] if models else platform.processor() or platform.machine()}, {len(models) or '?'} cores"


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


def keep_freed_memory(device: torch.device) -> None:
    """Let this process keep the memory that it frees, for the next step or section.

    glibc gives large arrays back to the system as they are freed, and the system clears every page again when the next
    step asks for it. That takes a tenth to a third of a U-Net's training step, and a seventh to a half of a prediction.
    Does nothing on a GPU, or where the C library is another (macOS, musl).

    Args:
        device: where the network runs.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if device.type == "cpu" and mallopt is not None:
        mallopt(_MMAP_MAX, 0)
        mallopt(_TRIM_THRESHOLD, -1)
