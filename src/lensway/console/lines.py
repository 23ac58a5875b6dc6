"""One line of text for an event, a problem, or what an act does: what happened to whom, in words."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from lensway.catalog.names import counted
from lensway.console import views

_EFFECT_ROWS_MAX: Final = 8
_LOOKS: Final = {
    "ready": ("✓", "good"),
    "live": ("✓", "good"),
    "suspect": ("?", "warn"),
    "draining": ("‖", "warn"),
    "drained": ("‖", "warn"),
    "lost": ("✗", "bad"),
}


def event_lines(events: Iterable[Mapping[str, Any]]) -> list[dict[str, str]]:
    """Events as lines of a list: a time, a sign, and what happened."""
    lines: list[dict[str, str]] = []
    for event in events:
        line = event_line(event)
        # Each instance of a runner says the same.
        if not lines or lines[-1]["text"] != line["text"]:
            lines.append(line)
    return lines


def event_line(event: Mapping[str, Any]) -> dict[str, str]:
    """An event as a line."""
    icon, tone, text = _event(event["kind"], event["data"])
    return {"at": event["at"], "kind": event["kind"], "icon": icon, "tone": tone, "text": text}


def _event(kind: str, data: Mapping[str, Any]) -> tuple[str, str, str]:
    runner, source, change = data.get("runner", ""), data.get("source", ""), _words(data.get("change", ""))
    match kind:
        case "session":
            state, cause = str(data.get("state", "")), _words(data.get("cause", ""))
            text = f"{runner} {'connection lost' if state == 'lost' else _words(state)}"
            return *_LOOKS.get(state, ("…", "calm")), text + (f": {cause}" if cause and cause != _words(state) else "")
        case "health":
            health, cause = str(data.get("health") or "ready"), _words(data.get("cause", ""))
            text = f"{source} on {runner}: {_words(health)}" + (f" ({cause})" if cause else "")
            return *_LOOKS.get(health, ("!", "bad")), text
        case "assignment":
            return (
                "→",
                "calm",
                f"{source} {change} {'from' if change == 'unassigned' else 'to'} {runner} by {data.get('by', '')}",
            )
        case "test":
            return _test(data)
        case "warning":
            return "!", "warn", str(data.get("message", ""))
        case "drain" | "runner":
            return "·", "calm", f"{runner} {_DONE.get(change, change)}"
        case "source":
            return "·", "calm", f"{source or 'sources and lenses'} {change}"
        case "lens":
            return "·", "calm", f"lens {data.get('lens', '')} {'declared' if change == 'put' else change}"
        case _:
            return "·", "calm", f"{kind} {change}"


_DONE: Final = {"drain": "drained", "resume": "resumed", "revoke": "revoked"}


def _test(data: Mapping[str, Any]) -> tuple[str, str, str]:
    results: Sequence[Mapping[str, Any]] = data.get("results", ())
    failed = [each for each in results if not each.get("ok")]
    by = f", by {data['by']}" if data.get("by") else ""
    if not failed:
        return "✓", "good", f"test of {data.get('source')} passed from {len(results)} of {len(results)}{by}"
    stage: Mapping[str, Any] = next((stage for stage in failed[0].get("stages", ()) if stage.get("ok") is False), {})
    place = failed[0].get("runner") or "the service"
    why = f"{_words(stage.get('stage', ''))} {_words(stage.get('error') or 'failed')}"
    return "✗", "bad", f"test of {data.get('source')} failed from {place}: {why}{by}"


def effects_of(found: Mapping[str, Any], act: str) -> dict[str, Any]:
    """What an act on a runner does, as a dialog says it: in one sentence, then before and after for the worst sources."""
    rows: Sequence[Mapping[str, Any]] = found["sources"]
    changed = [row for row in rows if row["before"] != row["after"] or row["is_inline"]]
    down = [row for row in rows if row["is_down"]]
    inline = [row for row in rows if row["is_inline"]]
    thin = [row for row in changed if len(row["after"]) == 1 and len(row["before"]) > 1]
    return {
        "runner": found["runner"],
        "jobs": found["jobs"],
        "instances": found["instances"],
        "overlap_hours": found["overlap_hours"],
        "sources": len(rows),
        "down": down,
        "inline": inline,
        "thin": thin,
        "lenses_down": found["lenses_down"],
        "rows": changed[:_EFFECT_ROWS_MAX],
        "more": max(0, len(changed) - _EFFECT_ROWS_MAX),
        "is_grave": bool(down),
        "act": act,
    }


def problem_line(problem: Mapping[str, Any]) -> dict[str, Any]:
    """A problem of the overview: whose, what it means, and the one remedy."""
    runner, kind, state = problem["runner"], problem["kind"], problem["state"]
    names, down = problem["sources"], problem["down"]
    line = {
        "runner": runner,
        "since": problem["since"],
        "kind": kind,
        "is_down": bool(down),
        "id": f"{kind}-{runner or 'sources'}",
        "hint": "" if _can_resume(problem) else problem["hint"],
        "cause": "",
        "sources": names[:3],
        "more": max(0, len(names) - 3),
    }
    count = counted(len(names), "source")
    if kind == "no_runner_assigned":
        verb = "has" if len(names) == 1 else "have"
        return {
            **line,
            "icon": "✗",
            "tone": "bad",
            "word": "needs a runner",
            "text": f"{count} {verb} no runner, and the service may not execute {'it' if len(names) == 1 else 'them'}",
            "remedy": {
                "label": "Assign a runner",
                "path": f"overview/remedy?code=no_live_runner_left&source={names[0]}",
                "act": "",
            },
        }
    icon, tone = (views.ICONS.get(state, "?"), views.tone_of(state)) if kind == "runner" else ("!", "warn")
    if kind == "runner":
        word = _words(state)
        cause = views.cause_words(problem["cause"])
        line["cause"] = "" if cause == word else cause
        text = f"{count} assigned, {_down(down)}" if state == "degraded" else _effect(len(names), down)
    else:
        word, text = views.code_word(kind), f"for {count}; {_down(down)}"
    return {
        **line,
        "icon": icon,
        "tone": "bad" if down else tone,
        "word": word,
        "text": text,
        "remedy": _remedy(problem),
    }


def _can_resume(problem: Mapping[str, Any]) -> bool:
    return bool(problem["state"] == "draining" and problem["cause"] == "drained by an operator")


def _effect(sources: int, down: int) -> str:
    """What the loss of a runner does to its sources."""
    if not sources:
        return "it serves no source"
    if down == sources:
        return f"{'its source is' if sources == 1 else f'all of its {sources} sources are'} down"
    lost = sources - down
    return f"{counted(lost, 'source')} lost redundancy, {_down(down)}"


def _down(count: int) -> str:
    return "none is down" if not count else f"{count} {'is' if count == 1 else 'are'} down"


def advice_line(advice: Mapping[str, Any]) -> dict[str, Any]:
    """What may go wrong, as a line of the overview."""
    names: Sequence[str] = advice["names"]
    code = advice["code"]
    noun = "source" if code == "single_runner" else "name"
    texts = {
        "single_runner": f"{counted(len(names), 'source')} would be down with one instance",
        "replicas_differ": "do not serve what their replicas serve",
    }
    return {
        "code": code,
        "word": views.code_word(code),
        "text": texts.get(code, f"{len(names)} {noun}s"),
        "names": names[:5],
        "more": max(0, len(names) - 5),
        "page": "sources" if code == "single_runner" else "runners",
    }


def _remedy(problem: Mapping[str, Any]) -> dict[str, str]:
    runner, kind, state = problem["runner"], problem["kind"], problem["state"]
    if kind != "runner":
        return {"label": views.remedy_label(kind), "path": f"overview/remedy?code={kind}&runner={runner}", "act": ""}
    if _can_resume(problem):
        return {"label": "Resume", "path": f"runner/{runner}/act", "act": "resume"}
    if state == "revoked":
        return {"label": "Rotate token", "path": f"runner/{runner}/act", "act": "rotate"}
    if state == "degraded":
        return {
            "label": "Test its sources",
            "path": f"overview/remedy?code=runner_unreachable&runner={runner}",
            "act": "",
        }
    if problem["down"]:
        return {
            "label": "Assign another runner",
            "path": f"overview/remedy?code=no_live_runner_left&runner={runner}",
            "act": "",
        }
    return {"label": "How to start it", "path": f"overview/remedy?code=runner_offline&runner={runner}", "act": ""}


def _words(text: object) -> str:
    return str(text).replace("_", " ")
