"""`lensway events` and `requests`: what happens, and what became of it."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping
from typing import Annotated, Any, Final

import msgspec
from cyclopts import Parameter
from rich.text import Text

from lensway import limits
from lensway.cli import names, output, report, screen, states, target
from lensway.cli.tables import Column
from lensway.client import segment
from lensway.errors import ErrorCode, LenswayError

_To = target.Target


def _via(request: Mapping[str, Any]) -> object:
    route = request.get("route") or {}
    return route.get("runner") or route.get("via")


_WELL: Final = frozenset({"completed", "running"})
_FIELDS: Final = ("id", "kind", "lens", "source", "at", "outcome", "durationMs", "bytes", "route", "error", "attempts")
_COLUMNS: Final = (
    Column("REQUEST", "id", rank=0),
    Column("AT", lambda request: report.time_of(request.get("at")), rank=1),
    Column("LENS", "lens", rank=2),
    Column("OUTCOME", lambda request: states.shown(request.get("outcome")), rank=1),
    Column("MS", lambda request: request.get("durationMs"), rank=3),
    Column("VIA", _via, rank=4),
    Column("KIND", "kind", rank=6),
    Column("ATTEMPTS", lambda request: (request.get("route") or {}).get("attempts"), rank=5),
    Column("SIZE", lambda request: report.size_of(request["bytes"]) if request.get("bytes") else None, rank=7),
)
_ATTEMPTS: Final = (
    Column("ATTEMPT", "number", rank=0),
    Column("PLACE", lambda attempt: attempt["runner"] or attempt["via"], rank=0),
    Column("OFFERED MS", "offeredMs", rank=3),
    Column("ACCEPTED", "acceptedMs", rank=3),
    Column("FIRST ROW", "firstRowMs", rank=2),
    Column("ENDED", "endedMs", rank=2),
    Column("OUTCOME", lambda attempt: states.shown(attempt["outcome"]), rank=1),
)
_CANDIDATES: Final = (
    Column("ATTEMPT", "number", rank=1),
    Column("CANDIDATE", "runner", rank=0),
    Column("SESSION", "session", rank=3),
    Column("VERDICT", "verdict", rank=0),
    Column("SCORE", "score", rank=2),
)


def events(
    *,
    watch: Annotated[bool, Parameter(name="--watch", negative=(), help="Follow until Ctrl-C. It always does.")] = False,
    to: _To = target.DEFAULT,
) -> None:
    """Follow sessions, assignments, health, drains, tests and warnings, until Ctrl-C."""
    with to.client() as client, client.stream("GET", "/v1/events", accept="text/event-stream") as stream:
        shown = _Shown(to.form)
        for event in _read(stream):
            shown.show(event)


def requests(
    request: Annotated[str | None, Parameter(completer=names.requests, help="Show one request by its id.")] = None,
    *,
    limit: int = 50,
    lens: Annotated[str | None, Parameter(completer=names.lenses, help="Only of this lens.")] = None,
    source: Annotated[str | None, Parameter(completer=names.sources, help="Only of this source.")] = None,
    runner: Annotated[str | None, Parameter(completer=names.runners, help="Only executed by this runner.")] = None,
    failed: Annotated[bool, Parameter(negative=(), help="Only those that failed, were cancelled or lost.")] = False,
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
            output.write_one(to.form, one, lambda: _write_request(one), fields=_FIELDS)
            return
        is_filtered = failed or (lens, source, runner) != (None, None, None)
        # The server filters nothing: all that it remembers is read, and the newest of those that match are shown.
        asked = limits.REQUESTS_LISTED_MAX if is_filtered else limit
        found = client.call("GET", "/v1/requests", params={"limit": str(asked)})["requests"]
    wanted = {"lens": lens, "source": source, "runner": runner}
    found = [each for each in found if _is_wanted(each, wanted, failed=failed)][:limit]
    output.write_list(
        to.form,
        found,
        _COLUMNS,
        empty="no request of those that the server remembers matches" if is_filtered else "no requests yet",
        fields=_FIELDS,
    )


def _is_wanted(request: Mapping[str, Any], wanted: Mapping[str, str | None], *, failed: bool) -> bool:
    if failed and request.get("outcome") in _WELL:
        return False
    facts = {**request, "runner": (request.get("route") or {}).get("runner")}
    return all(value is None or facts.get(name) == value for name, value in wanted.items())


def _write_request(request: Mapping[str, Any]) -> None:
    """One request for a reader: what became of it, every attempt with its times, and why each candidate was chosen or not."""
    state = states.shown(request["outcome"])
    if request.get("durationMs") is not None:
        state.append(f" after {request['durationMs']:,.1f} ms")
    if request.get("bytes"):
        state.append(f", {report.size_of(request['bytes'])}")
    source = f", source {request['source']}" if request.get("source") else ""
    report.write_line(f"{request['id']}  {request['kind']} of {request['lens']}{source}")
    screen.write_styled(Text(f"{report.moment_of(request['at'])}  ").append_text(state))
    attempts = request.get("attempts", ())
    if attempts:
        report.write_line("")
        output.write_list("table", attempts, _ATTEMPTS, empty="")
    considered = [{**c, "number": a["number"]} for a in attempts for c in a["candidates"]]
    considered += [{**c, "number": None} for c in request.get("candidates", ())]
    if considered:
        report.write_line("")
        output.write_list("table", considered, _CANDIDATES, empty="")


def _read(chunks: Iterable[bytes]) -> Iterator[dict[str, Any]]:
    """The events of a stream of server-sent events, each as one record."""
    rest, kind = b"", ""
    for chunk in chunks:
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            if line.startswith(b"event:"):
                kind = line[6:].strip().decode()
            elif line.startswith(b"data:"):
                yield {"event": kind, **msgspec.json.decode(line[5:].strip(), type=dict[str, Any])}


class _Shown:
    """Prints events. A session that says again what it last said, because its revision changed, is no news."""

    def __init__(self, form: output.Form) -> None:
        self._form = form
        self._said: dict[object, tuple[object, object]] = {}
        if form == "csv":
            output.write_csv([("at", "event", "facts")])

    def show(self, event: Mapping[str, Any]) -> None:
        """Print one, unless it is a repetition."""
        if event["event"] == "session":
            said = (event.get("state"), event.get("cause"))
            if self._said.get(event.get("session")) == said:
                return
            self._said[event.get("session")] = said
        facts = {key: value for key, value in event.items() if key not in ("at", "event")}
        if self._form == "table":
            _write_event(event, facts)
        elif self._form == "csv":
            output.write_csv([(event.get("at"), event["event"], facts)])
        else:
            output.write_record(event)
        sys.stdout.flush()


def _write_event(event: Mapping[str, Any], facts: Mapping[str, Any]) -> None:
    line = Text(f"{screen.text_of(event.get('at', ''))} ", style="dim").append(
        f"{screen.text_of(event['event'])}", "bold"
    )
    for key, value in facts.items():
        if key == "results" or value is None:
            continue
        line.append(f" {screen.text_of(key)}=")
        is_state = key in ("state", "health")
        line.append_text(states.shown(value) if is_state else Text(screen.text_of(value)))
    screen.write_styled(line)
    for result in event.get("results", ()):
        report.write_stages(result)
