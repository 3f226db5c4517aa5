"""Scores of a run against the metrics called by hand on its prediction."""

import numpy as np
import pandas as pd
import pytest
from imperfect import imperfect_probability

from emseg.errors import InputError
from emseg.inference import Predictor, predict
from emseg.inference.agglomeration import learn_agglomeration
from emseg.inference.segmenter import label_cells
from emseg.metrics import pixel_error, v_info, v_rand, warping_error
from emseg.reporting.evaluation import evaluate_record, evaluation_folder
from emseg.tracking.packaging import open_package, segmenter_of_run, write_package
from emseg.training.run import augmented_of_record, load_or_make_augmented, train_model


def test_each_metric_has_the_threshold_that_is_best_for_it_on_validation_sections(tmp_path, tiny_settings, source):
    augmented = load_or_make_augmented(tiny_settings, source, "unet2", 0)
    record = train_model("unet2", tiny_settings, source, augmented, 0, 0, tmp_path / "run" / "training")
    metrics = evaluate_record(record, source, augmented_of_record(record, source), with_figures=False)
    scores = pd.read_csv(evaluation_folder(record) / "scores.csv")
    network, normalization = record.load_network()

    def probability(sections):
        return predict(network, source.images[sections], normalization=normalization)

    validation, test = (record.read()["split"][part] for part in ("validation", "test"))
    tested, labels = probability(test), source.labels[test]
    for metric, key in ((v_rand, "threshold"), (v_info, "v_info_threshold")):
        chosen = metric(probability(validation), source.labels[validation]).threshold
        assert metrics[key] == chosen
        expected = metric(tested, labels, chosen).per_section
        np.testing.assert_allclose(scores[metric.__name__], expected, atol=1e-6)
        oracle = metric(tested, labels)
        assert metrics[f"{metric.__name__}_oracle"]["mean"] == pytest.approx(oracle.value)
        assert oracle.value >= scores[metric.__name__].mean() - 1e-6
    assert metrics["pixel_error"]["mean"] == pytest.approx(pixel_error(tested, labels))
    warping = [warping_error(p > metrics["threshold"], t).value for p, t in zip(tested, labels, strict=True)]
    np.testing.assert_allclose(scores["warping_error"], warping, atol=1e-6)


@pytest.fixture
def knowing(monkeypatch, source):
    """Networks that give imperfect probabilities for the sections of `source`; returns those, (Z, Y, X)."""
    probability = imperfect_probability(source.labels)
    answers = {section.tobytes(): answer for section, answer in zip(source.images, probability, strict=True)}
    untaught = Predictor.section

    def section(self, window):
        (alone,) = window
        return answers[alone.tobytes()] if alone.tobytes() in answers else untaught(self, window)

    monkeypatch.setattr(Predictor, "section", section)
    monkeypatch.setattr("emseg.data.normalization.Normalization.grey", lambda self, images: images)
    return probability


@pytest.fixture
def record(tmp_path, tiny_settings, source):
    augmented = load_or_make_augmented(tiny_settings, source, "residual_unet", 0)
    return train_model("residual_unet", tiny_settings, source, augmented, 0, 0, tmp_path / "run" / "training")


def test_agglomeration_learns_from_training_sections_alone(tmp_path, source, record, knowing):
    augmented = augmented_of_record(record, source)
    thresholded = evaluate_record(record, source, augmented, with_figures=False)
    assert thresholded["cells"] == "threshold"
    metrics = evaluate_record(record, source, augmented, cells="agglomeration")
    training, test = (record.read()["split"][part] for part in ("training", "test"))
    agglomeration = learn_agglomeration([(knowing[training], source.labels[training])])
    closed = agglomeration.close_stack(knowing[test])
    for metric in (v_rand, v_info):
        name = metric.__name__
        assert metrics[name]["mean"] == pytest.approx(metric(closed, source.labels[test], 0.5).value)
        assert metrics[f"{name}_thresholded"] == thresholded[name]
        assert metrics[f"{name}_oracle"]["mean"] == pytest.approx(metric(closed, source.labels[test]).value)
    assert metrics["pixel_error"] == thresholded["pixel_error"]
    masks = (closed > 0.5) & (knowing[test] > 0.5)
    warping = [warping_error(mask, label).value for mask, label in zip(masks, source.labels[test], strict=True)]
    assert metrics["warping_error"]["mean"] == pytest.approx(np.mean(warping))
    assert (metrics["cells"], metrics["threshold"], metrics["v_info_threshold"]) == ("agglomeration", 0.5, 0.5)
    assert len(list((evaluation_folder(record) / "overlays").iterdir())) == 2

    # What users segment with is what was scored.
    write_package(record, tmp_path / "package")
    for segmenter in (segmenter_of_run(record.folder.parent), open_package(tmp_path / "package", "version 1")):
        cells = segmenter.segment(lambda z: source.images[test[z]], len(test), "cells")
        for found, section, probability in zip(cells, closed, knowing[test], strict=True):
            np.testing.assert_array_equal(found, label_cells(section > 0.5, probability, 0.5))

    evaluate_record(record, source, augmented, with_figures=False)
    assert segmenter_of_run(record.folder.parent).agglomeration is None


def test_a_damaged_agglomeration_is_not_used(tmp_path, source, record, knowing):
    evaluate_record(record, source, augmented_of_record(record, source), with_figures=False, cells="agglomeration")
    write_package(record, tmp_path / "package")
    (tmp_path / "package" / "agglomeration.json").write_text("{}")
    with pytest.raises(InputError, match="version 1 cannot be loaded"):
        open_package(tmp_path / "package", "version 1")
    (tmp_path / "package" / "agglomeration.json").unlink()
    with pytest.raises(InputError, match="version 1 cannot be loaded"):
        open_package(tmp_path / "package", "version 1")


def test_a_network_that_tells_nothing_apart_teaches_no_agglomeration(source, record, monkeypatch):
    monkeypatch.setattr(Predictor, "section", lambda self, window: np.full(window[0].shape, 0.6, "f4"))
    with pytest.raises(InputError, match="use cells: threshold"):
        evaluate_record(record, source, augmented_of_record(record, source), cells="agglomeration")
    assert not evaluation_folder(record).exists()
