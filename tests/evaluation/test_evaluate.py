"""Scores of a run against the metrics called by hand on its prediction."""

import json

import numpy as np
import pandas as pd
import pytest
from evaluated import write_values
from imperfect import imperfect_probability

from emseg.data.sources import Source
from emseg.errors import InputError
from emseg.evaluation.calibrate import calibrate
from emseg.evaluation.evaluate import calibrate_and_evaluate
from emseg.inference import Predictor, predict
from emseg.inference.trained import load_network
from emseg.metrics import pixel_error, v_info, v_rand, warping_error
from emseg.registry.package import open_package, segmenter_of_run, write_package
from emseg.reporting.evaluation_figures import draw_evaluation
from emseg.segmentation.agglomeration import learn_agglomeration
from emseg.segmentation.segmenter import label_cells
from emseg.training.plan import RunPlan, parts_of_run
from emseg.training.run import train_model


def test_each_metric_has_the_threshold_that_is_best_for_it_on_validation_sections(tmp_path, tiny_settings, source):
    record = train_model(RunPlan("unet2", 0, 0, tiny_settings, source), tmp_path / "run" / "training")
    evaluation = calibrate_and_evaluate(record, source)
    scores = pd.read_csv(record.evaluation_folder / "scores.csv")
    network, normalization = load_network(record)

    def probability(sections):
        return predict(network, source.images[sections], normalization=normalization)

    validation, test = (getattr(record.read().split, part) for part in ("validation", "test"))
    tested, labels = probability(test), source.labels[test]
    for metric, key in ((v_rand, "threshold"), (v_info, "v_info_threshold")):
        chosen = metric(probability(validation), source.labels[validation]).threshold
        assert getattr(evaluation, key) == chosen
        expected = metric(tested, labels, chosen).per_section
        np.testing.assert_allclose(scores[metric.__name__], expected, atol=1e-6)
        oracle = metric(tested, labels)
        assert evaluation.metrics[f"{metric.__name__}_oracle"].mean == pytest.approx(oracle.value)
        assert oracle.value >= scores[metric.__name__].mean() - 1e-6
    assert evaluation.metrics["pixel_error"].mean == pytest.approx(pixel_error(tested, labels))
    warping = [warping_error(p > evaluation.threshold, t).value for p, t in zip(tested, labels, strict=True)]
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
    return train_model(RunPlan("residual_unet", 0, 0, tiny_settings, source), tmp_path / "run" / "training")


def test_agglomeration_learns_from_training_sections_alone(tmp_path, source, record, knowing):
    thresholded = calibrate_and_evaluate(record, source)
    assert thresholded.cells == "threshold"
    evaluation = calibrate_and_evaluate(record, source, "agglomeration", draw_evaluation)
    training, test = (getattr(record.read().split, part) for part in ("training", "test"))
    agglomeration = learn_agglomeration([(knowing[training], source.labels[training])])
    closed = agglomeration.close_stack(knowing[test])
    for metric in (v_rand, v_info):
        name = metric.__name__
        assert evaluation.metrics[name].mean == pytest.approx(metric(closed, source.labels[test], 0.5).value)
        assert evaluation.metrics[f"{name}_thresholded"] == thresholded.metrics[name]
        assert evaluation.metrics[f"{name}_oracle"].mean == pytest.approx(metric(closed, source.labels[test]).value)
    assert evaluation.metrics["pixel_error"] == thresholded.metrics["pixel_error"]
    masks = (closed > 0.5) & (knowing[test] > 0.5)
    warping = [warping_error(mask, label).value for mask, label in zip(masks, source.labels[test], strict=True)]
    assert evaluation.metrics["warping_error"].mean == pytest.approx(np.mean(warping))
    assert (evaluation.cells, evaluation.threshold, evaluation.v_info_threshold) == ("agglomeration", 0.5, 0.5)
    assert len(list((record.evaluation_folder / "overlays").iterdir())) == 2

    # What users segment with is what was scored.
    write_package(record, tmp_path / "package")
    for segmenter in (segmenter_of_run(record.folder.parent), open_package(tmp_path / "package", "version 1")):
        cells = segmenter.segment(lambda z: source.images[test[z]], len(test), "cells")
        for found, section, probability in zip(cells, closed, knowing[test], strict=True):
            np.testing.assert_array_equal(found, label_cells(section > 0.5, probability, 0.5))

    calibrate_and_evaluate(record, source)
    assert segmenter_of_run(record.folder.parent).agglomeration is None


def test_damaged_rules_for_cells_are_not_used(tmp_path, source, record, knowing):
    calibrate_and_evaluate(record, source, "agglomeration")
    write_package(record, tmp_path / "package")
    file = tmp_path / "package" / "cells.json"
    cells = json.loads(file.read_text())
    write_values(file, cells | {"agglomeration": cells["agglomeration"] | {"features": []}})
    with pytest.raises(InputError, match="version 1 cannot be loaded"):
        open_package(tmp_path / "package", "version 1")
    write_values(file, cells | {"agglomeration": {}})
    with pytest.raises(InputError, match=r"cells.json is damaged \(agglomeration.features"):
        open_package(tmp_path / "package", "version 1")
    file.write_text(json.dumps(cells | {"agglomeration": None}))
    with pytest.raises(InputError, match=r"cells.json is damaged"):
        open_package(tmp_path / "package", "version 1")
    file.unlink()
    with pytest.raises(InputError, match=r"lack cells.json"):
        open_package(tmp_path / "package", "version 1")


@pytest.mark.parametrize("part", ["test", "validation"])
def test_calibration_looks_at_validation_and_not_at_test_sections(source, record, knowing, part):
    def calibrated(dataset):
        record.update(data_digest=dataset.digest)
        parts = parts_of_run(record, dataset)
        found = calibrate(record, parts.training, parts.validation, "agglomeration")
        return found.model_dump(exclude={"made_from"})

    labels = source.labels.copy()
    sections = list(getattr(record.read().split, part))
    labels[sections] = ~labels[sections]
    spoilt = Source(source.name, source.images, labels, source.test_images, source.test_labels)
    assert (calibrated(spoilt) == calibrated(source)) == (part == "test")


def test_a_network_that_tells_nothing_apart_teaches_no_agglomeration(source, record, monkeypatch):
    monkeypatch.setattr(Predictor, "section", lambda self, window: np.full(window[0].shape, 0.6, "f4"))
    with pytest.raises(InputError, match="use cells: threshold"):
        calibrate_and_evaluate(record, source, "agglomeration")
    assert not record.evaluation_folder.exists()
