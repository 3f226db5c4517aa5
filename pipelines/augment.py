"""Stage augment: warp the training sections of every fold, and store d1 + d2 with them."""

from emseg.data.augmented import make_augmented, write_augmented
from emseg.training.plan import augmented_folder, split_of
from pipelines.stage import current_settings, prepared_source, run_stage


def main() -> None:
    """Write data/augmented."""
    settings = current_settings()
    source = prepared_source(settings)
    for fold in settings.protocol.folds:
        split = split_of(settings, source, fold)
        write_augmented(augmented_folder(fold), make_augmented(source, split, settings.augment))
        print(f"fold {fold}: {settings.augment.count} images from {len(split.training)} sections")


if __name__ == "__main__":
    run_stage(main)
