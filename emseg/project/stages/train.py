"""Stage train: one model, fold and seed, live in MLflow; goes on where a killed run stopped."""

from emseg.project.folders import prepared_source, run_folder
from emseg.settings import Settings
from emseg.tracking.live import live_mirror
from emseg.training.plan import RunPlan
from emseg.training.run import train_model


def run(settings: Settings, model: str, fold: int, seed: int) -> None:
    """Write runs/benchmark/NAME/training."""
    plan = RunPlan(model, fold, seed, settings, prepared_source(settings))
    with live_mirror() as mirror:
        train_model(plan, run_folder(model, fold, seed) / "training", replace_finished=True, after_epoch=mirror)
