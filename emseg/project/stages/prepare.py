"""Stage prepare: check the labelled sections and the settings, and hand the sections to DVC."""

from emseg.data.check import require_sound
from emseg.data.joining import check_source
from emseg.data.sources import PREPARED_FOLDER, PREPARED_MANIFEST, SOURCE_FILES, load_source, write_source
from emseg.files import atomic_folder, write_json
from emseg.settings import Settings
from emseg.training.plan import check_plans


def run(settings: Settings) -> None:
    """Write data/prepared."""
    source = load_source(settings.data.source, labels=settings.data.labels)
    report = check_source(source)
    require_sound(report, source.name)
    notes = check_plans(settings, source, settings.benchmark)
    with atomic_folder(PREPARED_FOLDER, (*SOURCE_FILES, PREPARED_MANIFEST)) as folder:
        write_source(folder, source)
        write_json(folder / PREPARED_MANIFEST, {"source": source.name, "digest": source.digest, **report.facts})
    for name, fact in report.facts.items():
        print(f"{name}: {fact}")
    for note in notes:
        print(note)
