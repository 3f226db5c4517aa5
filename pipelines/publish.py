"""Stage publish: deliver every run of this benchmark to MLflow, scores and figures included."""

import sys

from emseg.files import write_json
from emseg.tracking.store import StoreUnreachableError, connect, store_uri
from emseg.tracking.summary import publish_records
from pipelines.stage import RESULTS, benchmark_records, current_settings, run_stage


def main() -> None:
    """Write results/published.json: the MLflow run of every record."""
    settings = current_settings()
    try:
        client = connect()
    except StoreUnreachableError as error:
        print(
            f"publish: {error}; the records are safe, `dvc repro` or `emseg publish` delivers them",
            file=sys.stderr,
        )
        raise SystemExit(1) from None
    runs = publish_records(client, benchmark_records(settings))
    write_json(RESULTS / "published.json", {"store": store_uri(), "runs": runs})
    print(f"{len(runs)} runs in {store_uri()}")


if __name__ == "__main__":
    run_stage(main)
