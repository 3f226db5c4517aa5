"""Stage recipes: what each model is trained with, so that a change trains again only what uses it."""

from __future__ import annotations

from pathlib import Path

from emseg.errors import InputError
from emseg.files import atomic_folder, write_json
from emseg.project.folders import RECIPES
from emseg.settings import Settings
from emseg.settings.file import read_yaml


def run(settings: Settings) -> None:
    """Write data/recipes/MODEL.json."""
    if settings.code is not None:
        _require_dependency(settings.code)
    with atomic_folder(RECIPES, ("*.json",)) as folder:
        for model in settings.benchmark:
            entry = settings.models[model].model_dump(mode="json")
            recipe = settings.recipe(model).model_dump(mode="json")
            write_json(folder / f"{model}.json", entry | {"training": recipe, **_own_code(settings, model)})


def _own_code(settings: Settings, model: str) -> dict[str, str]:
    if settings.code is None:
        return {}
    from emseg.models.own import load_networks, origin_of

    load_networks(settings.code)
    origin = origin_of(settings.models[model].architecture or model)
    return {} if origin is None else {"networks_sha256": origin.sha256}


def _require_dependency(code: str) -> None:
    """Without it DVC would not see that the file changed."""
    if not (file := Path("dvc.yaml")).is_file():
        return
    try:
        dependencies = read_yaml(file)["stages"]["recipes"]["deps"]
        is_there = code in dependencies
    except (KeyError, TypeError):
        is_there = False
    if not is_there:
        raise InputError(
            f"params.yaml names code: {code}, which stage recipes in dvc.yaml does not depend on; add it to its deps"
        )
