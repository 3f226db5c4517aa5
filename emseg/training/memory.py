"""Memory of training on a CPU."""

from __future__ import annotations

import ctypes

_TRIM_THRESHOLD, _MMAP_MAX = -1, -4
"""Parameters of mallopt(3), as in malloc.h."""


def keep_freed_memory() -> bool:
    """Let this process keep the memory that it frees, for its next step.

    glibc gives large arrays back to the system as they are freed, and the system clears every page again when the next
    step asks for it, which takes a tenth to a third of the step of a U-Net.

    Returns:
        Whether the C library can: glibc, not that of macOS or musl.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    return mallopt is not None and bool(mallopt(_MMAP_MAX, 0)) and bool(mallopt(_TRIM_THRESHOLD, -1))
