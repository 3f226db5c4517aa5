"""Stage publish: deliver every run of this benchmark to MLflow, scores and figures included."""

from dataclasses import asdict

from emseg.errors import RunError
from emseg.files import write_json
from emseg.tracking.store import connect, store_name
from emseg.tracking.summary import publish_records
from pipelines.stage import RESULTS, benchmark_records, current_settings, run_stage


def main() -> None:
    """Write results/published.json: the MLflow run of every record."""
    settings = current_settings()
    client = connect()
    published = publish_records(client, benchmark_records(settings))
    if published.failed:
        raise RunError("; ".join(published.failed.values()))
    write_json(RESULTS / "published.json", {"store": store_name(), **asdict(published)})
    print(f"{len(published.runs)} runs and {len(published.versions)} versions in {store_name()}")


if __name__ == "__main__":
    run_stage(main)
