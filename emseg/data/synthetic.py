"""Synthetic serial sections with exact labels, hard enough to be worth a network.

Cells are a power diagram of seeds of very different weight in three dimensions, its coordinates bent by smooth
noise, so neighbouring sections continue each other. A section is a slab, not a plane: we average the membrane
over planes through the slab, which makes upright membranes sharp and dark and grazed ones wide and grey, as in
a real microscope. Mitochondria and vesicles put dark membranes inside cells where the label has none.
"""

from __future__ import annotations

from typing import Literal, overload

import numpy as np
from scipy import ndimage
from scipy.spatial import cKDTree

# Lengths in pixels, as in a 4 nm transmission image. A section is 50 nm thick, but cells are stretched along z
# so that a neurite lasts several sections.
SECTION_THICKNESS = 6.0
PLANES_PER_SECTION = 3
SEED_SPACING = 30.0
MEMBRANE_THICKNESS = (2.0, 4.5)


@overload
def make_synthetic(sections: int = ..., side: int = ..., seed: int = ...) -> tuple[np.ndarray, np.ndarray]: ...


@overload
def make_synthetic(
    sections: int = ..., side: int = ..., seed: int = ..., *, by_number: Literal[True]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]: ...


def make_synthetic(
    sections: int = 30, side: int = 256, seed: int = 0, *, by_number: bool = False
) -> tuple[np.ndarray, ...]:
    """Images and labels of a synthetic serial-section stack.

    Args:
        sections: sections in the stack, >= 1.
        side: pixels per side, >= 32.
        seed: same seed, same stack.
        by_number: whether to give the cells by number, too.

    Returns:
        images uint8 (Z, Y, X), dark membranes on bright cells, and labels uint8 (Z, Y, X): 255 cell interior,
        0 membrane. If asked for, cells uint32 (Z, Y, X): 0 on membrane; one number through the stack, so it may be
        in several places of a section.

    Raises:
        ValueError: fewer than 1 section or a side below 32 pixels.
    """
    if sections < 1 or side < 32:
        raise ValueError(f"a synthetic stack needs sections >= 1 and side >= 32, not {sections} and {side}")
    random = np.random.default_rng(seed)
    planes = sections * PLANES_PER_SECTION
    cells = _cells(planes, side, random)
    thickness = _smooth_field((sections, side, side), (2, 24, 24), random, *MEMBRANE_THICKNESS)

    membranes = np.zeros((sections, side, side), np.float32)
    labels = np.zeros((sections, side, side), bool)
    depth = np.zeros((sections, side, side), np.float32)
    middle = cells[PLANES_PER_SECTION // 2 :: PLANES_PER_SECTION]
    for section in range(sections):
        distances = np.stack(
            [
                _distance_to_border(plane)
                for plane in cells[section * PLANES_PER_SECTION : (section + 1) * PLANES_PER_SECTION]
            ]
        )
        # A soft edge of one pixel, so that thickness is not quantised.
        density = np.clip(thickness[section] / 2 - distances + 0.5, 0, 1)
        membranes[section] = density.mean(axis=0)
        depth[section] = distances[PLANES_PER_SECTION // 2]
        labels[section] = (membranes[section] < 0.5) & (density[PLANES_PER_SECTION // 2] < 0.5)
    images = _paint(membranes, labels, depth, middle, random)
    masks = labels.astype(np.uint8) * 255
    return (images, masks, np.where(labels, middle + 1, 0).astype(np.uint32)) if by_number else (images, masks)


def _cells(planes: int, side: int, random: np.random.Generator) -> np.ndarray:
    """Cell of every voxel, int32 (planes, side, side)."""
    step = SECTION_THICKNESS / PLANES_PER_SECTION
    extent = np.array([planes * step, side, side], float)
    border = 2 * SEED_SPACING
    count = int(np.prod((extent + 2 * border) / SEED_SPACING))
    centres = random.uniform(-border, extent + border, (count, 3))
    # A power diagram is a nearest-neighbour search with the weight as a fourth coordinate.
    weight = (SEED_SPACING * 1.6) ** 2 * random.beta(0.5, 2.0, count)
    tree = cKDTree(np.column_stack([centres, np.sqrt(weight.max() - weight)]))

    keyframes = max(2, planes // 8)
    bends = [
        ndimage.zoom(
            _smooth_field((keyframes, side, side), (1, 14, 14), random, -1, 1),
            (planes / keyframes, 1, 1),
            order=1,
        )
        for _ in range(2)
    ]
    y, x = np.mgrid[:side, :side].astype(np.float32)
    cells = np.empty((planes, side, side), np.int32)
    for plane in range(planes):
        points = np.stack(
            [
                np.full_like(y, plane * step),
                y + 14 * bends[0][plane],
                x + 14 * bends[1][plane],
                np.zeros_like(y),
            ],
            -1,
        )
        cells[plane] = tree.query(points.reshape(-1, 4), workers=-1)[1].reshape(side, side)
    return cells


def _distance_to_border(plane: np.ndarray) -> np.ndarray:
    """Distance of every pixel to the border between cells, pixels, float32."""
    border = np.zeros(plane.shape, bool)
    border[:-1] |= plane[:-1] != plane[1:]
    border[:, :-1] |= plane[:, :-1] != plane[:, 1:]
    if not border.any():
        return np.full(plane.shape, np.float32(max(plane.shape)))
    return ndimage.distance_transform_edt(~border).astype(np.float32)


def _smooth_field(
    shape: tuple[int, ...], sigma: tuple[float, ...], random: np.random.Generator, low: float, high: float
) -> np.ndarray:
    """Smooth noise that covers [low, high] evenly in rank, float32."""
    noise = ndimage.gaussian_filter(random.standard_normal(shape, np.float32), sigma, mode="reflect")
    scaled = noise / max(float(noise.std()), 1e-12)
    return (low + (high - low) / (1 + np.exp(-1.7 * scaled))).astype(np.float32)


def _paint(
    membranes: np.ndarray,
    labels: np.ndarray,
    depth: np.ndarray,
    cells: np.ndarray,
    random: np.random.Generator,
) -> np.ndarray:
    """Grey levels, uint8, of sections whose geometry is known."""
    sections, side, _ = membranes.shape
    cytoplasm = random.normal(0.68, 0.045, int(cells.max()) + 1).astype(np.float32)[cells]
    texture = sum(
        amplitude * _unit(ndimage.gaussian_filter(random.standard_normal(cells.shape, np.float32), (0, size, size)))
        for size, amplitude in ((1.2, 0.05), (3.5, 0.035))
    )
    tissue = cytoplasm + texture
    organelles = np.zeros_like(membranes)
    _add_mitochondria(tissue, organelles, depth, cells, random)
    _add_vesicles(organelles, depth, random)
    darkness = np.maximum(membranes * (0.85 + 0.15 * labels), organelles)
    strength = _smooth_field((sections, side, side), (1, 20, 20), random, 0.30, 0.52)
    tissue -= darkness * strength

    illumination = _smooth_field((sections, side, side), (0, side / 4, side / 4), random, -0.10, 0.10)
    contrast = random.uniform(0.85, 1.1, (sections, 1, 1))
    blurred = ndimage.gaussian_filter(tissue, (0, 0.8, 0.8))
    noisy = (blurred - 0.55) * contrast + 0.53 + illumination + random.normal(0, 0.06, blurred.shape)
    return np.clip(np.rint(noisy * 255), 0, 255).astype(np.uint8)


def _unit(field: np.ndarray) -> np.ndarray:
    return field / field.std()


def _add_mitochondria(
    tissue: np.ndarray,
    organelles: np.ndarray,
    depth: np.ndarray,
    cells: np.ndarray,
    random: np.random.Generator,
) -> None:
    """Ellipsoids through several sections: a dark membrane around a darker, striped inside, within one cell."""
    sections, side, _ = tissue.shape
    for _ in range(max(1, round(sections * side * side / 40_000))):
        section, row, column = _point_deeper_than(8, depth, random)
        if section < 0:
            return
        cell = cells[section, row, column]
        length, width = random.uniform(9, 20), random.uniform(5, 9)
        angle, phase, half_height = random.uniform(0, np.pi), random.uniform(0, np.pi), random.uniform(1.2, 4)
        near, y, x = _window(row, column, length, side)
        along = (y - row) * np.sin(angle) + (x - column) * np.cos(angle)
        across = (y - row) * np.cos(angle) - (x - column) * np.sin(angle)
        for z in range(max(0, int(section - half_height)), min(sections, int(section + half_height) + 1)):
            shrink = np.sqrt(max(0.0, 1 - ((z - section) / half_height) ** 2))
            if shrink < 0.3:
                continue
            radius = np.sqrt((along / (length * shrink)) ** 2 + (across / (width * shrink)) ** 2)
            inside = (radius < 1) & (cells[z][near] == cell) & (depth[z][near] > 3.5)
            if not inside.any():
                continue
            rim = np.clip(2.2 - ndimage.distance_transform_edt(inside), 0, 1) * inside
            cristae = 0.5 + 0.5 * np.sin(along * 1.1 + phase + 0.25 * across)
            tissue[z][near][inside] -= (0.10 + 0.13 * cristae)[inside]
            organelles[z][near] = np.maximum(organelles[z][near], 0.85 * rim)


def _add_vesicles(organelles: np.ndarray, depth: np.ndarray, random: np.random.Generator) -> None:
    """Clusters of small dark rings inside cells, and single larger ones."""
    sections, side, _ = organelles.shape
    for section in range(sections):
        for _ in range(max(1, round(side * side / 5_000))):
            _, row, column = _point_deeper_than(6, depth[section : section + 1], random)
            if row < 0:
                break
            many = random.random() < 0.5
            for _ in range(int(random.integers(4, 10)) if many else 1):
                centre = np.array([row, column]) + (random.normal(0, 6, 2) if many else 0)
                radius = random.uniform(1.8, 3.2) if many else random.uniform(3, 6.5)
                near, y, x = _window(centre[0], centre[1], radius, side)
                distance = np.hypot(y - centre[0], x - centre[1])
                ring = np.clip(1.6 - np.abs(distance - radius), 0, 1) * (depth[section][near] > 3.5)
                painted = organelles[section][near]
                np.maximum(painted, random.uniform(0.5, 0.9) * ring, out=painted)


def _window(row: float, column: float, radius: float, side: int) -> tuple[tuple[slice, slice], np.ndarray, np.ndarray]:
    """The part of a section around a disc and the rim that is painted of it; its rows and columns, float32."""
    rim = 4
    near_row, near_column = (
        slice(*(min(max(0, int(edge)), side) for edge in (middle - radius - rim, middle + radius + rim + 1)))
        for middle in (row, column)
    )
    near = near_row, near_column
    y, x = np.mgrid[near].astype(np.float32)
    return near, y, x


def _point_deeper_than(
    distance: float, depth: np.ndarray, random: np.random.Generator, tries: int = 200
) -> tuple[int, int, int]:
    """A random voxel (section, row, column) that far inside a cell, or (-1, -1, -1)."""
    for _ in range(tries):
        section, row, column = (int(random.integers(length)) for length in depth.shape)
        if depth[section, row, column] > distance:
            return section, row, column
    return -1, -1, -1
