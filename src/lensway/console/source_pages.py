"""The pages Sources, the matrix and one source: what they show, connecting a source, its tables, and lenses from them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from starlette.responses import Response

from lensway import limits
from lensway.api.shapes import ScaffoldRequest
from lensway.auth import decisions
from lensway.clock import Clock
from lensway.console import answers, lines, views
from lensway.console.forms import read_form
from lensway.console.fragments import Templates
from lensway.console.sections import Found, Section, View, base_of
from lensway.console.visits import Visit
from lensway.errors import ErrorCode, LenswayError
from lensway.usecases.bundle import UseCases

_FORM_ERRORS: Final = (ErrorCode.INVALID_REQUEST, ErrorCode.CONFLICT, ErrorCode.NOT_FOUND)
_LETTERS: Final = {
    "ready": "R",
    "pending": "P",
    "offline": "O",
    "unreachable": "U",
    "refused": "F",
    "draining": "D",
    "no_bridge": "B",
    "no_credentials": "C",
    "credentials_ambiguous": "C",
}


class SourcePages:
    """What these sections read and change."""

    def __init__(self, use: UseCases, templates: Templates, clock: Clock) -> None:
        self._use = use
        self._templates = templates
        self._clock = clock

    def sections(self) -> Sequence[Section]:
        """The list, the matrix and the page of one source."""
        return [
            Section(
                name="sources",
                title="Sources",
                page="sources.html",
                read=self._list,
                refine=_rows,
                parts={"new": self._new},
                posts={"create": self._create},
            ),
            Section(
                name="matrix",
                title="Matrix",
                parent="sources",
                page="matrix.html",
                read=self._matrix,
                refine=_matrix,
                rows=limits.CONSOLE_MATRIX_MAX,
                scripts=("grid.js",),
            ),
            Section(
                name="source",
                title="Source",
                parent="sources",
                page="detail.html",
                has_object=True,
                read=self._one,
                refine=_detail,
                parts={"tables": self._tables, "table": self._table},
                posts={"delete": self._delete, "scaffold": self._scaffold},
            ),
        ]

    async def _list(self, view: View) -> Found:
        return await self._use.fleet.sources(view.caller, view.query)

    async def _matrix(self, view: View) -> Found:
        return await self._use.details.matrix(view.caller, view.query)

    async def _one(self, view: View) -> Found:
        found = await self._use.details.source(view.caller, view.object)
        return {**found, "runner_names": self._use.details.runner_names(view.caller)}

    # --- connecting -----------------------------------------------------------------------------------------------------------

    async def _new(self, visit: Visit) -> Response:
        decisions.require_admin(visit.caller.identity)
        return answers.part(self._form(visit, {}))

    async def _create(self, visit: Visit) -> Response:
        """Save the source if its connection test passes, or if it was confirmed after a failed one."""
        decisions.require_admin(visit.caller.identity)
        form = await read_form(visit.request)
        values = {name: form.one(name).strip() for name in ("name", "bridge", "url", "path", "credentials")}
        try:
            await self._use.sources.create(visit.caller, _body(values))
        except LenswayError as error:
            if error.code not in _FORM_ERRORS:
                raise
            return answers.show(self._form(visit, values, error=error))
        name = values["name"]
        if values["credentials"] != "runner-local" and form.one("confirm") != "yes":
            results = await self._first_test(visit, name)
            if not all(result["ok"] for result in results):
                await self._use.sources.delete(visit.caller, name)
                return answers.ask(
                    self._templates.render("source_failed.html", name=name, results=results, at=self._now())
                )
        return answers.go(f"{base_of(visit.environment)}/source/{name}")

    async def _first_test(self, visit: Visit, name: str) -> Sequence[Mapping[str, Any]]:
        try:
            answer = await self._use.sources.test(visit.caller, name)
        except LenswayError as error:
            stage = {"stage": "service", "ok": False, "ms": 0.0, "error": str(error), "hint": error.failure.hint}
            return [{"runner": None, "ok": False, "stages": [stage], "warnings": []}]
        results: Sequence[Mapping[str, Any]] = answer["results"]
        return results

    def _form(self, visit: Visit, values: Mapping[str, str], error: LenswayError | None = None) -> str:
        return self._templates.render(
            "source_new.html",
            kinds=self._use.sources.kinds(),
            values=values,
            error=None if error is None else error.failure,
        )

    async def _delete(self, visit: Visit) -> Response:
        decisions.require_admin(visit.caller.identity)
        form = await read_form(visit.request)
        source = self._use.sources.show(visit.caller, _object(visit))
        if form.one("confirm") != "yes":
            return answers.ask(self._templates.render("source_delete.html", source=source))
        for runner in source["runners"]:
            await self._use.runners.unassign(visit.caller, runner, source["name"])
        await self._use.sources.delete(visit.caller, source["name"])
        return answers.go(f"{base_of(visit.environment)}/sources")

    # --- looking into -----------------------------------------------------------------------------------------------------------

    async def _tables(self, visit: Visit) -> Response:
        decisions.require_operate(visit.caller.identity)
        name = _object(visit)
        found = await self._use.sources.tables(visit.caller, name)
        return answers.part(self._templates.render("source_tables.html", source=name, tables=found["tables"]))

    async def _table(self, visit: Visit) -> Response:
        decisions.require_operate(visit.caller.identity)
        name, table = _object(visit), visit.request.query_params.get("table", "")
        found = await self._use.sources.table(visit.caller, name, table)
        return answers.part(self._templates.render("source_table.html", source=name, table=found))

    async def _scaffold(self, visit: Visit) -> Response:
        """Show the lenses that tables would become; confirmed, declare them."""
        decisions.require_operate(visit.caller.identity)
        form = await read_form(visit.request)
        name = _object(visit)
        tables = form.all("table")
        if not tables:
            raise LenswayError(ErrorCode.INVALID_REQUEST, "No table is chosen", hint="Mark at least one table.")
        answer = await self._use.scaffolds.scaffold(visit.caller, name, ScaffoldRequest(tables=tables))
        coming = await self._use.declarations.push(visit.caller, answer.declaration, dry_run=True)
        if form.one("confirm") != "yes":
            html = self._templates.render("source_scaffold.html", source=name, answer=answer, changes=coming["changes"])
            return answers.ask(html)
        decisions.require_admin(visit.caller.identity)
        await self._use.declarations.push(visit.caller, answer.declaration)
        return answers.go(f"{base_of(visit.environment)}/source/{name}")

    def _now(self) -> str:
        return self._clock.wall().isoformat(timespec="seconds")


def _body(values: Mapping[str, str]) -> dict[str, Any]:
    """The document that declares a source, from the fields of the form."""
    is_local = values["credentials"] == "runner-local"
    body: dict[str, Any] = {
        "name": values["name"],
        "bridge": values["bridge"],
        "credentials": "runner-local" if is_local else "managed",
    }
    config = {key: values[key] for key in ("url", "path") if values[key]}
    # A runner-local source with settings is refused, with the reason.
    return body | ({} if is_local and not config else {"config": config})


def _rows(_view: View, found: Found) -> Found:
    return {**found, "rows": [views.source_row(each) for each in found["sources"]]}


def _matrix(_view: View, found: Found) -> Found:
    columns = [
        {
            **each,
            "icon": views.ICONS.get(each["state"], "?"),
            "tone": views.tone_of(each["state"]),
            "word": _words(each["state"]),
        }
        for each in found["runners"]
    ]
    rows = [
        {
            "name": source["name"],
            "bridge": source["bridge"],
            "cells": [
                None if cell is None else _cell(cell, column["state"])
                for cell, column in zip(source["cells"], columns, strict=True)
            ],
        }
        for source in found["sources"]
    ]
    return {**found, "columns": columns, "rows": rows}


def _cell(cell: Mapping[str, Any], state: str) -> dict[str, Any]:
    chip = views.chip_of(cell, state)
    return {**chip, "letter": _LETTERS.get(chip["word"].replace(" ", "_"), "!"), "since": cell.get("since")}


def _detail(view: View, found: Found) -> Found:
    places = [
        {
            **place,
            "icon": views.ICONS.get(place["status"], "?"),
            "tone": views.tone_of(place["status"]),
            "word": _words(place["status"]),
            "chip": views.chip_of(place["health"], place["status"]),
        }
        for place in found["places"]
    ]
    taken = {place["name"] for place in places}
    return {
        **found,
        "places": places,
        "needs_runner": views.needs_runner(found),
        "warnings": views.causes_of(found["causes"]),
        "candidates": [name for name in found["runner_names"] if name not in taken] if view.may_operate else [],
        "tests": [{**lines.event_line(each), "results": each["data"].get("results", ())} for each in found["tests"]],
        "events": lines.event_lines(each for each in found["events"] if each["kind"] != "test"),
    }


def _object(visit: Visit) -> str:
    name: str = visit.request.path_params["object"]
    return name


def _words(state: str) -> str:
    return state.replace("_", " ")
