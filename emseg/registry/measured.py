"""What a server tells Prometheus of itself."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from emseg.registry.clients import Turns

_SECONDS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)


@dataclass
class Told:
    """What is known of a request at its end."""

    status: int = 500


class Measured:
    """Numbers of one server, in a registry of their own."""

    def __init__(self, turns: Turns) -> None:
        self._registry = CollectorRegistry()
        self._requests = Counter("emseg_requests", "Requests that were answered.", ["status"], registry=self._registry)
        self._seconds = Histogram(
            "emseg_request_seconds",
            "From a request's header to its answer, the waiting included.",
            buckets=_SECONDS,
            registry=self._registry,
        )
        self._sections = Counter(
            "emseg_sections", "Sections that were segmented.", ["version"], registry=self._registry
        )
        self._unlike = Counter(
            "emseg_requests_unlike_training", "Requests unlike the training data.", registry=self._registry
        )
        self._version = Gauge("emseg_champion_version", "The version that is served.", registry=self._registry)
        held = Gauge("emseg_requests_held", "Requests that wait or are worked on.", registry=self._registry)
        held.set_function(lambda: turns.requests)

    @contextmanager
    def request(self) -> Iterator[Told]:
        """Measure a request; who answers it tells its status."""
        began, told = time.perf_counter(), Told()
        try:
            yield told
        finally:
            self._requests.labels(str(told.status)).inc()
            self._seconds.observe(time.perf_counter() - began)

    def segmented(self, sections: int, version: int, is_unlike: bool) -> None:
        """Count what a version made."""
        self._sections.labels(str(version)).inc(sections)
        self._unlike.inc(int(is_unlike))

    def text(self, version: int) -> bytes:
        """All numbers in Prometheus' format, while `version` is served."""
        self._version.set(version)
        return generate_latest(self._registry)
