"""The numbers in a file as grey levels or labels: wide and signed types, and grey that is stored as colour."""

from __future__ import annotations

from typing import Any

import numpy as np

from emseg.errors import InputError


class RefusedError(ValueError):
    """What is in a file is whole, and not what is wanted: a reason, without the name of the file."""


_GREY_TYPES = tuple(np.dtype(name) for name in ("uint8", "uint16", "bool", "float16", "float32"))
_MOST_COLOURS = 2
_LUMA = (299, 587, 114)
"""Weights of red, green and blue in brightness, times 1000."""


def type_read(where: str, stored: Any, labels: bool) -> np.dtype[Any]:
    """The type that sections of a stored type come in, in the byte order of this machine.

    Grey levels of wide and signed integers are uint16 (uint8 where they cannot be more); labels are bool or any
    integer, and int64 where they are stored as floats.

    Raises:
        InputError: a type that is not read.
    """
    native = np.dtype(stored).newbyteorder("=")
    if labels and native.kind in "buif" and native.itemsize <= 8:
        return np.dtype(np.int64) if native.kind == "f" else native
    if native in _GREY_TYPES:
        return native
    if native.kind in "ui":
        return np.dtype(np.uint8 if native == np.int8 else np.uint16)
    raise InputError(
        f"{where} is {native}; expected {'whole numbers' if labels else 'integers, or 16-bit or 32-bit float'}: "
        "save it as one of them"
    )


def converted(section: np.ndarray, dtype: np.dtype[Any]) -> np.ndarray:
    """A section as the type that `type_read` gives, without a change of any value.

    Raises:
        RefusedError: a value does not fit.
    """
    if section.dtype.kind == "f" and dtype.kind in "ui":
        whole = np.isfinite(section).all() and (section == np.rint(section)).all() and np.abs(section).max() < 2**63
        if not whole:
            raise RefusedError("it holds numbers that are not whole, which no labels are")
    elif section.dtype.kind in "ui" and section.dtype.newbyteorder("=") != dtype:
        low, high, most = int(section.min()), int(section.max()), int(np.iinfo(dtype).max)
        if low < 0 or high > most:
            raise RefusedError(
                f"its values go from {low} to {high} and grey levels from 0 to {most:,}: scale them, and save it as "
                "16 bit without a sign"
            )
    return section.astype(dtype, copy=False)


def narrowed(stack: np.ndarray, stored: np.dtype[Any]) -> np.ndarray:
    """Grey levels that were stored wider than they are, or signed: as uint8 where they fit."""
    if stack.dtype == np.uint16 and stored.newbyteorder("=") != np.uint16 and stack.max() <= 255:
        return stack.astype(np.uint8)
    return stack


def single_channel(section: np.ndarray, labels: bool, has_alpha: bool) -> np.ndarray:
    """The grey levels (Y, X) of a section (Y, X, C) whose channels agree, with or without an alpha channel behind.

    Labels may also be of two colours: they become their brightness.

    Raises:
        RefusedError: it is in colour, or transparent in places.
    """
    if has_alpha:
        section, alpha = section[..., :-1], section[..., -1]
        if alpha.size and alpha.min() != alpha.max():
            raise RefusedError("it is transparent in places: save it without transparency")
    first = section[..., 0]
    if all(np.array_equal(first, section[..., channel]) for channel in range(1, section.shape[-1])):
        return np.ascontiguousarray(first)
    if labels and section.shape[-1] == 3 and section.dtype.kind == "u":
        brightness = two_colours(section)
        if brightness is not None:
            return brightness
    raise RefusedError(
        f"it is in colour: expected grey levels{', or labels of two colours that differ in brightness' * labels}; "
        "three sections that were written as red, green and blue are to be written as grey planes (minisblack)"
    )


def two_colours(section: np.ndarray) -> np.ndarray | None:
    """Brightness of each pixel of a section (Y, X, 3) of at most two colours; None where there are more, or no two."""
    packed = section.astype(np.uint64) @ np.array([2**32, 2**16, 1], np.uint64)
    colours = np.unique(packed)
    brightness = (section.astype(np.uint32) @ np.array(_LUMA, np.uint32) + 500) // 1000
    if len(colours) > _MOST_COLOURS or len(np.unique(brightness)) != len(colours):
        return None
    return brightness.astype(section.dtype)
