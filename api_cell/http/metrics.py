"""What the front door counts of itself, for Prometheus."""

import time

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Histogram, generate_latest

MEDIA = CONTENT_TYPE_LATEST


class Metrics:
    """Counters and times; one object an app, so that several apps in a process do not mix."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        labels = ("method", "path")
        self._answers = Counter(
            "celltree_api_requests", "Requests answered.", (*labels, "code"), registry=self.registry
        )
        self._seconds = Histogram(
            "celltree_api_request_seconds", "Seconds from a request to its answer.", labels, registry=self.registry
        )

    def begin(self) -> float:
        return time.perf_counter()

    def end(self, began: float, method: str, path: str, code: str) -> None:
        """`path` is the route's template, so that ids do not become labels."""
        self._answers.labels(method, path, code).inc()
        self._seconds.labels(method, path).observe(time.perf_counter() - began)

    def page(self) -> bytes:
        return generate_latest(self.registry)
