"""Stage prepare: check the labelled sections and the settings, and hand the sections to DVC."""

from emseg.data.check import check_stacks, require_sound
from emseg.data.sources import SOURCE_FILES, load_source, write_source
from emseg.files import atomic_folder, write_json
from emseg.training.plan import check_plans
from pipelines.stage import PREPARED, current_settings, run_stage


def main() -> None:
    """Write data/prepared."""
    settings = current_settings()
    source = load_source(settings.data.source)
    report = check_stacks(source.images, source.labels, source.test_images, source.test_labels)
    require_sound(report, source.name)
    notes = check_plans(settings, source, settings.benchmark)
    with atomic_folder(PREPARED, (*SOURCE_FILES, "prepared.json")) as folder:
        write_source(folder, source)
        write_json(folder / "prepared.json", {"source": source.name, "digest": source.digest, **report.facts})
    for name, fact in report.facts.items():
        print(f"{name}: {fact}")
    for note in notes:
        print(note)


if __name__ == "__main__":
    run_stage(main)
