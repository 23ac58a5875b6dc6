"""The switch: how soon an assignment is in force, also when its push is lost; how soon nobody is said, and somebody (R4, R10)."""

from __future__ import annotations

import time

import httpx2

from lensway import limits
from lensway.testing.chaos.site import SOURCE, Site
from lensway.testing.deployment import wait_until
from proofs.jobs import stage
from proofs.report import Report, percentile

_HEARTBEAT_SECONDS = 2.0
_NOBODY_SECONDS = 2.1
"""After the last session was lost: a query waits for one to come back until then."""
_UP_SECONDS = limits.STARTUP_GRACE_SECONDS + 0.1
"""After the server's start: until then too."""


def switch(report: Report, *, times: int = 50) -> None:
    """Assignments pushed, assignments whose push is lost, queries with nobody online, and the first with somebody back."""
    report.title(
        "switch", "assigned and unassigned in turn; with pushes lost; with no runner online, and with one back"
    )
    with stage() as site:
        site.add_runner("alpha", is_assigned=False)
        pushed = [_in_force(site, number) for number in range(2 * times)]
        _report_times(report, "in force after a push", pushed, 250)
        site.deployment.assign("alpha", SOURCE)
        up = time.monotonic()
        wait_until(
            lambda: time.monotonic() - up > _UP_SECONDS, seconds=10, what="the server's first seconds to be over"
        )
        nobody, back = zip(*(_nobody_and_back(site) for _ in range(max(2, times // 10))), strict=True)
        _report_times(report, "no_runners_online", [each for some in nobody for each in some], 50)
        _report_times(report, "first answer after a runner is connected again", list(back), 1000)
    with stage(environment={"LENSWAY_FAULT_LOSE_PUSHES": "1"}) as site:
        site.add_runner("alpha", is_assigned=False)
        lost = [_in_force(site, number) for number in range(max(2, times // 3))]
        _report_times(report, "in force although the push was lost", lost, _HEARTBEAT_SECONDS * 1000 + 250)


def _in_force(site: Site, number: int) -> float:
    """Seconds from asking for a change until the runner has echoed its revision, as the API shows it."""
    change = site.client.put if number % 2 == 0 else site.client.delete
    started = time.monotonic()
    wanted = change(f"/v1/runners/alpha/sources/{SOURCE}").json()["revision"]
    while site.status("alpha")["instances"][0]["revision"] != wanted:
        if time.monotonic() - started > 30.0:
            raise AssertionError("a change was not in force within 30 s")
    return time.monotonic() - started


def _nobody_and_back(site: Site) -> tuple[list[float], float]:
    """Seconds that each query with nobody online took, and from the session of the next process to the first answer."""
    site.runners["alpha"].running.kill()
    wait_until(lambda: site.status("alpha")["status"] == "offline", seconds=10, what="the loss to be seen")
    lost = time.monotonic()
    wait_until(lambda: time.monotonic() - lost > _NOBODY_SECONDS, seconds=10, what="the time of waiting to be over")
    taken = []
    for _ in range(50):
        started = time.monotonic()
        answer = _ask(site)
        taken.append(time.monotonic() - started)
        assert answer.status_code == 503, answer.text
        assert answer.json()["error"]["code"] == "no_runners_online", answer.text
        assert int(answer.headers["Retry-After"]) >= 1
    site.start("alpha")
    started = time.monotonic()
    wait_until(lambda: _ask(site).status_code == 200, seconds=30, what="an answer")
    return taken, time.monotonic() - started


def _ask(site: Site) -> httpx2.Response:
    return site.client.post("/v1/query/orders", json={"limit": 1})


def _report_times(report: Report, what: str, seconds: list[float], bar_ms: float) -> None:
    median, longest = percentile(seconds, 0.5) * 1000, max(seconds) * 1000
    report.at_most(f"{what}, longest of {len(seconds)}", longest, bar_ms, "ms", f" (half within {median:.1f} ms)")
