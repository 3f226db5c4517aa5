"""A dataset that grew: the champion is scored again on its new sections, but for those it was trained on."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from crowned import champions

from emseg.data.normalization import Normalization
from emseg.data.sources import write_source
from emseg.data.synthetic import make_synthetic
from emseg.evaluation.evaluate import calibrate_and_evaluate
from emseg.inference.trained import load_predictor
from emseg.metrics.scoring import score_segments
from emseg.records.calibration import read_calibration
from emseg.registry import compare as comparing
from emseg.registry.compare import compare
from emseg.registry.promote import best_candidate, promote
from emseg.registry.register import register_record
from emseg.registry.standings import standings
from emseg.registry.versions import find_version, read_registry
from emseg.settings import PromotionSettings, Settings, merge
from emseg.training.plan import RunPlan
from emseg.training.run import train_model

RULE = PromotionSettings(
    metric="v_rand",
    minimum_gain=0.0,
    confidence=0.95,
    not_worse={},
    minimum_sections=3,
    minimum_seeds=1,
    clean_git=False,
)


@pytest.fixture
def newer(source):
    """The source with sections before and after; of the last four, the first is one of the old ones, mirrored."""
    images, labels = make_synthetic(sections=10, side=64, seed=8)
    labels = labels > 0
    mirrored = source.images[:1, :, ::-1], source.labels[:1, :, ::-1]
    return replace(
        source,
        images=np.concatenate([images[:8], mirrored[0], source.images[7:8], images[8:]]),
        labels=np.concatenate([labels[:8], mirrored[1], source.labels[7:8], labels[8:]]),
    )


@pytest.fixture
def moved(store, evaluated, newer, tiny_settings, tmp_path):
    """The champion's record of the old data; version 2 is of the new ones, which lie where the project keeps them."""
    record = evaluated()
    register_record(store, record)
    promote(store, RULE.model_copy(update={"minimum_sections": 2}), "1")
    values = tiny_settings.model_dump()
    merge(values, {"protocol": {"held_out": 4}, "training": {"epochs": 1}})
    settings = Settings.model_validate(values)
    own = train_model(RunPlan("residual_unet", 0, 5, settings, newer), tmp_path / "runs" / "newer" / "training")
    calibrate_and_evaluate(own, newer)
    register_record(store, own)
    write_source(tmp_path / "data" / "sources" / "cortex", newer)
    return record


def test_the_champion_is_scored_again_without_what_it_was_trained_on(store, moved, newer, monkeypatch):
    registry = read_registry(store)
    compared = compare(store, find_version(store, "2"), registry.champion, registry.versions)
    assert compared.sections == [9, 10, 11]
    assert "3 of 4 test sections count (9, 10, 11)" in compared.evidence
    assert sorted(compared.candidate.per_section["section"]) == [9, 10, 11]
    run = moved.read()
    grey = Normalization(run.normalization.low, run.normalization.high).grey(newer.images[8:])
    probability = load_predictor(moved, normalized=True).predict(grey, np.arange(8, 12))
    threshold = read_calibration(moved.folder.parent, run)[0].thresholds.v_rand
    expected = score_segments(probability, newer.labels[8:], threshold=threshold)["v_rand"][1:]
    np.testing.assert_allclose(compared.champion.per_section["v_rand"], expected, atol=1e-6)
    # What was scored again is kept with the run of the version.
    monkeypatch.setattr(comparing, "score_sections", None)
    again = compare(store, find_version(store, "2"), registry.champion, registry.versions)
    np.testing.assert_array_equal(again.champion.per_section["v_rand"], compared.champion.per_section["v_rand"])
    (file,) = store.list_artifacts(find_version(store, "2").run_id, "champion-scored-again")
    assert registry.champion.tags["emseg.digest"][:16] in file.path
    strict = promote(store, RULE.model_copy(update={"minimum_sections": 4}), dry_run=True)
    assert (strict.version, strict.sections) == (2, [9, 10, 11])
    assert {c.name: c.is_met for c in strict.conditions}["sections"] is False
    decision = promote(store, RULE, "2", force="the data moved on")
    assert decision.promoted
    assert "3 of 4 test sections count" in store.get_model_version("cortex-champion", "2").description
    assert champions(store) == [1, 2]
    assert [group.has_champion for group in standings(store, read_registry(store))] == [True, False]
    # The other way round the old sections are needed, and are not here.
    (said,) = [c.evidence for c in promote(store, RULE, "1", dry_run=True).conditions if c.name == "same test"]
    assert f"cortex here has digest {newer.digest}; bring in cortex with digest {moved.read().data_digest}" in said


def version(number, v_rand, data="old", protocol="heldout", fold=0, dataset="cortex"):
    evaluation = SimpleNamespace(
        metrics={"v_rand": SimpleNamespace(mean=v_rand)},
        data_digest=data,
        protocol=protocol,
        fold=fold,
        dataset=dataset,
        test=f"{dataset} {data} {protocol} {fold}",
    )
    return SimpleNamespace(number=number, tags={"emseg.digest": f"digest {number}"}, evaluation=evaluation)


def test_versions_of_the_newest_data_come_up_for_promotion():
    champion, other = version(1, 0.9), version(2, 0.8)
    elsewhere = version(9, 0.99, dataset="axons")
    assert best_candidate([champion, other, elsewhere], champion, RULE).number == 2
    kfold = [version(3 + fold, 0.95, protocol="kfold", fold=fold) for fold in range(3)]
    assert best_candidate([champion, other, *kfold], champion, RULE).number == 2
    # The data moved on: the best of the newest, tested under the champion's protocol.
    newer = [version(6, 0.7, "new"), version(7, 0.75, "new"), version(8, 0.99, "new", "kfold")]
    assert best_candidate([champion, other, *kfold, *newer, elsewhere], champion, RULE).number == 7
    # A champion of the newest data has rivals of the same.
    assert best_candidate([other, *newer, champion], newer[1], RULE).number == 6
