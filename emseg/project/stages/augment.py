"""Stage augment: warp the training sections of every fold, and store d1 + d2 with them."""

from emseg.data.augmented_set import make_augmented, write_augmented
from emseg.project.folders import prepared_source
from emseg.settings import Settings
from emseg.training.plan import augmented_folder, split_of
from emseg.training.progress import warping


def run(settings: Settings) -> None:
    """Write data/augmented."""
    source = prepared_source(settings)
    for fold in settings.protocol.folds:
        split = split_of(settings, source, fold)
        with warping(settings.augment.count, len(split.training)) as progress:
            augmented = make_augmented(source, split, settings.augment, progress)
        write_augmented(augmented_folder(fold), augmented)
        print(f"fold {fold}: {settings.augment.count} images from {len(split.training)} sections")
