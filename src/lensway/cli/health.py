"""The health of a source as a whole, from what each of its runners says of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from rich.text import Text

from lensway.cli import states

_SERVING: Final = frozenset({"healthy", "degraded", "connecting"})


def of_source(source: Mapping[str, Any], runners: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """``health`` in a word, and ``places``: each assigned runner with the health of the source there.

    ``ready`` on every runner, ``degraded`` where only some can serve it, ``down`` where none can, ``inline`` where the service
    executes it itself, ``needs_a_runner`` where that is forbidden.
    """
    places = [
        {
            "runner": runner["name"],
            "health": _health_at(runner, covered),
            "cause": covered.get("cause") or runner["cause"],
        }
        for runner in runners
        for covered in runner.get("sources", ())
        if covered["name"] == source["name"]
    ]
    for place in places:
        if place["health"] == "ready":
            place["cause"] = ""
    ready = sum(place["health"] == "ready" for place in places)
    if not places:
        must_have = source.get("execution") == "runner_required" or source.get("credentials") == "runner-local"
        return {"health": "needs_a_runner" if must_have else "inline", "places": []}
    whole = "ready" if ready == len(places) else "degraded" if ready else "down"
    if whole == "down" and any(place["health"] == "pending" for place in places):
        whole = "pending"
    return {"health": whole, "places": places}


def places_cell(source: Mapping[str, Any]) -> Text:
    """The runners of a source; each that cannot serve it with its state."""
    cells = []
    for place in source["places"]:
        cell = Text(str(place["runner"]))
        if place["health"] != "ready":
            cell.append(" ").append_text(states.shown(place["health"]))
        cells.append(cell)
    return Text(", ").join(cells) if cells else Text("the service" if source["health"] == "inline" else "-")


def _health_at(runner: Mapping[str, Any], covered: Mapping[str, Any]) -> str:
    """A runner that takes no work serves nothing, even when its database is well."""
    if runner["status"] in _SERVING:
        return str(covered["health"])
    return str(runner["status"])
