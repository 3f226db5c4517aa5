import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from emseg.data.io.stack import section_digest
from emseg.errors import InputError
from emseg.evaluation.evaluate import calibrate_and_evaluate
from emseg.inference import predict
from emseg.inference.trained import load_network, load_predictor
from emseg.models import build_model
from emseg.records.code import DECIDES
from emseg.records.record import RunRecord
from emseg.records.run import FAILED, FINISHED
from emseg.settings import Settings, merge
from emseg.training.plan import RunPlan
from emseg.training.run import train_model
from emseg.training.trainer import TrainingDiverged


def train(settings, source, folder, model="unet2", **options):
    return train_model(RunPlan(model, 0, 0, settings, source), folder, device=torch.device("cpu"), **options)


def weights(record):
    return load_file(record.weights_file)


def same(first, second):
    return all(torch.equal(first[key], second[key]) for key in first | second)


@pytest.mark.parametrize("model", ["dmcn", "unet1", "weighted_unet", "unet2"])
def test_a_run_leaves_a_complete_record(tmp_path, tiny_settings, source, model):
    record = train(tiny_settings, source, tmp_path / "run", model)
    run = record.read()
    assert run.status == FINISHED
    assert run.data_digest == source.digest
    assert run.split.test == [7, 8]
    assert run.tested_on == {section_digest(image) for image in source.images[7:]}
    assert run.lineage.packages["torch"] == torch.__version__
    assert [row["epoch"] for row in record.history()] == [1, 2, 3]
    assert all(np.isfinite(list(row.values())).all() for row in record.history())
    assert sorted(file.name for file in record.folder.iterdir()) == [
        "history.csv",
        "record.json",
        "weights.safetensors",
    ]
    network, normalization = load_network(record)
    assert same(network.state_dict(), weights(record))
    assert (normalization.low, normalization.high) == (0, 255)


def test_a_run_predicts_as_its_recipe_says(tmp_path, tiny_settings, source):
    changes = {"precision": "bfloat16", "prediction": "average", "test_time_augmentation": True}
    values = tiny_settings.model_dump()
    merge(values["training"], changes)
    record = train(Settings.model_validate(values), source, tmp_path / "run", "unet1")
    network, normalization = load_network(record)
    expected = predict(network, source.images, "average", True, normalization, precision="bfloat16")
    sections = range(len(source.images))
    np.testing.assert_array_equal(load_predictor(record).predict(source.images, sections), expected)
    grey = normalization(source.images)
    np.testing.assert_array_equal(load_predictor(record, normalized=True).predict(grey, sections), expected)
    assert (expected != predict(network, source.images, "average", True, normalization)).any()


def test_same_seed_same_weights_and_another_seed_others(tmp_path, tiny_settings, source):
    first = train(tiny_settings, source, tmp_path / "first")
    again = train(tiny_settings, source, tmp_path / "again")
    assert same(weights(first), weights(again))
    assert [row["train_loss"] for row in first.history()] == [row["train_loss"] for row in again.history()]
    other = train_model(RunPlan("unet2", 0, 1, tiny_settings, source), tmp_path / "other")
    assert not same(weights(first), weights(other))


def test_a_finished_run_is_kept_and_replaced_only_when_asked_for(tmp_path, tiny_settings, source, capfd):
    first = train(tiny_settings, source, tmp_path / "run").read()
    assert train(tiny_settings, source, tmp_path / "run").read().id == first.id
    other = changed(tiny_settings, learning_rate=1e-3)
    with pytest.raises(InputError, match="holds a finished run of another training; choose another --folder, or give"):
        train(other, source, tmp_path / "run")
    assert RunRecord(tmp_path / "run").read() == first
    assert train(other, source, tmp_path / "run", replace_finished=True).read().id != first.id
    assert "replacing the finished run there, of another training" in capfd.readouterr().err


def test_a_folder_with_files_of_the_user_is_not_trained_into(tmp_path, tiny_settings, source):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "thesis.txt").write_text("years of work")
    with pytest.raises(InputError, match=r"holds files that emseg did not write \(thesis.txt\)"):
        train(tiny_settings, source, tmp_path / "run")
    assert [file.name for file in (tmp_path / "run").iterdir()] == ["thesis.txt"]


@pytest.mark.parametrize("name", ["weights.safetensors", "checkpoint.pt", "history.csv"])
def test_what_has_no_record_is_not_taken_for_a_run(tmp_path, tiny_settings, source, name):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / name).write_text("somebody's")
    with pytest.raises(InputError, match="holds files that emseg did not write"):
        train(tiny_settings, source, tmp_path / "run")
    assert (tmp_path / "run" / name).read_text() == "somebody's"


def test_checkpoints_that_a_kill_left_beside_a_finished_run_go(tmp_path, tiny_settings, source):
    train(tiny_settings, source, tmp_path / "run")
    for name in ("checkpoint.pt", "checkpoint-before.pt"):
        (tmp_path / "run" / name).write_text("left behind")
    train(tiny_settings, source, tmp_path / "run")
    assert not list((tmp_path / "run").glob("checkpoint*"))


def test_weights_that_are_not_those_of_the_record_are_refused_and_trained_again(tmp_path, tiny_settings, source, capfd):
    record = train(tiny_settings, source, tmp_path / "run")
    before = record.weights_file.read_bytes()
    flipped = bytearray(before)
    flipped[len(flipped) // 2] ^= 1
    record.weights_file.write_bytes(flipped)
    with pytest.raises(InputError, match="is damaged: its SHA-256 is not the record's"):
        load_network(record)
    assert train(tiny_settings, source, tmp_path / "run").weights_file.read_bytes() == before
    assert "training again" in capfd.readouterr().err


def test_weights_can_be_read_by_whom_the_umask_allows(tmp_path, tiny_settings, source):
    mask = os.umask(0o027)
    try:
        record = train(tiny_settings, source, tmp_path / "run")
    finally:
        os.umask(mask)
    assert {file.name: oct(file.stat().st_mode & 0o777) for file in record.folder.iterdir()} == dict.fromkeys(
        ("record.json", "history.csv", "weights.safetensors"), "0o640"
    )


def changed(settings, **training):
    return settings.model_copy(update={"training": settings.training.model_copy(update=training)})


def test_a_run_that_warps_every_crop_anew_makes_no_augmented_images(tmp_path, tiny_settings, source):
    settings = changed(tiny_settings, augmentation="fresh")
    assert not len(RunPlan("unet2", 0, 0, settings, source).augmented.images)
    record = train(settings, source, tmp_path / "run")
    assert record.read().status == FINISHED
    assert record.read().augmented_digest == "none"
    scored = calibrate_and_evaluate(record, source)
    stored = train(tiny_settings, source, tmp_path / "stored")
    assert record.read().grey_levels == stored.read().grey_levels
    assert set(scored.metrics) == set(calibrate_and_evaluate(stored, source).metrics)


def test_divergence_stops_with_a_sentence_and_keeps_the_last_good_weights(tmp_path, tiny_settings, source):
    settings = changed(tiny_settings, epochs=40)
    kept = {}

    def sabotage(record):
        if len(record.history()) == 2:
            kept.update(weights(record))
            poisoned.append(True)

    poisoned = []
    import emseg.training.run as run

    honest = run.make_loss

    def make_loss(*arguments):
        loss = honest(*arguments)
        return lambda logits, *rest: loss(logits, *rest) * (float("nan") if poisoned else 1.0)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run, "make_loss", make_loss)
        with pytest.raises(TrainingDiverged, match=r"loss nan.*checkpoint of epoch 2 is kept"):
            train_model(RunPlan("unet2", 0, 0, settings, source), tmp_path / "run", after_epoch=sabotage)
    record = RunRecord(tmp_path / "run")
    assert record.read().status == FAILED
    assert "loss nan" in record.read().message
    assert same(weights(record), kept)


def test_early_stopping_counts_epochs_without_gain(tmp_path, tiny_settings, source):
    stopping = type(tiny_settings.training).model_fields["early_stopping"].annotation.__args__[0]
    settings = changed(
        tiny_settings,
        epochs=50,
        learning_rate=1e-12,
        early_stopping=stopping(metric="pixel_error", patience=2),
        schedule="constant",
    )
    # At a vanishing learning rate the score cannot improve after the first epoch but by batch statistics.
    record = train(settings, source, tmp_path / "run", "dmcn")
    history = record.history()
    errors = [row["validation_pixel_error"] for row in history]
    assert len(history) < 50
    assert min(errors[:-2]) <= min(errors[-2:])


def test_gradient_accumulation_equals_the_whole_batch(tmp_path, tiny_settings, source):
    # Without batch normalisation and dropout the two differ by rounding alone.
    def run(micro_batch, folder):
        settings = changed(tiny_settings, micro_batch=micro_batch, epochs=1, optimizer="adam", learning_rate=1e-3)
        entry = settings.models["dmcn"]
        network = entry.network.model_copy(update={"normalization": "none"})
        models = settings.models | {"dmcn": entry.model_copy(update={"network": network})}
        return weights(train(settings.model_copy(update={"models": models}), source, tmp_path / folder, "dmcn"))

    whole, parts = run(None, "whole"), run(2, "parts")
    for key, value in whole.items():
        torch.testing.assert_close(value, parts[key], rtol=1e-3, atol=2e-4)


def test_two_processes_cannot_train_into_one_record(tmp_path, tiny_settings, source):
    record = RunRecord(tmp_path / "run")
    with record.lock(), pytest.raises(InputError, match="another process is training"):
        train(tiny_settings, source, record.folder)


def test_schedule_and_warm_up(tmp_path, tiny_settings, source):
    settings = changed(tiny_settings, epochs=8, warmup_epochs=1.0, images_per_epoch=16, schedule="cosine")
    rates = [row["learning_rate"] for row in train(settings, source, tmp_path / "run", "dmcn").history()]
    peak = settings.training.learning_rate
    assert rates[0] < peak
    assert max(rates) <= peak
    assert rates[1:] == sorted(rates[1:], reverse=True)
    assert rates[-1] < 0.1 * peak


def test_a_constant_prediction_is_flagged(tmp_path, tiny_settings, source):
    settings = changed(tiny_settings, epochs=1, learning_rate=1e-12, optimizer="adam")
    import emseg.training.run as run

    def dead(name, **overrides):
        network = build(name, **overrides)
        torch.nn.init.zeros_(network.head.weight)
        return network

    build = run.build_model
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run, "build_model", dead)
        record = train(settings, source, tmp_path / "run", "unet2")
    assert record.read().collapsed


@pytest.mark.parametrize("model", ["unet2", "unet1"])
def test_a_crop_larger_than_the_sections_is_the_largest_that_fits(tmp_path, tiny_settings, source, model):
    settings = changed(tiny_settings, crop=256)
    entry = settings.models[model].model_copy(update={"training": {}})
    settings = settings.model_copy(update={"models": settings.models | {model: entry}})
    plan = RunPlan(model, 0, 0, settings, source)
    network = build_model(model, **entry.network.overrides())
    assert plan.recipe.crop == max(s for s in range(1, 65) if network.is_valid_side(s + 2 * network.margin))
    assert plan.notes == [f"crops are {plan.recipe.crop} pixels, not 256: the sections have 64 x 64 pixels"]
    record = train_model(plan, tmp_path / "run")
    assert record.read().settings.training.crop == plan.recipe.crop
    assert not RunPlan(model, 0, 0, tiny_settings, source).notes


def test_valid_network_on_sections_smaller_than_its_context(tmp_path, tiny_settings, source):
    entry = tiny_settings.models["unet1"]
    deep = entry.model_copy(update={"network": entry.network.model_copy(update={"depth": 4})})
    settings = tiny_settings.model_copy(update={"models": tiny_settings.models | {"unet1": deep}})
    with pytest.raises(InputError, match=r"models.unet1.network: sections of 64 x 64 .* context of 92"):
        train(settings, source, tmp_path / "run", "unet1")


@pytest.mark.parametrize(
    ("protocol", "augmentation"), [("heldout", "stored"), ("paper", "fresh"), ("heldout", "fresh")]
)
def test_augmented_images_have_no_neighbours(tmp_path, tiny_settings, source, protocol, augmentation):
    values = tiny_settings.model_dump()
    merge(values, {"protocol": {"name": protocol}, "training": {"augmentation": augmentation, "epochs": 1}})
    merge(values["models"]["residual_unet"], {"network": {"neighbours": 1}})
    settings = Settings.model_validate(values)
    if (protocol, augmentation) == ("heldout", "fresh"):
        train(settings, source, tmp_path / "run", "residual_unet")
        return
    with pytest.raises(InputError, match=r"models.residual_unet.network.neighbours is 1, but augmented images have"):
        train(settings, source, tmp_path / "run", "residual_unet")
    assert not (tmp_path / "run").exists()


def test_nothing_heavy_is_imported_to_train():
    code = (
        "import sys, emseg.training.run, emseg.inference, emseg.metrics;"
        "print([m for m in ('mlflow', 'optuna', 'dvc') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=os.environ)
    assert done.stdout.strip() == "[]"


def test_what_trains_decides_the_identity_of_a_run():
    code = "import sys, emseg.training.run; print('\\n'.join(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=os.environ)
    rooms = {name.split(".")[1] for name in done.stdout.split() if name.count(".") > 1 and name.startswith("emseg.")}
    assert "training" in rooms
    # Sections and settings are in the identity themselves; records only hold what is found.
    assert rooms - {"data", "records", "settings"} <= set(DECIDES["train"])
