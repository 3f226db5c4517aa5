"""Scores of a run against the metrics called by hand on its prediction."""

import numpy as np
import pandas as pd
import pytest

from emseg.inference import predict
from emseg.metrics import pixel_error, v_info, v_rand, warping_error
from emseg.reporting.evaluation import evaluate_record, evaluation_folder
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
