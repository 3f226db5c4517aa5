"""V_rand and V_info against the straightforward scikit-image version; pixel metrics and score_stack."""

import time

import numpy as np
from scipy import ndimage
from skimage import metrics
from skimage.metrics import contingency_table
from skimage.segmentation import watershed
from sklearn import metrics as pixelwise

from benchmarks.common import print_machine, seconds, sections
from emseg.metrics import ChallengeSweep, adapted_rand_error, score_stack, variation_of_information
from emseg.metrics.challenge import OFFICIAL_THRESHOLDS
from emseg.metrics.scoring import score_pixels

SECTIONS = 30
ALTERNATIVE = 3


def straightforward(probability: np.ndarray, label: np.ndarray, is_rand: bool) -> np.ndarray:
    """One metric, (sections, thresholds), with scikit-image's watershed and contingency table."""
    values = np.empty((len(label), len(OFFICIAL_THRESHOLDS)))
    for z, (section, interior) in enumerate(zip(probability, label, strict=True)):
        truth = ndimage.label(interior)[0]
        for index, threshold in enumerate(OFFICIAL_THRESHOLDS):
            binary = section > threshold
            markers = ndimage.label(binary)[0]
            thinned = watershed(~binary, markers, connectivity=1, watershed_line=True)
            true, proposed = truth[truth > 0], thinned[truth > 0]
            alone = proposed == 0
            proposed[alone] = proposed.max() + 1 + np.arange(alone.sum())
            joint = contingency_table(true, proposed, normalize=True)
            t, s = np.asarray(joint.sum(axis=1)).ravel(), np.asarray(joint.sum(axis=0)).ravel()
            if is_rand:
                values[z, index] = (joint.data**2).sum() / (0.5 * (s**2).sum() + 0.5 * (t**2).sum())
            else:
                entropies = [-(p[p > 0] * np.log(p[p > 0])).sum() for p in (s, t, joint.data)]
                values[z, index] = 2 * (entropies[0] + entropies[1] - entropies[2]) / (entropies[0] + entropies[1])
    return values


def pixelwise_scores(probability: np.ndarray, label: np.ndarray) -> np.ndarray:
    """IoU, Dice and pixel error of each section, (sections, 3), with scikit-learn."""
    rows = []
    for section, truth in zip(probability > 0.5, label, strict=True):
        pair = truth.ravel(), section.ravel()
        rows.append((pixelwise.jaccard_score(*pair), pixelwise.f1_score(*pair), 1 - pixelwise.accuracy_score(*pair)))
    return np.array(rows)


def sweep(probability: np.ndarray, label: np.ndarray) -> ChallengeSweep:
    done = ChallengeSweep()
    for section, interior in zip(probability, label, strict=True):
        done.add(section, interior)
    return done


def main() -> None:
    _, label, name = sections(SECTIONS)
    noise = np.random.default_rng(0).normal(0, 0.3, label.shape)
    probability = np.clip(ndimage.gaussian_filter(label + noise, (0, 2, 2)), 0, 1).astype(np.float32)
    print_machine()
    started = time.perf_counter()
    done = sweep(probability, label)
    ours = time.perf_counter() - started
    part = probability[:ALTERNATIVE], label[:ALTERNATIVE]
    started = time.perf_counter()
    rand = straightforward(*part, is_rand=True)
    theirs = (time.perf_counter() - started) / ALTERNATIVE * SECTIONS
    info = straightforward(*part, is_rand=False)
    swept = sweep(*part)
    difference = max(
        np.abs(swept.v_rand().curve[:, 1] - rand.mean(axis=0)).max(),
        np.abs(swept.v_info().curve[:, 1] - info.mean(axis=0)).max(),
    )
    print(f"{len(label)} sections of 512 x 512 of the {name}, blurred noisy labels, 11 thresholds")
    print(f"V_rand and V_info together: {ours:.1f} s; best V_rand {done.v_rand().value:.4f}")
    print(
        f"V_rand alone with scikit-image, one thread: {theirs:.1f} s (from {ALTERNATIVE} sections); "
        f"ratio {theirs / ours:.1f}"
    )
    print(f"largest difference of a stack's value over all thresholds: {difference:.1e}")
    pixels = seconds(lambda: score_pixels(probability, label), 3)
    print(f"pixel metrics of the stack: {pixels * 1000:.0f} ms")
    few = slice(0, ALTERNATIVE)
    theirs = seconds(lambda: pixelwise_scores(probability[few], label[few]), 1) / ALTERNATIVE * len(label)
    ours_values = score_pixels(probability[few], label[few])[["iou", "dice", "pixel_error"]].to_numpy()
    difference = np.abs(ours_values - pixelwise_scores(probability[few], label[few])).max()
    print(
        f"IoU, Dice and pixel error with scikit-learn: {theirs:.1f} s (from {ALTERNATIVE} sections); "
        f"ratio {theirs / pixels:.0f}, largest difference {difference:.1e}"
    )
    started = time.perf_counter()
    score_stack(probability, label)
    print(f"score_stack, every metric at one threshold: {time.perf_counter() - started:.1f} s")

    binary = probability > 0.5
    segments = [(ndimage.label(t)[0], ndimage.label(p)[0]) for t, p in zip(label, binary, strict=True)]
    ours = seconds(lambda: (adapted_rand_error(binary, label), variation_of_information(binary, label)), 3)
    theirs = seconds(
        lambda: [
            (metrics.adapted_rand_error(t, p, ignore_labels=[0]), metrics.variation_of_information(t, p))
            for t, p in segments
        ],
        3,
    )
    print(
        f"adapted Rand error and variation of information: {ours:.2f} s, finding components included; "
        f"scikit-image on ready components {theirs:.2f} s; ratio {theirs / ours:.1f}"
    )


if __name__ == "__main__":
    main()
