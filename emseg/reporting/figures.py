"""Figures of runs and of comparisons."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from scipy import ndimage

from emseg.files import atomic_path
from emseg.metrics import thin_borders
from emseg.metrics.inputs import Truth
from emseg.metrics.scoring import Interval
from emseg.reporting.section_pictures import outlines

MISSED_MEMBRANE = (0.84, 0.15, 0.16)
FALSE_MEMBRANE = (0.12, 0.47, 0.71)
GIVEN_CELL = (0.90, 0.50, 0.10)
IGNORED = (0.60, 0.45, 0.75)
_SHADED = "shaded: ignored"
BORDER_TASTE = 0.06
"""Pixel error below this is where membranes are drawn, not whether they are found: two experts differ by 0.067."""
_BORDER_TOLERANCE = 4


def panel_figure(
    title: str,
    image: np.ndarray,
    truth: Truth,
    probability: np.ndarray,
    threshold: float,
    weights: np.ndarray | None = None,
) -> Figure:
    """Image, label, probability and error of one section (Y, X), and the weight map where one is used.

    Pixels that are ignored are shaded. Cells that are given by number are outlined in the label.
    """
    panels = 5 if weights is not None else 4
    figure = Figure(figsize=(3.2 * panels, 3.7), layout="constrained")
    axes = figure.subplots(1, panels)
    figure.suptitle(title, fontsize=11)
    show_picture(axes[0], image, "image", vmin=0, vmax=255)
    shown = ["orange: given cells"] if truth.cells is not None else []
    shown += [_SHADED] if truth.ignore is not None else []
    show_picture(
        axes[1], label_picture(truth), "\n".join(["label (white: cell interior)", *filter(None, [", ".join(shown)])])
    )
    show_picture(axes[2], probability, "probability of interior", vmin=0, vmax=1)
    show_picture(
        axes[3],
        error_overlay(image, truth, probability > threshold),
        "missed membrane red, false membrane blue",
    )
    if weights is not None:
        weighted = axes[4].imshow(weights, cmap="magma")
        axes[4].set_title("weight map", fontsize=9)
        axes[4].axis("off")
        figure.colorbar(weighted, ax=axes[4], shrink=0.75)
    return figure


def sections_figure(pictures: dict[str, np.ndarray]) -> Figure:
    """Sections (Y, X) of grey levels 0 to 255 side by side, each under its title."""
    figure = Figure(figsize=(3.2 * len(pictures), 3.5), layout="constrained")
    for axis, (title, picture) in zip(figure.subplots(1, len(pictures)), pictures.items(), strict=True):
        show_picture(axis, picture, title, vmin=0, vmax=255)
    return figure


def label_picture(truth: Truth) -> np.ndarray:
    """RGB float (Y, X, 3): cell interior white, outlines of cells that are given by number, ignored pixels shaded."""
    picture = np.repeat(truth.interior[..., None].astype(np.float32), 3, axis=-1)
    if truth.cells is not None:
        picture[outlines(truth.cells)] = GIVEN_CELL
    return _shaded(picture, truth)


def error_overlay(image: np.ndarray, truth: Truth, predicted: np.ndarray) -> np.ndarray:
    """RGB float (Y, X, 3): the image, faint, with missed membrane red and false membrane blue where pixels count."""
    overlay = np.repeat(0.5 + image[..., None].astype(np.float32) / 510, 3, axis=-1)
    predicted = truth.filled(predicted)
    overlay[predicted & ~truth.interior] = MISSED_MEMBRANE
    overlay[~predicted & truth.interior] = FALSE_MEMBRANE
    return _shaded(overlay, truth)


def overlay_figure(title: str, image: np.ndarray, truth: Truth, predicted: np.ndarray) -> Figure:
    """One section (Y, X) with the borders that the prediction adds (false splits) and lacks (false merges).

    Pixels that are ignored are shaded, and hold neither.
    """
    figure = Figure(figsize=(6.4, 6.9), layout="constrained")
    axis = figure.subplots()
    figure.suptitle(title, fontsize=11)
    overlay = np.repeat(image[..., None].astype(np.float32) / 255, 3, axis=-1)
    splits, merges = border_errors(truth.filled(predicted), truth.interior)
    overlay[ndimage.binary_dilation(splits)] = FALSE_MEMBRANE
    overlay[ndimage.binary_dilation(merges)] = MISSED_MEMBRANE
    shaded = "" if truth.ignore is None else f", {_SHADED}"
    show_picture(axis, _shaded(overlay, truth), f"false splits blue, false merges red{shaded}")
    return figure


def border_errors(predicted: np.ndarray, label: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where a prediction splits and merges cells, bool (Y, X) each.

    Both are thinned to borders of one pixel. A predicted border farther than 4 pixels from every true membrane
    splits a cell; a true border farther than 4 pixels from every predicted one lets cells merge.
    """
    true_border, predicted_border = thin_borders(label) == 0, thin_borders(predicted) == 0
    near_true = ndimage.binary_dilation(true_border | ~label, iterations=_BORDER_TOLERANCE)
    near_predicted = ndimage.binary_dilation(predicted_border | ~predicted, iterations=_BORDER_TOLERANCE)
    return predicted_border & ~near_true, true_border & ~near_predicted


def thresholds_figure(title: str, curves: pd.DataFrame, chosen: dict[str, float]) -> Figure:
    """V_rand and V_info over thresholds, on validation and test sections, with the thresholds that scores use."""
    figure = Figure(figsize=(9, 3.8), layout="constrained")
    figure.suptitle(title, fontsize=11)
    for axis, metric, name in zip(figure.subplots(1, 2), ("v_rand", "v_info"), ("V_rand", "V_info"), strict=True):
        for sections, style in (("validation", "--"), ("test", "-")):
            axis.plot(curves["threshold"], curves[f"{sections}_{metric}"], style, marker=".", label=sections)
        axis.axvline(chosen[metric], color="0.6", linewidth=1)
        axis.text(chosen[metric], 0.02, "used for scores ", fontsize=8, color="0.4", ha="right")
        axis.set_xlabel("threshold")
        axis.set_ylabel(name)
        axis.grid(alpha=0.3)
        _plain(axis)
    figure.axes[0].legend(frameon=False, fontsize=9)
    return figure


def curves_figure(title: str, history: list[dict[str, float]]) -> Figure:
    """Training loss and validation pixel error over the epochs of one run."""
    return learning_curves_figure(title, {title: history})


def learning_curves_figure(title: str, histories: dict[str, list[dict[str, float]]]) -> Figure:
    """Training loss and validation pixel error of several runs, each over its own epochs."""
    figure = Figure(figsize=(10, 4.5), layout="constrained")
    figure.suptitle(title, fontsize=11)
    panels = {"train_loss": "training loss", "validation_pixel_error": "validation pixel error"}
    for axis, (key, name) in zip(figure.subplots(1, 2), panels.items(), strict=True):
        for run, history in histories.items():
            axis.plot([row["epoch"] for row in history], [row[key] for row in history], marker=".", label=run)
        axis.set_xlabel("epoch")
        axis.xaxis.get_major_locator().set_params(integer=True)
        axis.set_ylabel(name)
        axis.grid(alpha=0.3)
        _plain(axis)
    if len(histories) > 1:
        handles, runs = figure.axes[0].get_legend_handles_labels()
        # About 120 letters go beside each other.
        columns = min(3, max(1, 120 // (8 + max(map(len, runs)))))
        figure.legend(handles, runs, loc="outside lower center", ncols=columns, frameon=False, fontsize=9)
    return figure


def comparison_figure(title: str, models: dict[str, dict[str, Interval]], metrics: list[str]) -> Figure:
    """Mean and interval of each model, by its name and that of the metric; a panel per metric."""
    figure = Figure(figsize=(4.2 * len(metrics), 0.45 * len(models) + 1.6), layout="constrained")
    figure.suptitle(title, fontsize=11)
    positions = np.arange(len(models))[::-1]
    for index, metric in enumerate(metrics):
        axis = figure.add_subplot(1, len(metrics), index + 1)
        intervals = [own[metric] for own in models.values()]
        means = np.array([each.mean for each in intervals])
        reach = [means - [each.low for each in intervals], np.array([each.high for each in intervals]) - means]
        axis.errorbar(means, positions, xerr=np.clip(reach, 0, None), fmt="o", capsize=3, color="0.15")
        axis.set_yticks(positions, list(models) if index == 0 else [""] * len(models))
        axis.set_xlabel(metric.replace("_", " "))
        axis.set_ylim(-0.6, len(models) - 0.4)
        axis.locator_params(axis="x", nbins=5)
        if metric == "pixel_error":
            left = min(0.05, float(means.min()) * 0.9)
            axis.set_xlim(left=left)
            axis.axvspan(left, BORDER_TASTE, color="0.92")
            axis.text(left, -0.5, " border taste", fontsize=8, color="0.4")
        axis.grid(axis="x", alpha=0.3)
        _plain(axis)
    return figure


def _shaded(picture: np.ndarray, truth: Truth) -> np.ndarray:
    if truth.ignore is not None:
        picture[truth.ignore] = (picture[truth.ignore] + np.array(IGNORED, np.float32)) / 2
    return picture


def save_figure(figure: Figure, path: Path) -> None:
    """Write a figure as PNG; the same figure gives the same bytes."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(png_of(figure))


def png_of(figure: Figure) -> bytes:
    """A figure as the content of a PNG file."""
    FigureCanvasAgg(figure)
    content = io.BytesIO()
    figure.savefig(content, dpi=110, metadata={"Software": None})
    return content.getvalue()


def show_picture(axis: Axes, picture: np.ndarray, title: str, **limits: float) -> None:
    """Show a picture, grey (Y, X) or in colour (Y, X, 3), without axes."""
    axis.imshow(picture, cmap="gray", interpolation="nearest", **limits)  # type: ignore[arg-type]
    axis.set_title(title, fontsize=9)
    axis.axis("off")


def _plain(axis: Axes) -> None:
    axis.spines[["top", "right"]].set_visible(False)
