"""What would run, and where: the same compiler and the same choice as the real thing, and nothing is executed."""

from __future__ import annotations

from typing import Any

from lensway.catalog.records import Lens, Source
from lensway.dialects.compile import LIMIT_PARAM, OFFSET_PARAM, compile_shape
from lensway.dispatch.routes import SnapshotRoutes
from lensway.errors import ErrorCode
from lensway.fleet import Ask
from lensway.query.capabilities import Capabilities
from lensway.query.ordering import assumed
from lensway.query.plan import Plan, decode_shape
from lensway.usecases.desk import Desk
from lensway.usecases.requests import candidate_document


def explain(desk: Desk, lens: Lens, source: Source, plan: Plan, capabilities: Capabilities) -> dict[str, Any]:
    """The statement with its parameters' types (values are not shown), and every candidate with the verdict on it."""
    compiled = compile_shape(plan.shape, capabilities.dialect, assumed(decode_shape(plan.shape)))
    return {
        "lens": lens.name,
        "source": source.name,
        "bridge": source.bridge,
        "statement": compiled.sql,
        "parameters": [_parameter(slot.index, slot.type.value, is_array=slot.is_array) for slot in compiled.params],
        "route": _route(desk, source),
    }


def _parameter(index: int, type: str, *, is_array: bool) -> str:
    if index == LIMIT_PARAM:
        return "limit + 1"
    if index == OFFSET_PARAM:
        return "offset"
    return f"list of {type}" if is_array else type


def _route(desk: Desk, source: Source) -> dict[str, Any]:
    route = SnapshotRoutes(desk.store).source(source.environment, source.id)
    assert route is not None, "the source was found a moment ago"
    if not route.runners:
        if route.needs_runner:
            return {
                "via": None,
                "runner": None,
                "candidates": [],
                "error": ErrorCode.SOURCE_REQUIRES_RUNNER.value,
            }
        return {"via": "inline", "runner": None, "candidates": []}
    ask = Ask(
        route.source, route.bridge, route.runners, route.runner_names, route.wanted, route.serving, live_only=False
    )
    choice = desk.dispatcher.fleet.choose(ask, desk.clock.monotonic())
    answer: dict[str, Any] = {
        "via": "runner",
        "runner": None if choice.session is None else choice.session.facts.runner_name,
        "candidates": [candidate_document(note) for note in choice.notes],
    }
    if choice.session is None and not choice.is_busy:
        unable = choice.unable is not None
        answer["error"] = (ErrorCode.SOURCE_UNREACHABLE if unable else ErrorCode.NO_RUNNERS_ONLINE).value
    return answer
