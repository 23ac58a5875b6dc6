"""What a runner says of itself to the owner's own monitoring: alive, ready, and its figures in the terms of Prometheus."""

from __future__ import annotations

import platform
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final, NamedTuple

import lensway
from lensway.runner.agent import Agent
from lensway.runner.journal import JobNote
from lensway.runner.sources import READY

METRICS_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
_TEXT_TYPE: Final = "text/plain; charset=utf-8"
_CONNECTED: Final = "connected"
_Sample = tuple[Mapping[str, str], float]


class Page(NamedTuple):
    """One answer."""

    status: int
    text: str
    content_type: str = _TEXT_TYPE


class JobTotals:
    """Sums over the jobs of this process."""

    def __init__(self) -> None:
        self.jobs: Counter[str] = Counter()
        self.rows = self.bytes = 0
        self.seconds = 0.0

    def note(self, note: JobNote) -> None:
        """Add a job."""
        self.jobs[note.outcome] += 1
        self.rows += note.rows
        self.bytes += note.bytes
        self.seconds += note.seconds


class Health:
    """The pages of one runner's process. They hold names of sources, and neither addresses nor credentials."""

    def __init__(self, agent: Agent, totals: JobTotals) -> None:
        self._agent = agent
        self._totals = totals

    def page(self, path: str) -> Page:
        """The page of this path. ``/livez`` is good while the process runs its loop, ``/readyz`` while it can be given jobs."""
        match path.partition("?")[0]:
            case "/livez":
                return Page(200, "alive\n")
            case "/readyz":
                is_ready = self._agent.state == _CONNECTED
                cause = f" ({self._agent.cause})" if self._agent.cause and not is_ready else ""
                return Page(200 if is_ready else 503, f"{self._agent.state}{cause}\n")
            case "/metrics":
                return Page(200, self._metrics(), METRICS_TYPE)
            case _:
                return Page(404, "There are /livez, /readyz and /metrics.\n")

    def _metrics(self) -> str:
        agent, totals = self._agent, self._totals
        served = agent.sources.served()
        build = {"version": lensway.__version__, "python": platform.python_version()}
        families: Sequence[tuple[str, str, str, Iterable[_Sample]]] = (
            ("lensway_build_info", "gauge", "The program of this process.", [(build, 1)]),
            (
                "lensway_runner_connected",
                "gauge",
                "1 while the gateway may give it jobs.",
                [_one(agent.state == _CONNECTED)],
            ),
            (
                "lensway_runner_policy_valid",
                "gauge",
                "1 while the policy file is in force.",
                [_one(not agent.policy_problem)],
            ),
            ("lensway_runner_jobs", "gauge", "Jobs that run now.", [({}, agent.jobs_count)]),
            (
                "lensway_runner_jobs_total",
                "counter",
                "Jobs by outcome: completed, a code, or the reason of a refusal.",
                [({"outcome": outcome}, count) for outcome, count in sorted(totals.jobs.items())],
            ),
            ("lensway_runner_job_seconds_total", "counter", "Time spent on jobs.", [({}, totals.seconds)]),
            ("lensway_runner_rows_total", "counter", "Rows of completed jobs.", [({}, totals.rows)]),
            ("lensway_runner_bytes_total", "counter", "Encoded bytes that were sent.", [({}, totals.bytes)]),
            (
                "lensway_source_up",
                "gauge",
                "1 while the assigned source can be served.",
                [({"source": each.name}, float(each.state == READY)) for each in served],
            ),
        )
        return "".join(line for family in families for line in _lines(*family))


def _one(is_so: bool) -> _Sample:
    return {}, float(is_so)


def _lines(name: str, kind: str, help: str, samples: Iterable[_Sample]) -> Iterator[str]:
    yield f"# HELP {name} {help}\n# TYPE {name} {kind}\n"
    for labels, value in samples:
        shown = ",".join(f'{label}="{_escaped(text)}"' for label, text in labels.items())
        yield f"{name}{{{shown}}} {value:g}\n" if shown else f"{name} {value!r}\n"


def _escaped(text: str) -> str:
    return text.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
