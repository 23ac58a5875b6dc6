"""Metrics in the terms of Prometheus. Labels are of bounded number: codes, environments, runners."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class Metrics:
    """One registry per server: two in one process do not collide."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        # Finding the child of a label costs more than counting: each is looked up once.
        self._request_of: dict[str, Any] = {}
        self._dispatch_of: dict[str, Any] = {}
        self._requests = Counter(
            "lensway_requests",
            "Requests by outcome: ok, or the code of the failure.",
            ["code"],
            registry=self._registry,
        )
        self._dispatch = Histogram(
            "lensway_dispatch_seconds",
            "From submission to outcome of a job, by where it was executed.",
            ["via"],
            registry=self._registry,
            buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30),
        )

    def request(self, code: str) -> None:
        """Count one answered request."""
        child = self._request_of.get(code)
        if child is None:
            child = self._request_of[code] = self._requests.labels(code)
        child.inc()

    def dispatched(self, via: str, seconds: float) -> None:
        """Note one job's time."""
        child = self._dispatch_of.get(via)
        if child is None:
            child = self._dispatch_of[via] = self._dispatch.labels(via)
        child.observe(seconds)

    def watch_runners(self, states: Callable[[], Iterable[tuple[str, str, bool]]]) -> None:
        """Give `lensway_runner_up` from now on: (environment, runner, is up) of every runner, asked at every scrape."""
        self._registry.register(_Runners(states))

    def watch_gauge(self, name: str, help: str, value: Callable[[], float]) -> None:
        """Give a gauge that is asked at every scrape."""
        self._registry.register(_Gauge(name, help, value))

    def text(self) -> bytes:
        """The exposition."""
        return generate_latest(self._registry)


class _Runners(Collector):
    def __init__(self, states: Callable[[], Iterable[tuple[str, str, bool]]]) -> None:
        self._states = states

    def collect(self) -> Iterator[Any]:
        """The present states."""
        family = GaugeMetricFamily(
            "lensway_runner_up", "1 while the runner has a live session.", labels=["environment", "runner"]
        )
        for environment, runner, is_up in self._states():
            family.add_metric([environment, runner], 1.0 if is_up else 0.0)
        yield family


class _Gauge(Collector):
    def __init__(self, name: str, help: str, value: Callable[[], float]) -> None:
        self._name = name
        self._help = help
        self._value = value

    def collect(self) -> Iterator[Any]:
        """The present value."""
        yield GaugeMetricFamily(self._name, self._help, value=self._value())
