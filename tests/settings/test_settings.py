import json
from pathlib import Path

import pytest
import yaml

from emseg.errors import InputError
from emseg.settings import load_settings, merge, read_yaml
from emseg.settings.file import as_yaml, assign

PROJECT = Path(__file__).parents[2]


def changed(tmp_path, changes):
    values = read_yaml(PROJECT / "params.yaml")
    merge(values, changes)
    path = tmp_path / "params.yaml"
    path.write_text(yaml.safe_dump(values))
    return path


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"trainning": {}}, "trainning is not a setting"),
        ({"training": {"epoch": 3}}, "training.epoch is not a setting"),
        ({"training": {"epochs": "many"}}, "training.epochs: .*integer"),
        ({"training": {"epochs": 2.5}}, "training.epochs"),
        ({"training": {"learning_rate": -1.0}}, "training.learning_rate: .*greater than 0"),
        ({"protocol": {"name": "random"}}, "protocol.name: .*'kfold', 'leave_one_stack_out' or 'official'"),
        ({"models": {"unet2": {"loss": "mse"}}}, "models.unet2.loss"),
        ({"models": {"unet2": {"network": {"width": 3}}}}, "models.unet2.network.width is not a setting"),
        ({"models": {"unet2": {"training": {"epoch": 3}}}}, "models.unet2.training.epoch is not a setting"),
        ({"models": {"unet2": {"weight_map": {"w0": 1.0}}}}, "models.unet2.weight_map.sigma is missing"),
        ({"models": {"unet2": {"weight_map": {"w0": 1.0, "sigma": 2.0}}}}, "weight_map goes with loss weighted_bce"),
        ({"models": {"unet2": {"network": {"dropout": 0.999999}}}}, "models.unet2.network.dropout: .*0.95"),
        ({"models": {"../x": {"loss": "bce"}}}, r"models\.\.\./x"),
        ({"tuning": {"space": {"dropout": ["off"]}}}, "tuning.space.dropout.0: .*'without' or 'reference'"),
        ({"training": {"batch": 10_000_000}}, "training.batch"),
        ({"augment": {"count": 10**8}}, "augment.count"),
        ({"protocol": {"name": "kfold", "blocks": 10**9}}, "protocol.blocks"),
        ({"seeds": [-1]}, "seeds.0: .*greater than or equal to 0"),
        ({"seeds": [10**20]}, "seeds.0: .*less than or equal to 4294967295"),
        ({"seeds": [0, 0]}, "seeds names 0 twice"),
        ({"benchmark": ["unet2", "unet2"]}, "benchmark names unet2 twice"),
        ({"weight_map": {"sigma": 0.0}}, "weight_map.sigma"),
        ({"benchmark": ["unet9"]}, "benchmark names unet9"),
        ({"protocol": {"folds": [1]}}, "folds must be .0. under protocol heldout"),
    ],
)
def test_bad_settings_are_refused_by_key(tmp_path, changes, message):
    with pytest.raises(InputError, match=message):
        load_settings(changed(tmp_path, changes))


def test_a_weight_map_is_the_shared_one_but_for_what_its_model_says(tmp_path):
    settings = load_settings(changed(tmp_path, {"models": {"weighted_unet": {"weight_map": {"w0": 3.0}}}}))
    own, shared = settings.models["weighted_unet"].weight_map, settings.weight_map
    assert (own.w0, own.sigma, own.calibrated) == (3.0, shared.sigma, shared.calibrated)
    assert shared.w0 == 10.0
    other = load_settings(PROJECT / "params.yaml", ["models.unet2.loss=weighted_bce", "weight_map.w0=2"])
    assert other.models["unet2"].weight_map.w0 == 2.0
    assert other.models["dmcn"].weight_map is None


def test_missing_key_and_missing_file(tmp_path):
    values = read_yaml(PROJECT / "params.yaml")
    del values["training"]["epochs"]
    path = tmp_path / "params.yaml"
    path.write_text(yaml.safe_dump(values))
    with pytest.raises(InputError, match=r"training\.epochs is missing"):
        load_settings(path)
    with pytest.raises(InputError, match="does not exist"):
        load_settings(tmp_path / "none.yaml")
    path.write_text("a: [")
    with pytest.raises(InputError, match="is not YAML"):
        load_settings(path)


def test_assignments_change_single_keys():
    settings = load_settings(PROJECT / "params.yaml", ["training.epochs=3", "weight_map.sigma=7.5"])
    assert settings.training.epochs == 3
    assert settings.recipe("dmcn").epochs == 3
    # w0 and sigma stand in one place, wherever they are used.
    assert settings.models["weighted_unet"].weight_map.sigma == 7.5
    with pytest.raises(InputError, match="is not KEY=VALUE"):
        load_settings(PROJECT / "params.yaml", ["training.epochs"])


@pytest.mark.parametrize("number", ["1e-3", "1E-3", "0.001", "+1e-03", "1.e-3", ".001"])
def test_numbers_are_those_of_yaml_1_2(number):
    assert load_settings(PROJECT / "params.yaml", [f"training.learning_rate={number}"]).training.learning_rate == 1e-3


def test_words_are_no_truth_values(tmp_path):
    values = {"word": ["off", "no", "Y", "1e-3"], "number": [1e-05, -0.5], "truth": True, "none": None}
    (tmp_path / "words.yaml").write_text(as_yaml(values))
    assert read_yaml(tmp_path / "words.yaml") == values
    (tmp_path / "words.yaml").write_text("word: [off, no, Y, '1e-3']\nnumber: [1e-05, -5E-1]\ntruth: true\nnone:\n")
    assert read_yaml(tmp_path / "words.yaml") == values


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"seeds: [0]\nseeds: [1]\n", "line 1: seeds is given twice; keep one"),
        (b"data: {source: a, source: b}", "source is given twice"),
        ("# \u00b5m\nseeds: [0]\n".encode("latin-1"), "is not UTF-8 text"),
        ("seeds: [0]\n".encode("utf-16"), "is not UTF-8 text"),
        (b"seeds: !!int x\n", "is not YAML"),
        (b"seeds: !!python/object:os.system x\n", "is not YAML"),
        (b"[" * 5000, "is not YAML"),
        (b"- 1\n", "must be a mapping"),
        (b"", "must be a mapping"),
    ],
)
def test_a_file_that_is_no_settings_is_one_sentence_that_names_it(tmp_path, content, sentence):
    path = tmp_path / "params.yaml"
    path.write_bytes(content)
    with pytest.raises(InputError, match=sentence) as error:
        load_settings(path)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


def test_a_byte_order_mark_is_no_matter(tmp_path):
    path = tmp_path / "params.yaml"
    path.write_bytes(b"\xef\xbb\xbf" + (PROJECT / "params.yaml").read_bytes())
    assert load_settings(path) == load_settings(PROJECT / "params.yaml")


@pytest.mark.parametrize("assignment", ["seeds=[0", "training.epochs=[", "=3", "a..b=1", "training.epochs"])
def test_a_broken_assignment_is_one_sentence(assignment):
    with pytest.raises(InputError, match=r"is not KEY=VALUE|is not YAML"):
        load_settings(PROJECT / "params.yaml", [assignment])


OTHER = {
    "code": "networks.py",
    "task": "membranes",
    "data.source": "cortex",
    "data.labels": "interior",
    "protocol.name": "official",
    "training.optimizer": "muon",
    "training.schedule": "constant",
    "training.augmentation": "fresh",
    "training.precision": "float32",
    "training.positions": "corners",
    "training.select": "last",
    "training.select_metric": "v_rand",
    "training.prediction": "overlap_tile",
    "training.cells": "agglomeration",
    "training.early_stopping": {"metric": "train_loss", "patience": 3},
    "promotion.metric": "v_info",
    "protocol.folds": [0],
    "tuning.model": "dmcn",
    "tuning.metric": "v_info",
    "tuning.cost": "gflop",
    "tuning.resource": "seconds",
    "tuning.space.depth.low": 2,
    "tuning.space.dropout": ["reference", 0.2],
    "tuning.space.loss": ["bce"],
    "benchmark": ["unet2"],
    "seeds": [3, 4],
    "models.dmcn.loss": "weighted_bce",
    "models.dmcn.network.normalization": "none",
    "models.unet1.loss": "bce_dice",
    "models.unet1.network.normalization": "none",
    "models.unet1.training.crop": 130,
    "models.weighted_unet.loss": "bce",
    "models.weighted_unet.network.normalization": "none",
    "models.unet2.loss": "bce",
    "models.unet2.network.normalization": "none",
    "training.weight_average": 5e-05,
    "training.learning_rate": 5e-05,
    "tuning.space.learning_rate.low": 1e-05,
    "promotion.confidence": 0.9,
    "promotion.minimum_gain": 0.01,
    "protocol.blocks": 7,
    "augment.contrast": 1e-05,
}
"""Another value for what is no number, or where any number will not do."""


def leaves(values, path=()):
    for key, value in values.items():
        if isinstance(value, dict):
            yield from leaves(value, (*path, key))
        else:
            yield ".".join((*path, key)), value


def other(key, value):
    if key in OTHER:
        return OTHER[key]
    if isinstance(value, bool):
        return not value
    if value is None:
        return 1
    if isinstance(value, list):
        return value
    return value + 1 if isinstance(value, int) else value * 0.75


@pytest.mark.parametrize(("key", "value"), list(leaves(read_yaml(PROJECT / "params.yaml"))))
def test_dvc_can_change_every_key_and_nothing_else(tmp_path, key, value):
    """What `dvc exp run -S KEY=VALUE` does to the file, by DVC's own function."""
    hydra = pytest.importorskip("dvc.utils.hydra")
    path = tmp_path / "params.yaml"
    path.write_bytes((PROJECT / "params.yaml").read_bytes())
    asked = other(key, value)
    text = json.dumps(asked).replace('"', "").replace(": ", ":") if not isinstance(asked, float) else repr(asked)
    hydra.apply_overrides(path, [f"{key}={text}"])
    expected = read_yaml(PROJECT / "params.yaml")
    assign(expected, f"{key}={json.dumps(asked)}")
    assert read_yaml(path) == expected
    settings = load_settings(path)
    holder = settings.model_dump()
    for part in key.split("."):
        holder = holder[part]
    assert holder == asked
    assert asked != value or isinstance(value, list)


@pytest.mark.parametrize("profile", read_yaml(Path(PROJECT / "profiles.yaml")))
def test_every_profile_fits(tmp_path, profile):
    changes = read_yaml(PROJECT / "profiles.yaml")[profile]
    load_settings(changed(tmp_path, changes))


def test_paper_profile_is_the_references_recipe(tmp_path):
    settings = load_settings(changed(tmp_path, read_yaml(PROJECT / "profiles.yaml")["paper"]))
    assert settings.protocol.name == "paper"
    for model, rate, loss in (
        ("dmcn", 1e-3, "bce"),
        ("unet1", 1e-3, "bce"),
        ("weighted_unet", 1e-4, "weighted_bce"),
        ("unet2", 1e-3, "bce_dice"),
    ):
        recipe = settings.recipe(model)
        assert recipe.learning_rate == rate
        assert settings.models[model].loss == loss
        assert (recipe.optimizer, recipe.batch, recipe.images_per_epoch, recipe.epochs) == ("adam", 80, 900, 100)
        assert (recipe.early_stopping.metric, recipe.early_stopping.patience) == ("train_loss", 5)
        assert recipe.select == "last"
        from emseg.models import build_model, count_parameters

        exact = {"dmcn": 7_709_009, "unet1": 31_030_593, "weighted_unet": 31_030_593, "unet2": 8_648_401}
        assert count_parameters(build_model(model, **settings.models[model].network.overrides())) == exact[model]
