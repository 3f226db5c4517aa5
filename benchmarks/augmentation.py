"""1000 augmented triples of 512 x 512 pixels against scikit-image's warp, one array at a time."""

import time

import numpy as np
from skimage.transform import AffineTransform, warp

from benchmarks.common import print_machine, sections
from emseg.data.separation import separation_distance
from emseg.data.warp import augment_sections
from emseg.settings import load_settings

TRIPLES = 1000
ALTERNATIVE = 20


def skimage_triples(images: np.ndarray, labels: np.ndarray, separations: np.ndarray, count: int) -> None:
    """The same affine ranges, without the elastic term."""
    random = np.random.default_rng(0)
    for index in range(count):
        angle, shear = np.deg2rad(random.uniform(-90, 90)), np.deg2rad(random.uniform(-30, 30))
        transform = AffineTransform(rotation=angle, shear=shear, scale=random.uniform(0.95, 1.05, 2))
        section = index % len(images)
        warp(images[section], transform, order=1, mode="symmetric", preserve_range=True)
        warp(labels[section].astype(np.float32), transform, order=0, mode="symmetric", preserve_range=True)
        warp(separations[section], transform, order=1, mode="symmetric", preserve_range=True)


def main() -> None:
    images, labels, name = sections(20)
    separations = np.stack([separation_distance(label, 48) for label in labels])
    grey = images.astype(np.float32) / 255
    settings = load_settings().augment
    started = time.perf_counter()
    for _ in augment_sections(grey, labels, separations, TRIPLES, settings, seed=0):
        pass
    ours = time.perf_counter() - started
    started = time.perf_counter()
    skimage_triples(grey, labels, separations, ALTERNATIVE)
    theirs = (time.perf_counter() - started) / ALTERNATIVE * TRIPLES
    print_machine()
    print(f"{TRIPLES} triples (image, label, distance) of 512 x 512 pixels from the {name}, elastic term on")
    print(f"ours: {ours:.1f} s; scikit-image warp, affine only, from {ALTERNATIVE}: {theirs:.0f} s; ", end="")
    print(f"ratio {theirs / ours:.1f}")


if __name__ == "__main__":
    main()
