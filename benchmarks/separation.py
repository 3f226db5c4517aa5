"""Separation distance against one full-image distance transform per cell."""

import numpy as np
from scipy import ndimage

from benchmarks.common import print_machine, seconds, sections
from emseg.data.separation import border_reach, separation_distance, weight_map


def full_image_distances(label: np.ndarray) -> np.ndarray:
    cells, count = ndimage.label(label)
    distances = [ndimage.distance_transform_edt(cells != cell) for cell in range(1, count + 1)]
    nearest = np.partition(np.stack(distances).astype(np.float32), 1, axis=0)
    return nearest[0] + nearest[1]


def main() -> None:
    _, labels, name = sections(8)
    label = labels[7]
    limit = border_reach(10, 5)
    share = label.mean()
    direct = np.where(label, 1 - share, share) + 10 * np.exp(-(full_image_distances(label) ** 2) / 50)
    difference = float(np.abs(weight_map(label) - direct).max())
    ours, theirs = (
        seconds(lambda: separation_distance(label, limit), 9),
        seconds(lambda: full_image_distances(label), 2),
    )
    print_machine()
    print(f"section 7 of the {name}, {ndimage.label(label)[1]} cells, distances up to {limit:.0f} px")
    print(f"one full-image transform per cell: {theirs:.2f} s; ours: {ours * 1000:.0f} ms; ratio {theirs / ours:.0f}")
    print(f"largest difference of the weight map (w0 10, sigma 5): {difference:.1e}")


if __name__ == "__main__":
    main()
