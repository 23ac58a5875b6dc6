"""Metrics in the terms of Prometheus. Labels are of bounded number: codes, environments, runners."""

from __future__ import annotations

import bisect
import itertools
import platform
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

import msgspec
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


_SECONDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


class JobTimes(msgspec.Struct, frozen=True, gc=False):
    """What the metrics of one job are made from. Seconds; None for what did not happen. ``via`` is `inline` or `runner`."""

    via: str
    outcome: str
    total: float
    dispatch: float | None = None
    accept: float | None = None
    first_row: float | None = None
    rows: int = 0
    bytes: int = 0
    cancels: Sequence[str] = ()


class Metrics:
    """One registry per server: two in one process do not collide. Noting costs an addition or two; texts are made at a scrape."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._requests = self._counter(
            "lensway_requests", "Requests by outcome: ok, or the code of the failure.", "code"
        )
        self._jobs = self._counter(
            "lensway_jobs", "Jobs by where they were executed and outcome: completed, or a code.", "via", "outcome"
        )
        self._rows = self._counter("lensway_rows", "Rows of completed jobs.", "via")
        self._bytes = self._counter("lensway_bytes", "Encoded bytes of completed jobs.", "via")
        self._cancels = self._counter("lensway_cancels", "Cancelled attempts, by cause.", "cause")
        self._total = self._histogram("lensway_dispatch_seconds", "From submission to outcome of a job.")
        self._dispatch = self._histogram(
            "lensway_job_dispatch_seconds", "From submission to the offer of the attempt that gave the outcome."
        )
        self._accept = self._histogram(
            "lensway_job_accept_seconds", "From that offer to its acceptance; with a quick query it comes with the end."
        )
        self._first_row = self._histogram("lensway_job_first_row_seconds", "From submission to the first rows.")
        self._runner_states: Callable[[], Iterable[tuple[str, str, bool]]] = tuple
        self._source_states: Callable[[], Iterable[tuple[str, str, bool]]] = tuple
        self._phases: dict[tuple[str, ...], tuple[list[float], ...]] = {}

    def request(self, code: str) -> None:
        """Count one answered request."""
        self._requests.add((code,))

    def job(self, job: JobTimes) -> None:
        """Note one job that is over."""
        via = (job.via,)
        phases = self._phases.get(via)
        if phases is None:
            histograms = (self._total, self._dispatch, self._accept, self._first_row)
            phases = self._phases[via] = tuple(each.counts_of(via) for each in histograms)
        total, dispatch, accept, first_row = phases
        _count(total, job.total)
        if job.dispatch is not None:
            _count(dispatch, job.dispatch)
        if job.accept is not None:
            _count(accept, job.accept)
        if job.first_row is not None:
            _count(first_row, job.first_row)
        self._jobs.add((job.via, job.outcome))
        self._rows.add(via, job.rows)
        self._bytes.add(via, job.bytes)
        for cause in job.cancels:
            self._cancels.add((cause,))

    def watch_events(self, counts: Callable[[], Mapping[str, int]]) -> None:
        """Give `lensway_dispatch_events_total` from now on: what dispatch counts by name, asked at every scrape."""
        self._registry.register(_Events(counts))

    def _counter(self, name: str, help: str, *labels: str) -> _Counter:
        counter = _Counter(name, help, labels)
        self._registry.register(counter)
        return counter

    def _histogram(self, name: str, help: str) -> _Histogram:
        histogram = _Histogram(name, help, ("via",))
        self._registry.register(histogram)
        return histogram

    def watch_runners(self, states: Callable[[], Iterable[tuple[str, str, bool]]]) -> None:
        """Give `lensway_runner_up` from now on: (environment, runner, is up) of every runner, asked at every scrape."""
        self._runner_states = states
        self._registry.register(_Runners(states))

    def watch_sources(self, states: Callable[[], Iterable[tuple[str, str, bool]]]) -> None:
        """Give `lensway_source_up` from now on: (environment, source, is up) of every assigned source, asked at every scrape."""
        self._source_states = states
        self._registry.register(_Sources(states))

    def watch_build(self, version: str) -> None:
        """Give `lensway_build_info` from now on."""
        self._registry.register(_Build(version))

    def watch_gauge(self, name: str, help: str, value: Callable[[], float]) -> None:
        """Give a gauge that is asked at every scrape."""
        self._registry.register(_Gauge(name, help, value))

    def text(self, *, environment: str | None = None) -> bytes:
        """The exposition; for an environment only what belongs to it, because sums over the server tell of the others."""
        if environment is None:
            return generate_latest(self._registry)
        own = CollectorRegistry()
        own.register(_Runners(lambda: (each for each in self._runner_states() if each[0] == environment)))
        own.register(_Sources(lambda: (each for each in self._source_states() if each[0] == environment)))
        return generate_latest(own)


class _Counter(Collector):
    """Sums by label values. Everything happens on one event loop, so that there is no lock to take."""

    def __init__(self, name: str, help: str, labels: Sequence[str]) -> None:
        self._name, self._help, self._labels = name, help, labels
        self._sums: dict[tuple[str, ...], int] = {}

    def add(self, values: tuple[str, ...], amount: int = 1) -> None:
        """Count so much more."""
        self._sums[values] = self._sums.get(values, 0) + amount

    def collect(self) -> Iterator[Any]:
        """The present sums."""
        family = CounterMetricFamily(self._name, self._help, labels=self._labels)
        for values, amount in self._sums.items():
            family.add_metric(values, amount)
        yield family


class _Histogram(Collector):
    """Counts by bucket and label values."""

    def __init__(self, name: str, help: str, labels: Sequence[str]) -> None:
        self._name, self._help, self._labels = name, help, labels
        self._counts: dict[tuple[str, ...], list[float]] = {}
        """The counts of each bucket, and behind them the sum of all durations."""

    def counts_of(self, values: tuple[str, ...]) -> list[float]:
        """The counts of these labels, to be counted in."""
        return self._counts.setdefault(values, [0] * (len(_SECONDS) + 2))

    def collect(self) -> Iterator[Any]:
        """The present counts."""
        family = HistogramMetricFamily(self._name, self._help, labels=self._labels)
        bounds = (*map(str, _SECONDS), "+Inf")
        for values, counts in self._counts.items():
            buckets = list(zip(bounds, itertools.accumulate(counts[:-1]), strict=True))
            family.add_metric(values, buckets, counts[-1])
        yield family


def _count(counts: list[float], seconds: float) -> None:
    counts[bisect.bisect_left(_SECONDS, seconds)] += 1
    counts[-1] += seconds


class _Events(Collector):
    def __init__(self, counts: Callable[[], Mapping[str, int]]) -> None:
        self._counts = counts

    def collect(self) -> Iterator[Any]:
        """The present counts."""
        family = CounterMetricFamily(
            "lensway_dispatch_events",
            "Events of dispatch by name, such as credit_stalls and late frames.",
            labels=["event"],
        )
        for name, count in self._counts().items():
            family.add_metric([name], count)
        yield family


class _Ups(Collector):
    """1 or 0 for each object of an environment."""

    name: str
    help: str
    label: str

    def __init__(self, states: Callable[[], Iterable[tuple[str, str, bool]]]) -> None:
        self._states = states

    def collect(self) -> Iterator[Any]:
        """The present states."""
        family = GaugeMetricFamily(self.name, self.help, labels=["environment", self.label])
        for environment, name, is_up in self._states():
            family.add_metric([environment, name], 1.0 if is_up else 0.0)
        yield family


class _Runners(_Ups):
    name, help, label = "lensway_runner_up", "1 while the runner has a live session.", "runner"


class _Sources(_Ups):
    name = "lensway_source_up"
    help = "1 while a live runner that is assigned the source can reach it."
    label = "source"


class _Build(Collector):
    def __init__(self, version: str) -> None:
        self._version = version

    def collect(self) -> Iterator[Any]:
        """The program."""
        family = GaugeMetricFamily("lensway_build_info", "The program of this process.", labels=["version", "python"])
        family.add_metric([self._version, platform.python_version()], 1.0)
        yield family


class _Gauge(Collector):
    def __init__(self, name: str, help: str, value: Callable[[], float]) -> None:
        self._name = name
        self._help = help
        self._value = value

    def collect(self) -> Iterator[Any]:
        """The present value."""
        yield GaugeMetricFamily(self._name, self._help, value=self._value())
