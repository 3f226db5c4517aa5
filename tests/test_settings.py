from pathlib import Path

import pytest
import yaml

from emseg.errors import InputError
from emseg.settings import load_settings, merge, read_yaml

PROJECT = Path(__file__).parents[1]


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
        ({"protocol": {"name": "random"}}, "protocol.name: .*'paper', 'heldout', 'kfold' or 'official'"),
        ({"models": {"unet2": {"loss": "mse"}}}, "models.unet2.loss"),
        ({"models": {"unet2": {"network": {"width": 3}}}}, "models.unet2.network.width is not a setting"),
        ({"models": {"unet2": {"training": {"epoch": 3}}}}, "models.unet2.training.epoch is not a setting"),
        ({"models": {"unet2": {"loss": "weighted_bce"}}}, "weight_map goes with loss weighted_bce"),
        ({"weight_map": {"sigma": 0.0}}, "weight_map.sigma"),
        ({"benchmark": ["unet9"]}, "benchmark names unet9"),
        ({"protocol": {"folds": [1]}}, "folds must be different numbers from 0 to 0 under protocol heldout"),
    ],
)
def test_bad_settings_are_refused_by_key(tmp_path, changes, message):
    with pytest.raises(InputError, match=message):
        load_settings(changed(tmp_path, changes))


def test_the_weight_map_stands_in_one_place(tmp_path):
    text = (PROJECT / "params.yaml").read_text()
    path = tmp_path / "params.yaml"
    path.write_text(text.replace("weight_map: *weight_map", "weight_map: {w0: 3.0, sigma: 5.0}"))
    with pytest.raises(InputError, match="must be the shared one"):
        load_settings(path)


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


@pytest.mark.parametrize("profile", read_yaml(Path(PROJECT / "profiles.yaml")))
def test_every_profile_fits(tmp_path, profile):
    changes = read_yaml(PROJECT / "profiles.yaml")[profile]
    load_settings(changed(tmp_path, changes))


def test_paper_profile_is_the_studys_recipe(tmp_path):
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
