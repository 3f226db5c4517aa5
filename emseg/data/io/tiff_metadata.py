"""What a TIFF says beside its pixels: compression, resolution, and the entries of ImageJ and OME."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from typing import Any

from emseg.data.io.metadata import Metadata, VoxelSize, voxel_size_in_nm

NO_COMPRESSION = 1
_NO_UNIT, _INCH = 1, 2
_UNITS = (1, 2, 3)


@dataclass(frozen=True)
class TiffStorage:
    """Entries of a TIFF that a result takes over, all of them in a form that can be written.

    Attributes:
        resolution: pixels per unit, (x, y).
        resolution_unit: 1 none, 2 inch, 3 centimetre.
        imagej: `spacing` and `unit` of an ImageJ file; None: it is none.
        ome: `PhysicalSize...` of an OME file; None: it is none.
    """

    resolution: tuple[float, float] | None = None
    resolution_unit: int = _NO_UNIT
    imagej: dict[str, Any] | None = None
    ome: dict[str, Any] | None = field(default=None)


def metadata_of(tiff: Any, page: Any, is_stack: bool) -> Metadata:
    """Of an open TIFF and its first page."""
    compression = None
    if page.compression != NO_COMPRESSION:
        compression = getattr(page.compression, "name", str(page.compression)).lower()
    resolution, resolution_unit = None, _NO_UNIT
    if "XResolution" in page.tags:
        found = tuple(page.resolution)
        unit = page.tags.valueof("ResolutionUnit", _INCH)
        if all(isinstance(value, int | float) and 0 < value < 2**31 for value in found):
            resolution, resolution_unit = (found[0], found[1]), int(unit) if unit in _UNITS else _NO_UNIT
    imagej = _imagej_size(tiff.imagej_metadata or {}) if tiff.is_imagej else None
    ome = _physical_size(tiff.ome_metadata) if tiff.is_ome else None
    voxel_size, length = None, None
    if imagej is not None and resolution:
        length = imagej.get("unit")
        sizes = (imagej.get("spacing"), 1 / resolution[1], 1 / resolution[0])
        voxel_size = voxel_size_in_nm(sizes, _unescaped(length or ""))
    elif ome is not None:
        length = ome.get("PhysicalSizeXUnit", "µm")
        units = [ome.get(f"PhysicalSize{axis}Unit", "µm") for axis in "ZYX"]
        voxel_size = voxel_size_in_nm([ome.get(f"PhysicalSize{axis}") for axis in "ZYX"], units)
    storage = TiffStorage(resolution, resolution_unit, imagej, ome)
    return Metadata(voxel_size, length, "ZYX" if is_stack else "YX", compression, storage)


def imagej_storage(voxel_size: VoxelSize | None) -> TiffStorage:
    """Entries for a voxel size that came with another format."""
    if voxel_size is None:
        return TiffStorage()
    z, y, x = voxel_size
    return TiffStorage((1 / x, 1 / y), _NO_UNIT, {"spacing": z, "unit": "nm"})


def imagej_description(count: int, size: dict[str, Any]) -> str:
    """The entry that programs read like that of ImageJ's own form."""
    entries = {"ImageJ": "1.11a", "images": count, "slices": count, **size}
    return "".join(f"{key}={value}\n" for key, value in entries.items())


def _imagej_size(found: dict[str, Any]) -> dict[str, Any]:
    """Distance of sections and unit, in the seven bits that ImageJ's description holds."""
    size: dict[str, Any] = {}
    if isinstance(spacing := found.get("spacing"), int | float) and math.isfinite(spacing):
        size["spacing"] = spacing
    if isinstance(unit := found.get("unit"), str) and "\n" not in unit:
        size["unit"] = "".join(sign if sign.isascii() else f"\\u{ord(sign) & 0xFFFF:04X}" for sign in unit)
    return size


def _unescaped(unit: str) -> str:
    return re.sub(r"\\u([0-9A-Fa-f]{4})", lambda match: chr(int(match[1], 16)), unit)


def _physical_size(text: str | None) -> dict[str, Any]:
    size: dict[str, Any] = {}
    for key, value in re.findall(r'(PhysicalSize[XYZ](?:Unit)?)="([^"]+)"', text or ""):
        if key.endswith("Unit"):
            if not re.search(r"[<>&]", value):
                size[key] = value
        elif re.fullmatch(r"[0-9]*\.?[0-9]+(?:[eE][+-]?[0-9]{1,2})?", value) and float(value) > 0:
            size[key] = float(value)
    return size
