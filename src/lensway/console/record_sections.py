"""The pages of what happened: events and the audit, with filters, a fixed end, and an address for each record."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

from starlette.responses import Response

from lensway.auth import decisions
from lensway.catalog.names import not_found
from lensway.console.answers import done
from lensway.console.sections import Found, Section, View, link_to
from lensway.console.visits import Visit
from lensway.usecases.bundle import UseCases
from lensway.usecases.record_pages import FAILED, RecordQuery

_NUMBER_DIGITS_MAX: Final = 15
_OUTCOMES: Final = {"ok": ("✓", "good"), "unchanged": ("–", "calm")}
_KIND_ICONS: Final = {
    "session": "⇄",
    "assignment": "→",
    "health": "♥",
    "drain": "‖",
    "test": "✓",
    "warning": "!",
    "source": "◫",
    "lens": "◎",
    "runner": "▣",
    "key": "⚷",
}
_WORDS_MAX: Final = 300


def record_sections(use: UseCases) -> Sequence[Section]:
    """The declarations of these pages."""
    events, audit = use.pages.events, use.pages.audit

    async def several_events(view: View) -> Found:
        return await events.page(view.caller, _query_of(view, "kind"))

    async def one_event(view: View) -> Found:
        return events.show(view.caller, _number_or_none(view.object) or 0, view.filter("at"))

    async def rows(view: View) -> Found:
        return await audit.page(view.caller, _query_of(view, "action"))

    async def one_row(view: View) -> Found:
        number = _number_or_none(view.object)
        if number is None:
            raise not_found("audit row", view.object)
        return await audit.show(view.caller, number)

    async def verify(visit: Visit) -> Response:
        decisions.require_instance_wide(visit.caller.identity)
        await audit.verify(visit.caller)
        return done()

    return [
        Section(
            name="events",
            title="Events",
            read=several_events,
            refine=_events,
            mark=events.mark,
            page="events.html",
            filters=("kind", "before", "through"),
        ),
        Section(
            name="event",
            title="Event",
            read=one_event,
            refine=_event_detail,
            mark=events.mark,
            page="detail.html",
            has_object=True,
            parent="events",
            filters=("at",),
        ),
        Section(
            name="audit",
            title="Audit",
            read=rows,
            refine=_audit,
            mark=audit.mark,
            page="audit.html",
            filters=("action", "outcome", "before", "through"),
            is_personal=True,
            posts={"verify": verify},
        ),
        Section(
            name="audit-row",
            title="Audit row",
            read=one_row,
            refine=_audit_detail,
            mark=audit.mark,
            page="detail.html",
            has_object=True,
            parent="audit",
            is_personal=True,
        ),
    ]


def _query_of(view: View, kind: str) -> RecordQuery:
    return RecordQuery(
        kind=view.filter(kind),
        text=view.query.text,
        outcome=view.filter("outcome"),
        before=_number_or_none(view.filter("before")),
        through=_number_or_none(view.filter("through")),
    )


def _number_or_none(text: str) -> int | None:
    is_number = text.isascii() and text.isdecimal() and len(text) <= _NUMBER_DIGITS_MAX
    return int(text) if is_number else None


def _steps(view: View, found: Found) -> dict[str, str]:
    """Where to go on from a list of records: older ones, the newest, a list that stands still, one that follows."""
    is_still = bool(view.filter("through"))
    return {
        "older": "" if found["older"] is None else link_to(view, before=found["older"]),
        "newest": link_to(view, before="") if view.filter("before") else "",
        "pause": "" if is_still or not found["newest"] else link_to(view, through=found["newest"]),
        "resume": link_to(view, through="", before="") if is_still else "",
    }


# --- events ---------------------------------------------------------------------------------------------------------------


def _events(view: View, found: Found) -> Found:
    chosen = view.filter("kind")
    kinds = dict(sorted(found["kinds"].items()))
    if chosen and chosen not in kinds:
        kinds[chosen] = 0
    tabs = [("", "all", sum(kinds.values())), *((kind, kind, count) for kind, count in kinds.items())]
    return {
        **found,
        "rows": [_event(each) for each in found["events"]],
        "tabs": [
            {"href": link_to(view, kind=kind, before=""), "word": word, "count": count, "is_chosen": kind == chosen}
            for kind, word, count in tabs
        ],
        "steps": _steps(view, found),
    }


def _event(document: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "sequence": document["sequence"],
        "at": document["at"],
        "kind": document["kind"],
        "icon": _KIND_ICONS.get(document["kind"], "·"),
        "tone": _event_tone(document["kind"], document["data"]),
        "message": str(document["data"].get("message", "")),
        "words": _words(document["data"]),
    }


def _event_tone(kind: str, data: Mapping[str, Any]) -> str:
    """How good the news is: shown beside the words, never alone."""
    if kind == "warning" or data.get("ok") is False or data.get("state") in ("lost", "suspect"):
        return "bad"
    if kind == "health":
        return "good" if data.get("health") == "ready" else "bad"
    if data.get("ok") is True or data.get("state") in ("live", "ready"):
        return "good"
    return "calm"


def _words(data: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The facts of an event that are single values. A long text is cut; its own page has it whole."""
    found = []
    for name, value in data.items():
        if name != "message" and isinstance(value, str | int | float) and value != "":
            text = str(value)
            found.append((name, text if len(text) <= _WORDS_MAX else text[:_WORDS_MAX] + "…"))
    return found


def _event_detail(_view: View, found: Found) -> Found:
    return {**found, **_event(found), "results": found["data"].get("results", ()), "json": _pretty(found["data"])}


# --- audit ----------------------------------------------------------------------------------------------------------------


def _audit(view: View, found: Found) -> Found:
    identity = view.caller.identity
    may_verify = identity.environment is None and view.role == "admin"
    return {
        **found,
        "rows": [_audit_row(each) for each in found["entries"]],
        "steps": _steps(view, found),
        "may_verify": may_verify,
        "failed": link_to(view, outcome=FAILED, before=""),
        "everything": link_to(view, outcome="", before=""),
        "is_failed": view.filter("outcome") == FAILED,
    }


def _audit_row(entry: Mapping[str, Any]) -> dict[str, Any]:
    icon, tone = _OUTCOMES.get(entry["outcome"], ("✗", "bad"))
    name, _, key = entry["actor"].rpartition(" (")
    return {
        "sequence": entry["sequence"],
        "at": entry["at"],
        "until": entry["until"],
        "count": entry["count"],
        "actor": name or entry["actor"],
        "key": key.removesuffix(")") if name else "",
        "action": entry["action"],
        "object": entry["object"],
        "address": entry["address"],
        "outcome": entry["outcome"],
        "icon": icon,
        "tone": tone,
        "is_wide": entry["environment"] is None,
        "request": entry["request_id"],
    }


def _audit_detail(_view: View, found: Found) -> Found:
    return {**found, **_audit_row(found), "json": _pretty(found["details"]) if found["details"] else ""}


def _pretty(value: object) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False, default=str)
