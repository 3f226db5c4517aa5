"""Stage recipes: what each model is trained with, so that a change trains again only what uses it."""

from pathlib import Path

from emseg.files import atomic_folder, write_json
from pipelines.stage import current_settings, run_stage

RECIPES = Path("data/recipes")


def main() -> None:
    """Write data/recipes/MODEL.json."""
    settings = current_settings()
    with atomic_folder(RECIPES, ("*.json",)) as folder:
        for model in settings.benchmark:
            entry = settings.models[model].model_dump(mode="json")
            recipe = settings.recipe(model).model_dump(mode="json")
            write_json(folder / f"{model}.json", entry | {"training": recipe})


if __name__ == "__main__":
    run_stage(main)
