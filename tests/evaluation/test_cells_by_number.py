"""From cells by number, and pixels to ignore, through training and calibration to scores."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from conftest import TINY
from imperfect import imperfect_probability
from scipy import ndimage

from emseg.data.labels import LabelReading, read_meaning
from emseg.data.sources import Source
from emseg.data.synthetic import make_synthetic
from emseg.evaluation.baselines import fit_threshold
from emseg.evaluation.evaluate import calibrate_and_evaluate
from emseg.inference import Predictor
from emseg.metrics import score_stack, v_rand
from emseg.records.calibration import CELLS_FILE
from emseg.segmentation.agglomeration import learn_agglomeration
from emseg.settings import Settings, merge
from emseg.training.plan import RunPlan
from emseg.training.run import train_model

images, labels, numbers = make_synthetic(9, 64, 3, by_number=True)
IGNORED = 7
SCORED = ["v_rand", "v_info", "adapted_rand_error", "vi_split", "vi_merge", "pixel_error", "dice", "warping_error"]


def until_they_touch(cells):
    nearest = [ndimage.distance_transform_edt(section == 0, return_indices=True)[1] for section in cells]
    return np.stack([section[tuple(where)] for section, where in zip(cells, nearest, strict=True)])


def source_of(written, **reading):
    meaning, _ = read_meaning(written, images, LabelReading(**reading))
    return Source("cortex", images, meaning.interior, images[:0], meaning.interior[:0], meaning.cells, meaning.ignore)


@pytest.fixture
def settings(tiny_settings):
    values = tiny_settings.model_dump()
    merge(values, {"training": {"epochs": 1, "images_per_epoch": 4}})
    for model in TINY["models"]:
        merge(values["models"][model], {"training": {"epochs": 1, "images_per_epoch": 4}})
    return Settings.model_validate(values)


@pytest.fixture
def run(tmp_path, settings):
    """Train a few steps, calibrate and evaluate; gives the table of scores."""

    def score(source, cells=None, model="weighted_unet"):
        record = train_model(RunPlan(model, 0, 0, settings, source), tmp_path / source.digest / "training")
        calibrate_and_evaluate(record, source, cells)
        return pd.read_csv(record.evaluation_folder / "scores.csv"), record

    return score


def test_the_numbers_of_synthetic_cells_are_those_of_its_mask():
    again, masks = make_synthetic(9, 64, 3)
    np.testing.assert_array_equal(again, images)
    np.testing.assert_array_equal(masks, labels)
    np.testing.assert_array_equal(numbers > 0, labels > 0)
    for section in numbers:
        parts, count = ndimage.label(section)
        assert all(len(np.unique(section[parts == part])) == 1 for part in range(1, count + 1))
    # One number through the stack.
    assert len(np.unique(numbers)) < sum(len(np.unique(section)) for section in numbers) / 2


def test_separate_cells_score_as_their_mask_to_the_digit(run):
    separate = source_of(numbers)
    by_number, _ = run(separate)
    by_mask, _ = run(replace(separate, cells=None))
    # The same network, for distances between cells are the same; so are all scores.
    pd.testing.assert_frame_equal(by_number, by_mask, check_exact=True)


@pytest.mark.parametrize("cells", ["threshold", "agglomeration"])
def test_cells_that_touch_with_a_part_that_is_not_labelled(run, monkeypatch, cells):
    written = until_they_touch(numbers) + np.uint32(10)
    written[:, 20:30, 35:60] = IGNORED
    source = source_of(written, ignore_value=IGNORED)
    assert source.ignore.sum() == 9 * 10 * 25
    known = imperfect_probability(source.labels)
    monkeypatch.setattr(
        Predictor,
        "section",
        lambda self, window: known[next(z for z, image in enumerate(images) if (image == window[0]).all())],
    )
    monkeypatch.setattr("emseg.data.normalization.Normalization.grey", lambda self, images: images)
    table, record = run(source, cells, "residual_unet")
    test = table["section"].to_numpy()
    truth = np.where(source.labels, source.cells, 0)
    expected = score_stack(known[test], truth[test], 0.5, cells=True, ignore=source.ignore[test])
    for name in ("pixel_error", "dice", "iou"):
        np.testing.assert_allclose(table[name], expected[name], atol=1e-6)
    assert (record.folder.parent / CELLS_FILE).is_file()
    if cells == "threshold":
        oracle = v_rand(known[test], truth[test], cells=True, ignore=source.ignore[test])
        np.testing.assert_allclose(table["v_rand_oracle"], oracle.per_section, atol=1e-6)
        return
    # The rule for merging is learned where labels say something, of cells as they are numbered.
    training = list(range(5))
    taught = np.zeros(source.labels.shape, np.int32)
    for z in training:
        kept = np.where(source.ignore[z], 0, truth[z])
        taught[z] = np.unique(kept, return_inverse=True)[1].reshape(kept.shape)
    learned = learn_agglomeration([(known[training], taught[training])])
    closed = learned.close_stack(known[test])
    score = v_rand(closed, truth[test], 0.5, cells=True, ignore=source.ignore[test])
    np.testing.assert_allclose(table["v_rand"], score.per_section, atol=1e-6)


def test_a_network_trains_on_cells_that_touch(run):
    written = until_they_touch(numbers) + np.uint32(10)
    written[:, 20:30, 35:60] = IGNORED
    table, _ = run(source_of(written, ignore_value=IGNORED))
    assert np.isfinite(table[SCORED]).all(axis=None)


def test_labels_of_what_is_ignored_change_neither_weights_nor_scores(run):
    ignore = np.zeros(labels.shape, bool)
    ignore[:, 12:24] = True
    first = Source("cortex", images, labels > 0, images[:0], labels[:0] > 0, None, ignore)
    # Labels are sampled between pixels: only those that have no neighbour that counts are without any effect.
    spoilt = ndimage.binary_erosion(ignore, np.ones((1, 5, 5))) & (np.random.default_rng(0).random(labels.shape) < 0.5)
    spoilt[5:] = False
    other = replace(first, labels=first.labels ^ spoilt)
    assert (first.labels != other.labels).any()
    tables = [run(source, model="residual_unet")[0] for source in (first, other)]
    pd.testing.assert_frame_equal(*tables, check_exact=True)
    assert np.isfinite(tables[0][SCORED]).all(axis=None)


def test_the_grey_threshold_is_fitted_where_pixels_count():
    grey = np.array([[[10, 20, 30, 200, 210, 90]]], np.uint8)
    truth = np.array([[[False, False, False, True, True, False]]])
    ignore = np.array([[[False, False, False, False, True, True]]])
    counted = fit_threshold(grey[..., :4], truth[..., :4])
    assert fit_threshold(grey, truth, ignore)[1] == counted[1]
