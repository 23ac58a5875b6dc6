"""The pages of requests: recent ones with filters and causes, and one with its attempts, times and candidates."""

from __future__ import annotations

import datetime
import itertools
from collections.abc import Mapping, Sequence
from typing import Any, Final

from starlette.responses import Response

from lensway import limits
from lensway.auth import decisions
from lensway.catalog.moments import read_moment
from lensway.console.answers import done
from lensway.console.sections import Found, Section, View, link_to
from lensway.console.visits import Visit
from lensway.errors import CODES, ErrorCode, LenswayError
from lensway.usecases.bundle import UseCases
from lensway.usecases.request_pages import COMPLETED, FAILED, RUNNING, RequestQuery

_LOOKS: Final = {COMPLETED: ("✓", "good"), RUNNING: ("▷", "calm"), "cancelled": ("⊘", "warn")}
_VERDICTS: Final = {
    "chosen": "got the offer",
    "others_turn": "as good; another one had waited longer for its turn",
    "worse": "more outstanding work, or slower",
    "slower": "more than three times slower than the best: probes only",
    "busy": "at its capacity",
    "ejected": "left out for a while after repeated connection failures",
    "unreachable": "reports that it cannot reach the source",
    "suspect": "missed its heartbeats",
    "draining": "draining",
    "not_serving": "revoked, or drained by an operator",
    "not_connected": "not connected",
    "no_bridge": "has no bridge for this kind of database",
    "no_encoding": "cannot encode rows in this format",
    "no_credentials": "has no credentials for the source",
    "credentials_ambiguous": "its variables name two sources at once",
    "policy": "its local policy refuses the source",
    "unknown_kind": "too old for this kind of request",
    "failed": "this request failed there before",
    "unanswered": "did not answer this request's offer in time",
    "not_ready": "does not have its assignments in force yet",
    "closing": "its connection was closed at that moment",
    "not_pinned": "the test was meant for another instance",
}
_UNITS: Final = ("B", "KiB", "MiB", "GiB")
_ENDS: Final = {
    "ended": "completed",
    "refused": "refused the offer",
    "unanswered": "did not answer the offer",
    "lost": "connection lost",
    "failed": "failed",
    "handed_back": "handed back",
    "stopped": "stopped",
    "running": "running",
}


def request_sections(use: UseCases) -> Sequence[Section]:
    """The declarations of these pages."""
    pages = use.pages.requests

    async def several(view: View) -> Found:
        return await pages.page(view.caller, query_of(view))

    async def one(view: View) -> Found:
        return use.requests.show(view.caller, view.object)

    async def cancel(visit: Visit) -> Response:
        decisions.require_operate(visit.caller.identity)
        await use.requests.cancel(visit.caller, visit.request.path_params["object"])
        return done()

    return [
        Section(
            name="requests",
            title="Requests",
            read=several,
            refine=_rows,
            mark=pages.mark,
            page="requests.html",
            filters=("outcome", "lens", "source", "runner", "from", "to"),
        ),
        Section(
            name="request",
            title="Request",
            read=one,
            refine=_detail,
            mark=pages.mark,
            page="detail.html",
            has_object=True,
            parent="requests",
            posts={"cancel": cancel},
        ),
    ]


def query_of(view: View) -> RequestQuery:
    """The query that an address asks for; moments that make no sense count as absent."""
    outcome = view.filter("outcome")
    known = {COMPLETED, FAILED, RUNNING, *(code.value for code in ErrorCode)}
    return RequestQuery(
        outcome=outcome if outcome in known else "",
        lens=view.filter("lens"),
        source=view.filter("source"),
        runner=view.filter("runner"),
        begin=moment_of(view.filter("from")),
        end=moment_of(view.filter("to")),
        page=view.query.page,
    )


def moment_of(text: str) -> datetime.datetime | None:
    """A moment in an address or a form, UTC unless it says otherwise; None for anything else."""
    if not text:
        return None
    try:
        return datetime.datetime.fromisoformat(read_moment(text, "moment"))
    except LenswayError:
        pass
    try:
        return datetime.datetime.fromisoformat(text).replace(tzinfo=datetime.UTC)
    except ValueError:
        return None


def outcome_look(outcome: str) -> tuple[str, str]:
    """The icon and the tone of an outcome."""
    return _LOOKS.get(outcome, ("✗", "bad"))


def _rows(view: View, found: Found) -> Found:
    counts: Mapping[str, int] = found["outcomes"]
    failed = sum(number for outcome, number in counts.items() if outcome not in (RUNNING, COMPLETED))
    codes = sorted(outcome for outcome in counts if outcome not in (RUNNING, COMPLETED))
    tabs = [("", "all", found["total"]), (RUNNING, "running", counts.get(RUNNING, 0))]
    tabs += [(COMPLETED, "completed", counts.get(COMPLETED, 0)), (FAILED, "failed", failed)]
    tabs += [(code, code, counts[code]) for code in codes]
    chosen = query_of(view).outcome
    return {
        **found,
        "rows": [_row(each) for each in found["requests"]],
        "pause": link_to(view, to=found["requests"][0]["at"][:23], page=1) if found["requests"] else "",
        "resume": link_to(view, to="", page=1) if view.filter("to") else "",
        "kept": limits.REQUEST_RING_ENTRIES,
        "tabs": [
            {"href": link_to(view, outcome=value, page=1), "word": word, "count": count, "is_chosen": value == chosen}
            for value, word, count in tabs
            if count or value == chosen or value == ""
        ],
        "causes": [_cause(view, each) for each in found["causes"]],
    }


def _row(document: Mapping[str, Any]) -> dict[str, Any]:
    icon, tone = outcome_look(document["outcome"])
    executed = [each for each in document.get("attempts", ()) if each["acceptedMs"] is not None]
    duration = document.get("durationMs")
    return {
        "id": document["id"],
        "at": document["at"],
        "kind": document["kind"],
        "lens": document["lens"],
        "source": document.get("source", ""),
        "outcome": document["outcome"],
        "icon": icon,
        "tone": tone,
        "facts": _facts(document.get("error", {})),
        "duration": "" if duration is None else milliseconds(duration),
        "bytes": size_text(document.get("bytes", 0)),
        "place": (executed[-1]["runner"] or "inline") if executed else "",
        "attempts": len(executed),
        "is_running": document["outcome"] == RUNNING,
    }


def _cause(view: View, group: Mapping[str, Any]) -> dict[str, Any]:
    code = group["code"]
    return {
        "code": code,
        "facts": _facts(group["facts"]),
        "source": group["source"],
        "count": group["count"],
        "names": {"lens": shortened(group["lenses"]), "runner": shortened(group["runners"])},
        "last_id": group["lastId"],
        "last_at": group["lastAt"],
        "hint": CODES[ErrorCode(code)].meaning if code in {each.value for each in ErrorCode} else "",
        "href": link_to(view, outcome=code, source=group["source"], page=1),
    }


def _facts(error: Mapping[str, Any]) -> str:
    """What tells causes of one code apart: `tcp: refused`, `SQLSTATE 42P01`, `deadline_offered`."""
    stage, word = error.get("stage"), error.get("class")
    parts = [f"{stage}: {str(word).replace('_', ' ')}" if stage and word else str(stage or word or "")]
    if "sqlstate" in error:
        parts.append(f"SQLSTATE {error['sqlstate']}")
    if "phase" in error:
        parts.append(f"while {error['phase'].replace('_', ' ')}")
    parts += [str(error[name]).replace("_", " ") for name in ("cause", "reason") if name in error]
    return ", ".join(part for part in parts if part)


def _detail(_view: View, found: Found) -> Found:
    end = found.get("durationMs") or max(
        (value for attempt in found.get("attempts", ()) for value in _times(attempt).values() if value is not None),
        default=0.0,
    )
    attempts = [_attempt(each, max(end, 0.001)) for each in found.get("attempts", ())]
    undecided = [_candidate(each) for each in found.get("candidates", ())]
    return {**found, **_row(found), "attempt_rows": attempts, "undecided": undecided}


def _times(attempt: Mapping[str, Any]) -> dict[str, float | None]:
    return {name: attempt[f"{name}Ms"] for name in ("offered", "accepted", "firstRow", "ended")}


def _attempt(attempt: Mapping[str, Any], end: float) -> dict[str, Any]:
    times = _times(attempt)
    kind, _, detail = attempt["outcome"].partition(":")
    icon = {"ended": "✓", "running": "▷"}.get(kind, "✗")
    return {
        "number": attempt["number"],
        "place": attempt["runner"] or "inline (the service)",
        "instance": attempt["instance"] or "",
        "times": {name: "–" if value is None else milliseconds(value) for name, value in times.items()},
        "bars": _bars(times, end),
        "icon": icon,
        "tone": {"✓": "good", "▷": "calm"}.get(icon, "bad"),
        "word": _ENDS.get(kind, kind.replace("_", " ")),
        "detail": detail,
        "candidates": [_candidate(each) for each in attempt["candidates"]],
    }


def _bars(times: Mapping[str, float | None], end: float) -> list[dict[str, Any]]:
    """The stages of an attempt as parts of a line of 1,000 units: waiting for an answer, for the first row, for the end."""
    stops = [(name, value) for name, value in times.items() if value is not None]
    if stops and times["ended"] is None:
        stops.append(("ended", end))
    return [
        {"stage": name, "x": round(1000 * begin / end, 1), "width": max(2.0, round(1000 * (stop - begin) / end, 1))}
        for (name, begin), (_, stop) in itertools.pairwise(stops)
    ]


def _candidate(note: Mapping[str, Any]) -> dict[str, Any]:
    verdict = note["verdict"]
    score = note.get("score")
    return {
        "runner": note["runner"],
        "verdict": verdict,
        "word": verdict.replace("_", " "),
        "why": _VERDICTS.get(verdict, ""),
        "session": note.get("session"),
        "score": "–" if score is None else f"{score:.4g}",
        "is_chosen": verdict == "chosen",
    }


def milliseconds(value: float) -> str:
    """A duration for readers."""
    if value < 10:
        return f"{value:.2f} ms"
    return f"{value:,.0f} ms" if value < 10_000 else f"{value / 1000:,.1f} s"


def size_text(size: int) -> str:
    """A number of bytes for readers."""
    power = min((size.bit_length() - 1) // 10, len(_UNITS) - 1) if size > 0 else 0
    value = size / 1024**power
    return f"{value:,.0f} {_UNITS[power]}" if value == int(value) else f"{value:,.1f} {_UNITS[power]}"


def shortened(names: Sequence[str], most: int = 3) -> str:
    """The first names, and how many more there are."""
    more = len(names) - most
    return ", ".join(names[:most]) + (f" and {more} more" if more > 0 else "")
