"""What the service counts, for Prometheus: no user, no text, no ids in any label."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from personalize.types import Reply

SECONDS = (0.005, 0.02, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
METHODS = frozenset({"GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"})
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class Metrics:
    """Counters of one application, in a registry of its own.

    Args:
        status: asked at every scrape; its numbers become gauges, see ``StatusCollector``.
    """

    def __init__(self, status: Callable[[], Mapping[str, Any]]):
        self.registry = CollectorRegistry()
        self._requests = Histogram(
            "personalize_http_request_seconds", "Time to the end of the answer.", ("method", "route", "status"),
            buckets=SECONDS, registry=self.registry,
        )  # fmt: skip
        self._chats = Counter(
            "personalize_chats", "Answered chat requests by learning outcome.", ("outcome",), registry=self.registry
        )
        self._tokens = Counter("personalize_tokens", "Tokens read and written.", ("kind",), registry=self.registry)
        self.registry.register(StatusCollector(status))

    def observe_request(self, method: str, route: str, status: int, seconds: float) -> None:
        """Count one HTTP request; ``route`` is the template, never the path."""
        method = method if method in METHODS else "other"
        self._requests.labels(method, route, str(status)).observe(seconds)

    def observe_replies(self, replies: Iterable[Reply]) -> None:
        """Count one answered chat request with all its choices."""
        replies = list(replies)
        if not replies:
            return
        self._chats.labels(str(replies[0].outcome)).inc()
        self._tokens.labels("prompt").inc(replies[0].usage.prompt_tokens)
        self._tokens.labels("completion").inc(sum(reply.usage.completion_tokens for reply in replies))

    def text(self) -> bytes:
        """Everything in Prometheus's text format."""
        return generate_latest(self.registry)


class StatusCollector(Collector):
    """Turns the service's status into gauges at scrape time: numbers and flags, and one level of named counts."""

    def __init__(self, status: Callable[[], Mapping[str, Any]]):
        self._status = status

    def describe(self) -> list[Metric]:
        return []

    def collect(self) -> Iterator[Metric]:
        for name, value in self._status().items():
            if isinstance(value, Mapping):
                yield self._family(name, value)
            elif isinstance(value, int | float):
                yield GaugeMetricFamily(f"personalize_{name}", f"Status: {name}.", value=float(value))

    def _family(self, name: str, counts: Mapping[str, Any]) -> GaugeMetricFamily:
        family = GaugeMetricFamily(f"personalize_{name}", f"Status: {name}.", labels=("kind",))
        for kind, count in counts.items():
            if isinstance(count, int | float):
                family.add_metric([str(kind)], float(count))
        return family
