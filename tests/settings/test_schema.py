"""The schema for editors: what emseg takes it takes, and a misspelt key it does not."""

import json
import re
from pathlib import Path

import pytest

from emseg.settings import merge, read_yaml
from emseg.settings.schema import settings_schema

PROJECT = Path(__file__).parents[2]
TYPES = {
    "object": dict,
    "array": list,
    "string": str,
    "boolean": bool,
    "null": type(None),
    "integer": int,
    "number": (int, float),
}
BOUNDS = {
    "minimum": lambda value, bound: value >= bound,
    "maximum": lambda value, bound: value <= bound,
    "exclusiveMinimum": lambda value, bound: value > bound,
    "exclusiveMaximum": lambda value, bound: value < bound,
    "minItems": lambda value, bound: len(value) >= bound,
    "pattern": lambda value, pattern: re.search(pattern, value),
    "enum": lambda value, allowed: value in allowed,
    "const": lambda value, allowed: value == allowed,
}
SAYS_NOTHING = {"$schema", "$defs", "title", "description", "default", "required", "type"}


def problems(value, schema, whole, where=""):
    """What is wrong with a value: the part of JSON Schema that is used, checked word by word."""
    if "$ref" in schema:
        schema = {**schema, **whole["$defs"][schema["$ref"].removeprefix("#/$defs/")]}
        del schema["$ref"]
    kind = schema.get("type")
    if kind and (not isinstance(value, TYPES[kind]) or (isinstance(value, bool) and kind != "boolean")):
        return [f"{where} is no {kind}"]
    found = []
    for word, argument in schema.items():
        if word in BOUNDS:
            found += [] if BOUNDS[word](value, argument) else [f"{where} breaks {word}"]
        elif word == "anyOf":
            tried = [problems(value, option, whole, where) for option in argument]
            found += [] if not all(tried) else min(tried, key=len)
        elif word == "items":
            for index, item in enumerate(value):
                found += problems(item, argument, whole, f"{where}.{index}")
        elif word not in SAYS_NOTHING | {"properties", "patternProperties", "additionalProperties", "propertyNames"}:
            raise AssertionError(f"a word this check does not know: {word}")
    if isinstance(value, dict):
        found += [f"{where}.{key} is missing" for key in schema.get("required", []) if key not in value]
        for key, part in value.items():
            own = schema.get("properties", {}).get(key)
            own = own or next((s for p, s in schema.get("patternProperties", {}).items() if re.search(p, key)), None)
            own = schema.get("additionalProperties", True) if own is None else own
            if own is False:
                found.append(f"{where}.{key} is unknown")
            elif own is not True:
                found += problems(part, own, whole, f"{where}.{key}")
            found += problems(key, schema.get("propertyNames", {}), whole, f"{where}.{key}")
    return found


def shipped(profile=None):
    values = read_yaml(PROJECT / "params.yaml")
    if profile:
        merge(values, read_yaml(PROJECT / "profiles.yaml")[profile])
    return values


@pytest.mark.parametrize("profile", [None, *read_yaml(PROJECT / "profiles.yaml")])
def test_params_and_every_profile_fit(profile):
    assert problems(shipped(profile), settings_schema(), settings_schema()) == []


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"trainning": {}}, ".trainning is unknown"),
        ({"training": {"epoch": 3}}, ".training.epoch is unknown"),
        ({"models": {"unet2": {"training": {"epoch": 3}}}}, ".models.unet2.training.epoch is unknown"),
        ({"models": {"unet2": {"network": {"width": 3}}}}, ".models.unet2.network.width is unknown"),
        ({"models": {"unet2": {"weight_map": {"w": 3.0}}}}, ".models.unet2.weight_map.w is unknown"),
        ({"models": {"../x": {"loss": "bce"}}}, ".models.../x is unknown"),
        ({"training": {"epochs": "many"}}, ".training.epochs is no integer"),
        ({"training": {"optimizer": "sgd"}}, ".training.optimizer breaks enum"),
        ({"promotion": {"not_worse": {"beauty": 0.1}}}, ".promotion.not_worse.beauty breaks enum"),
        ({"tuning": {"space": {"dropout": ["study"]}}}, ".tuning.space.dropout.0"),
    ],
)
def test_a_misspelt_key_or_a_wrong_value_does_not(change, problem):
    values = shipped()
    merge(values, change)
    assert problem in " ".join(problems(values, settings_schema(), settings_schema()))


def test_a_model_may_change_single_keys():
    values = shipped()
    merge(values, {"models": {"weighted_unet": {"weight_map": {"w0": 3.0}, "training": {"epochs": 2}}}})
    assert problems(values, settings_schema(), settings_schema()) == []


def test_keys_are_explained():
    recipe = settings_schema()["$defs"]["RecipeSettings"]["properties"]
    assert recipe["weight_average"]["description"].startswith("Share that a step keeps of the running mean")


def test_the_command_writes_or_prints_it_and_replaces_nothing_else(tmp_path, monkeypatch, emseg):
    monkeypatch.chdir(tmp_path)
    for _ in range(2):
        assert emseg("schema")[0] == 0
    written = json.loads((tmp_path / "params.schema.json").read_text())
    assert written == settings_schema() == json.loads(emseg("schema", "-")[1])
    (tmp_path / "params.yaml").write_text("seeds: [0]\n")
    code, out, err = emseg("schema", "params.yaml")
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert "params.yaml holds something else" in err
    assert (tmp_path / "params.yaml").read_text() == "seeds: [0]\n"
    assert "$schema=params.schema.json" in emseg("schema", "--help")[1]
