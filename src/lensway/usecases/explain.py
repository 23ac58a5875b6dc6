"""What would run, and where: the same compiler and the same choice as the real thing, and nothing is executed."""

from __future__ import annotations

from typing import Any

from lensway.api.shapes import QueryRequest
from lensway.auth.caller import Caller
from lensway.catalog.records import Source
from lensway.dialects.compile import LIMIT_PARAM, OFFSET_PARAM, compile_shape
from lensway.query.ordering import assumed
from lensway.query.plan import ROWS_AND_COUNTS, decode_shape
from lensway.usecases.desk import Desk
from lensway.usecases.query import Queries
from lensway.usecases.requests import candidate_document


class Explanations:
    """Answers what would run, without running it."""

    def __init__(self, desk: Desk, queries: Queries) -> None:
        self._desk = desk
        self._queries = queries

    def explain(self, caller: Caller, lens: str, question: QueryRequest) -> dict[str, Any]:
        """The statement with the types of its parameters (never their values), and every candidate with the verdict on it.

        Raises:
            LenswayError: as the query itself would.
        """
        asked, planned = self._queries.plan(caller, lens, question)
        route = _route(self._desk, asked.source)
        if not asked.access.shows_runners:
            # Everyone who looks at the page has the key: no names of tables, columns, sources and runners.
            hidden = {"via": route["via"], "runner": None, "candidates": []}
            unsaid: dict[str, Any] = {"source": None, "bridge": None, "statement": None, "parameters": []}
            return {"lens": asked.lens.name, **unsaid, "route": hidden}
        shape = planned.plan.shape
        compiled = compile_shape(shape, asked.capabilities.dialect, assumed(decode_shape(shape)))
        return {
            "lens": asked.lens.name,
            "source": asked.source.name,
            "bridge": asked.source.bridge,
            "statement": compiled.sql,
            "parameters": [_parameter(slot.index, slot.type.value, is_array=slot.is_array) for slot in compiled.params],
            "route": route,
        }


def _parameter(index: int, type: str, *, is_array: bool) -> str:
    if index == LIMIT_PARAM:
        return "limit + 1"
    if index == OFFSET_PARAM:
        return "offset"
    return f"list of {type}" if is_array else type


def _route(desk: Desk, source: Source) -> dict[str, Any]:
    found = desk.dispatcher.consider(source.environment, source.id, needs=ROWS_AND_COUNTS)
    session = None if found.choice is None else found.choice.session
    answer: dict[str, Any] = {
        "via": "inline" if found.is_inline else None if found.choice is None else "runner",
        "runner": None if session is None else session.facts.runner_name,
        "candidates": [] if found.choice is None else [candidate_document(note) for note in found.choice.notes],
    }
    if found.failure is not None:
        answer["error"] = found.failure.code.value
    return answer
