"""Stage publish: deliver every run of this benchmark to MLflow, scores and figures included."""

from dataclasses import asdict

from emseg.errors import RunError
from emseg.files import write_json
from emseg.project.folders import RESULTS, benchmark_records
from emseg.registry.deliver import publish_records
from emseg.settings import Settings
from emseg.tracking.store import connect, store_name


def run(settings: Settings) -> None:
    """Write results/published.json: the MLflow run of every record."""
    client = connect()
    published = publish_records(client, benchmark_records(settings), task=settings.task)
    if published.failed:
        raise RunError("; ".join(published.failed.values()))
    write_json(RESULTS / "published.json", {"store": store_name(), **asdict(published)})
    print(f"{len(published.runs)} runs and {len(published.versions)} versions in {store_name()}")
