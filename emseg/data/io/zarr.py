"""Zarr 2 and 3: arrays, groups of them, and OME-Zarr images with their axes and voxel size."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from emseg.data.io.metadata import SOFTWARE, SOFTWARE_ATTRIBUTE, Metadata, VoxelSize, voxel_size_in_nm
from emseg.data.io.planes import Axes, Planes, chunk_of, find_axes
from emseg.data.io.roles import choose
from emseg.data.io.sections import Format, Sections, checked, library, readable
from emseg.errors import InputError

HEADERS = ("zarr.json", ".zarray", ".zgroup")
"""Files of which each Zarr folder has one."""
_LOSSLESS = ("blosc", "bz2", "gzip", "lz4", "lzma", "zlib", "zstd")


@dataclass(frozen=True)
class ZarrStorage:
    """What `zarr.create_array` takes to make an array like one; and the entry of an OME-Zarr group around it."""

    zarr_format: int = 3
    compressors: Any = "auto"
    attributes: dict[str, Any] = field(default_factory=dict)
    dimension_names: tuple[str, ...] | None = None
    is_ome: bool = False


def open_zarr(path: Path, inner: str, labels: bool) -> Sections:
    """Open an array, or the finest level of an OME-Zarr image; see `open_sections`."""
    zarr = library("zarr", path, "Zarr")
    with readable(path):
        node = zarr.open(path, mode="r")
        inner = inner.strip("/")
        if inner:
            if not isinstance(node, zarr.Group) or inner not in node:
                raise InputError(f"{path} has no array {inner}; it has {', '.join(_names(node)) or 'none'}")
            node = node[inner]
        if isinstance(node, zarr.Group) and not _multiscales(node):
            chosen = choose(f"{path}:{inner}" if inner else str(path), _names(node), labels)
            inner = f"{inner}/{chosen}".strip("/")
            node = node[chosen]
        multiscale = _multiscales(node) if isinstance(node, zarr.Group) else None
        where = f"{path}:{inner}" if inner else str(path)
        array: Any = node[_finest(node, multiscale)] if isinstance(node, zarr.Group) and multiscale else node
        if not isinstance(array, zarr.Array):
            raise InputError(f"{where} is a Zarr group without an array; name the array in it")
        names = _axis_names(multiscale) if multiscale else getattr(array.metadata, "dimension_names", None)
        axes, remarks = find_axes(where, array.shape, names)
        # Shards are read in parts, chunks as they are.
        planes = Planes(array, axes, array.chunks, lambda out: _fill(array, out))
        stored, dtype = checked(where, planes.shape, array.dtype, labels)
        voxel_size, unit = _ome_voxel_size(multiscale, axes) if multiscale else _attribute_voxel_size(array.attrs, axes)
        metadata = Metadata(
            voxel_size,
            unit,
            "YX" if axes.z is None else "ZYX",
            " and ".join(_codec_name(codec) for codec in array.compressors) or None,
            ZarrStorage(
                array.metadata.zarr_format,
                array.compressors or None,
                {} if multiscale else dict(array.attrs),
                tuple(names) if names and not multiscale and len(names) == 3 == array.ndim else None,
                multiscale is not None,
            ),
        )
    return Sections(
        path,
        "zarr",
        planes.shape,
        stored,
        dtype,
        planes.read,
        inner=inner,
        metadata=metadata,
        remarks=remarks,
        _decode_all=planes.read_all,
    )


def datasets_of(path: Path) -> list[str]:
    """Places of the arrays in a group; none where it is an array, or one OME-Zarr image.

    Raises:
        InputError: it is damaged, or zarr is not installed.
    """
    zarr = library("zarr", path, "Zarr")
    with readable(path):
        node = zarr.open(path, mode="r")
        return [] if isinstance(node, zarr.Array) or _multiscales(node) else _names(node)


def write_zarr(
    path: Path,
    result: Callable[[int], np.ndarray],
    shape: tuple[int, int, int],
    dtype: np.dtype[Any],
    metadata: Metadata,
) -> None:
    """Write sections as an array (Z, Y, X), or as an OME-Zarr image of one level; see `Format`."""
    import zarr

    storage = metadata.storage if isinstance(metadata.storage, ZarrStorage) else ZarrStorage()
    own: dict[str, Any] = {SOFTWARE_ATTRIBUTE: SOFTWARE}
    is_v3 = storage.zarr_format == 3
    options: dict[str, Any] = {
        "compressors": storage.compressors,
        "shape": shape,
        "chunks": chunk_of(shape),
        "dtype": dtype,
    }
    place: dict[str, Any] = {"zarr_format": storage.zarr_format, "overwrite": True}
    if storage.is_ome:
        entry = _multiscale_entry(metadata.voxel_size, is_v3)
        group = zarr.create_group(path, attributes=entry | own, **place)
        array = group.create_array("0", dimension_names=("z", "y", "x") if is_v3 else None, **options)
    else:
        voxel_size = metadata.voxel_size
        size: dict[str, Any] = {"resolution": list(voxel_size), "units": ["nm"] * 3} if voxel_size else {}
        array = zarr.create_array(
            path,
            dimension_names=storage.dimension_names,
            attributes=size | storage.attributes | own,
            **options,
            **place,
        )
    for z in range(shape[0]):
        array[z] = result(z)


def forms(metadata: Metadata) -> list[Metadata]:
    """See `Format`."""
    storage = metadata.storage
    if not isinstance(storage, ZarrStorage):
        return [Metadata(metadata.voxel_size, "nm", compression="auto", storage=ZarrStorage(is_ome=True))]
    other = replace(metadata, compression="auto", storage=replace(storage, compressors="auto"))
    plain = Metadata(
        metadata.voxel_size,
        metadata.unit,
        compression="auto",
        storage=ZarrStorage(storage.zarr_format, is_ome=storage.is_ome),
    )
    names = (metadata.compression or "").split(" and ")
    return [*([metadata] if all(name in ("", *_LOSSLESS) for name in names) else []), other, plain]


def is_result(path: Path) -> bool:
    """See `Format`."""
    try:
        version_3 = path / "zarr.json"
        text = (version_3 if version_3.is_file() else path / ".zattrs").read_text(encoding="utf-8")
        attributes = json.loads(text)
        return bool((attributes["attributes"] if version_3.is_file() else attributes)[SOFTWARE_ATTRIBUTE] == SOFTWARE)
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _fill(array: Any, out: np.ndarray) -> None:
    """Read all of an array into `out`; what `array[:]` gives would be a second copy."""
    from zarr.core.buffer import default_buffer_prototype

    array.get_basic_selection(..., out=default_buffer_prototype().nd_buffer.from_numpy_array(out))


def _names(group: Any, above: str = "") -> list[str]:
    """Arrays with rows and columns in a group, and OME-Zarr images, which are one each."""
    import zarr

    found = []
    for name, node in sorted(group.members()) if isinstance(group, zarr.Group) else []:
        if isinstance(node, zarr.Array):
            found += [above + name] if node.ndim >= 2 else []
        else:
            found += [above + name] if _multiscales(node) else _names(node, f"{above}{name}/")
    return found


def _multiscales(group: Any) -> dict[str, Any] | None:
    """The entry of an OME-Zarr image, of format 0.4 or 0.5."""
    attributes = group.attrs.asdict()
    ome = attributes.get("ome")
    entries = (ome if isinstance(ome, dict) else attributes).get("multiscales")
    return entries[0] if isinstance(entries, list) and entries and isinstance(entries[0], dict) else None


def _axis_names(multiscale: dict[str, Any]) -> list[str]:
    # Format 0.3 has names alone, those before have none and this order.
    axes = multiscale.get("axes") or "tczyx"
    return [str(axis["name"] if isinstance(axis, dict) else axis) for axis in axes]


def _finest(group: Any, multiscale: dict[str, Any]) -> str:
    levels = [str(level["path"]) for level in multiscale["datasets"]]
    return max(levels, key=lambda level: group[level].size)


def _ome_voxel_size(multiscale: dict[str, Any], axes: Axes) -> tuple[VoxelSize | None, str | None]:
    scales = [1.0] * len(_axis_names(multiscale))
    for level in (multiscale["datasets"][0], multiscale):
        for change in level.get("coordinateTransformations") or []:
            if change.get("type") == "scale":
                scales = [scale * float(factor) for scale, factor in zip(scales, change["scale"], strict=True)]
    units = [axis.get("unit") if isinstance(axis, dict) else None for axis in multiscale.get("axes") or scales]
    sizes, each = axes.voxel(scales), axes.voxel(units)
    if sizes is None or each is None:
        return None, None
    return voxel_size_in_nm(sizes, each), each[-1]


def _attribute_voxel_size(attributes: Any, axes: Axes) -> tuple[VoxelSize | None, str | None]:
    """As CREMI and others write it to attributes; axes in the order of the array."""
    for key in ("resolution", "voxel_size"):
        sizes = attributes.get(key)
        if isinstance(sizes, list) and len(sizes) == 3 and axes.z is not None:
            units = attributes.get("units")
            each = units if isinstance(units, list) and len(units) == 3 else ["nm"] * 3
            return voxel_size_in_nm(axes.voxel(sizes) or (), axes.voxel(each) or ()), str(each[0])
    return None, None


def _multiscale_entry(voxel_size: VoxelSize | None, is_v3: bool) -> dict[str, Any]:
    unit = {"unit": "nanometer"} if voxel_size else {}
    scale = {"type": "scale", "scale": list(voxel_size or (1.0, 1.0, 1.0))}
    entry = {
        "axes": [{"name": name, "type": "space", **unit} for name in "zyx"],
        "datasets": [{"path": "0", "coordinateTransformations": [scale]}],
        "name": "result",
    }
    if is_v3:
        return {"ome": {"version": "0.5", "multiscales": [entry]}}
    return {"multiscales": [{"version": "0.4"} | entry]}


def _codec_name(codec: Any) -> str:
    name = getattr(codec, "codec_id", None) or type(codec).__name__
    return str(name).lower().removesuffix("codec")


FORMAT = Format("zarr", "Zarr", (".zarr",), open_zarr, datasets_of, write_zarr, forms=forms, is_result=is_result)
