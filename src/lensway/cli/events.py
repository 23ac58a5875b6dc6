"""`lensway events` and `requests`: what happens, and what became of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Final

import msgspec
from cyclopts import Parameter

from lensway.cli import report, target
from lensway.client import segment
from lensway.errors import ErrorCode, LenswayError

_To = target.Target
_TIMES: Final = ("offeredMs", "acceptedMs", "firstRowMs", "endedMs")


def events(*, to: _To = target.DEFAULT) -> None:
    """Follow sessions, assignments, health, drains, tests and warnings, until Ctrl-C."""
    with to.client() as client, client.stream("GET", "/v1/events", accept="text/event-stream") as stream:
        rest, kind = b"", ""
        for chunk in stream:
            *lines, rest = (rest + chunk).split(b"\n")
            for line in lines:
                if line.startswith(b"event:"):
                    kind = line[6:].strip().decode()
                if line.startswith(b"data:"):
                    _write_event(kind, line[5:].strip(), as_json=report.wants_json(to.json))


def requests(
    request: Annotated[str | None, Parameter(help="Show one request by its id.")] = None,
    *,
    limit: int = 50,
    cancel: Annotated[bool, Parameter(negative=(), help="Cancel this request if it is running.")] = False,
    to: _To = target.DEFAULT,
) -> None:
    """Show recent requests, or one request with its attempts, candidates and times."""
    if cancel and request is None:
        raise LenswayError(
            ErrorCode.INVALID_REQUEST, "--cancel needs the id of a request", hint="`lensway requests` lists them."
        )
    with to.client() as client:
        if request is not None:
            path = f"/v1/requests/{segment(request)}"
            one = client.call("POST", f"{path}/cancel") if cancel else client.call("GET", path)
            show = report.write_json if report.wants_json(to.json) else _write_request
            show(one)
            return
        found = client.call("GET", "/v1/requests", params={"limit": str(limit)})["requests"]
    if report.wants_json(to.json):
        report.write_json(found)
        return
    report.write_table(
        ("REQUEST", "LENS", "OUTCOME", "MS", "VIA", "ATTEMPTS"),
        [
            (
                r.get("id"),
                r.get("lens"),
                r.get("outcome"),
                r.get("durationMs"),
                _via(r.get("route") or {}),
                (r.get("route") or {}).get("attempts"),
            )
            for r in found
        ],
        empty="no requests yet",
    )


def _write_request(request: Mapping[str, Any]) -> None:
    """One request for a reader: what became of it, every attempt with its times, and why each candidate was chosen or not."""
    end = request["outcome"]
    if request.get("durationMs") is not None:
        end += f" after {request['durationMs']:,.1f} ms"
    if request.get("bytes"):
        end += f", {report.size_of(request['bytes'])}"
    source = f", source {request['source']}" if request.get("source") else ""
    report.write_line(f"{request['id']}  {request['kind']} of {request['lens']}{source}")
    report.write_line(f"{report.moment_of(request['at'])}  {end}")
    attempts = request.get("attempts", ())
    if attempts:
        report.write_line("")
        report.write_table(
            ("ATTEMPT", "PLACE", "OFFERED MS", "ACCEPTED", "FIRST ROW", "ENDED", "OUTCOME"),
            [(a["number"], a["runner"] or a["via"], *(a.get(time) for time in _TIMES), a["outcome"]) for a in attempts],
            empty="",
        )
    considered = [(a["number"], c) for a in attempts for c in a["candidates"]]
    considered += [(None, c) for c in request.get("candidates", ())]
    if considered:
        report.write_line("")
        report.write_table(
            ("ATTEMPT", "CANDIDATE", "SESSION", "VERDICT", "SCORE"),
            [(number, c["runner"], c.get("session"), c["verdict"], c.get("score")) for number, c in considered],
            empty="",
        )


def _via(route: dict[str, object]) -> object:
    return route.get("runner") or route.get("via")


def _write_event(kind: str, data: bytes, *, as_json: bool) -> None:
    event = {"event": kind, **msgspec.json.decode(data, type=dict[str, Any])}
    if as_json:
        report.write_line(msgspec.json.encode(event).decode())
        return
    facts = {key: value for key, value in event.items() if key not in ("at", "event", "results") and value is not None}
    words = " ".join(f"{key}={report.text_of(value)}" for key, value in facts.items())
    report.write_line(f"{event.get('at', '')} {kind} {words}")
    for result in event.get("results", ()):
        for line in report.stage_lines(result):
            report.write_line(f"  {line}")
