"""What a file says about its sections beside their pixels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

SOFTWARE = "emseg"
"""What tells a result of emseg's from other files: the Software entry of a TIFF, an attribute of Zarr and HDF5."""
SOFTWARE_ATTRIBUTE = "software"

_NANOMETRES = {
    **dict.fromkeys(("pm", "picometer", "picometre"), 1e-3),
    **dict.fromkeys(("å", "a", "angstrom", "ångström", "ångstrom"), 0.1),
    **dict.fromkeys(("nm", "nanometer", "nanometre", "nanometers", "nanometres"), 1.0),
    **dict.fromkeys(("µm", "um", "micron", "microns", "micrometer", "micrometre", "micrometers", "micrometres"), 1e3),
    **dict.fromkeys(("mm", "millimeter", "millimetre"), 1e6),
    **dict.fromkeys(("cm", "centimeter", "centimetre"), 1e7),
    **dict.fromkeys(("m", "meter", "metre"), 1e9),
    **dict.fromkeys(("in", "inch", "inches"), 2.54e7),
}
VoxelSize = tuple[float, float, float]


@dataclass(frozen=True)
class Metadata:
    """What a result takes over from its input.

    Attributes:
        voxel_size: (z, y, x) in nm; None where the file does not say all three.
        unit: of length, as the file spells it.
        axes: `ZYX` of a stack, `YX` of one section that is none.
        compression: name of the codec, as the format calls it; None: none.
        storage: a dataclass of the format's module with what it alone knows, so that a result can be written like it.
    """

    voxel_size: VoxelSize | None = None
    unit: str | None = None
    axes: str = "ZYX"
    compression: str | None = None
    storage: object = None


def voxel_size_in_nm(sizes: Sequence[Any], units: str | Sequence[Any]) -> VoxelSize | None:
    """(z, y, x) in nm of three sizes in one unit, or in a unit each; None where one is odd or its unit is not known.

    >>> voxel_size_in_nm((0.05, 0.004, 0.004), "micron")
    (50.0, 4.0, 4.0)
    >>> voxel_size_in_nm((1, 1, 1), "pixel") is None
    True
    """
    each = [units] * 3 if isinstance(units, str) else list(units)
    if len(sizes) != 3 or len(each) != 3:
        return None
    found = []
    for size, unit in zip(sizes, each, strict=True):
        # The Greek letter and the sign for micro look alike.
        scale = _NANOMETRES.get(str(unit).strip().lower().replace("μ", "µ"))
        try:
            length = float(size) * (scale or 0.0)
        except (TypeError, ValueError, OverflowError):
            return None
        if not (math.isfinite(length) and length > 0):
            return None
        # 0.004 µm are 4 nm, not 4.0000000001.
        found.append(float(f"{length:.10g}"))
    return found[0], found[1], found[2]
