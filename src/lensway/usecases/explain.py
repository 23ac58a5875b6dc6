"""What would run, and where: the same compiler and the same choice as the real thing, and nothing is executed."""

from __future__ import annotations

from typing import Any

from lensway.catalog.records import Lens, Source
from lensway.dialects.compile import LIMIT_PARAM, OFFSET_PARAM, compile_shape
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
    found = desk.dispatcher.consider(source.environment, source.id)
    session = None if found.choice is None else found.choice.session
    answer: dict[str, Any] = {
        "via": "inline" if found.is_inline else None if found.choice is None else "runner",
        "runner": None if session is None else session.facts.runner_name,
        "candidates": [] if found.choice is None else [candidate_document(note) for note in found.choice.notes],
    }
    if found.failure is not None:
        answer["error"] = found.failure.code.value
    return answer
