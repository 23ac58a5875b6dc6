"""The pages of lenses: a list, and one lens with its declaration, a query to copy, and a few rows for users who may read them."""

from __future__ import annotations

import urllib.parse
from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec
from starlette.responses import Response

from lensway import limits
from lensway.api import numbers
from lensway.api.shapes import QueryRequest
from lensway.catalog.names import counted, invalid
from lensway.console.answers import part
from lensway.console.forms import Form, read_form, while_connected
from lensway.console.fragments import Templates
from lensway.console.request_sections import milliseconds, size_text
from lensway.console.sections import Found, Section, View, link_to
from lensway.console.snippets import snippets
from lensway.console.visits import Visit
from lensway.errors import ErrorCode, LenswayError
from lensway.usecases.bundle import UseCases
from lensway.usecases.lens_pages import LensQuery, LensRows

_WHERE_MAX: Final = 8_000
_LIMIT_DEFAULT: Final = 10
_DEFAULTS: Final = {
    "maxRows": f"{limits.EXPORT_ROWS_DEFAULT:,}",
    "maxBytes": size_text(limits.EXPORT_BYTES_DEFAULT),
    "maxRowBytes": size_text(limits.ROW_BYTES_DEFAULT),
    "timeoutMs": f"{limits.QUERY_TIMEOUT_MS_DEFAULT:,} ms; exports {limits.EXPORT_TIMEOUT_MS_DEFAULT:,} ms",
}
_LIMIT_WORDS: Final = {
    "maxRows": "Rows of an export",
    "maxBytes": "Bytes of an export",
    "maxRowBytes": "Bytes of a row",
    "timeoutMs": "Time of a query",
}


def lens_sections(use: UseCases, templates: Templates) -> Sequence[Section]:
    """The declarations of these pages."""
    pages = use.pages.lenses

    async def several(view: View) -> Found:
        return await pages.page(view.caller, _query_of(view))

    async def one(view: View) -> Found:
        return pages.show(view.caller, view.object)

    async def rows(visit: Visit) -> Response:
        name = visit.request.path_params["object"]
        lens = pages.show(visit.caller, name)
        try:
            question = _question(await read_form(visit.request))
            if question.select is None and len(lens["fields"]) > limits.CONSOLE_LENS_COLUMNS_MAX:
                names = [field["name"] for field in lens["fields"]]
                question = msgspec.structs.replace(question, select=names[: limits.CONSOLE_LENS_COLUMNS_MAX])
            found = await while_connected(visit.request, pages.rows(visit.caller, name, question))
        except LenswayError as error:
            if error.code is ErrorCode.FORBIDDEN:
                raise
            return part(templates.render("lens_failure.html", failure=error.failure))
        html = templates.render(
            "lens_answer.html",
            answer=_answer(found),
            hidden=len(lens["fields"]) - len(found.fields),
            texts=snippets(lens["url"], visit.environment, name, question),
            base=f"/console/e/{urllib.parse.quote(visit.environment)}",
        )
        return part(html)

    return [
        Section(
            name="lenses",
            title="Lenses",
            read=several,
            refine=_list,
            mark=pages.mark,
            page="lenses.html",
            filters=("source", "grant"),
        ),
        Section(
            name="lens",
            title="Lens",
            read=one,
            refine=_detail,
            mark=pages.mark,
            page="detail.html",
            has_object=True,
            parent="lenses",
            posts={"rows": rows},
            scripts=("lens.js",),
        ),
    ]


def _query_of(view: View) -> LensQuery:
    grant = view.filter("grant")
    return LensQuery(
        text=view.query.text,
        source=view.filter("source"),
        grant=grant if grant in ("public", "none") else "",
        page=view.query.page,
    )


def _list(_view: View, found: Found) -> Found:
    return {**found, "rows": [{**each, "look": _place_look(each["place"])} for each in found["lenses"]]}


def _place_look(place: Mapping[str, Any]) -> dict[str, str]:
    """Where queries run, as an icon, a tone and words."""
    assigned, live = place["assigned"], place["live"]
    if place["needsRunner"]:
        return {"icon": "✗", "tone": "bad", "word": "needs a runner"}
    if not assigned:
        return {"icon": "✓", "tone": "good", "word": "inline"}
    icon, tone = ("✓", "good") if live == assigned else ("!", "warn") if live else ("✗", "bad")
    return {"icon": icon, "tone": tone, "word": f"{live} of {counted(assigned, 'runner')} live"}


def _detail(view: View, found: Found) -> Found:
    question = QueryRequest(limit=_LIMIT_DEFAULT)
    bounds = [
        {
            "word": word,
            "name": name,
            "value": f"{found['limits'][name]:,}" if name in found["limits"] else "",
            "default": _DEFAULTS[name],
        }
        for name, word in _LIMIT_WORDS.items()
    ]
    relations = [
        {"name": name, "text": msgspec.json.encode(relation).decode()} for name, relation in found["relations"].items()
    ]
    return {
        **found,
        "look": _place_look(found["place"]),
        "fields": found["fields"] if view.query.opened else found["fields"][: limits.CONSOLE_CHIPS_OPEN_MAX],
        "all_fields": link_to(view, opened=("fields",)),
        "bounds": bounds,
        "relation_rows": relations,
        "texts": snippets(found["url"], view.environment, found["name"], question),
        "limit": _LIMIT_DEFAULT,
        "limit_max": limits.CONSOLE_LENS_ROWS_MAX,
    }


def _question(form: Form) -> QueryRequest:
    """The query of the form. Raises LenswayError INVALID_REQUEST."""
    limit = form.one("limit").strip() or str(_LIMIT_DEFAULT)
    if not (limit.isascii() and limit.isdecimal() and 1 <= int(limit[:6]) <= limits.CONSOLE_LENS_ROWS_MAX):
        raise invalid("limit", f"must be a whole number from 1 to {limits.CONSOLE_LENS_ROWS_MAX}")
    select = [part.strip() for part in form.one("select").split(",") if part.strip()]
    order: Any = [_term(part) for part in form.one("order").split(",") if part.strip()]
    return QueryRequest(
        where=_where(form.one("where").strip()), order_by=order or None, select=select or None, limit=int(limit)
    )


def _where(text: str) -> dict[str, Any] | None:
    if not text:
        return None
    if len(text) > _WHERE_MAX:
        raise invalid("where", f"is longer than {_WHERE_MAX:,} characters")
    try:
        found = numbers.decode_request(text.encode())
    except (msgspec.MsgspecError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise invalid("where", "must be a JSON object", hint='For example `{"total": {"$gt": 100}}`.')
    return found


def _term(text: str) -> dict[str, str]:
    field, _, direction = text.strip().partition(":")
    return {"field": field.strip(), "dir": direction.strip() or "asc"}


def _answer(found: LensRows) -> dict[str, Any]:
    route = found.meta.route
    return {
        "fields": found.fields,
        "rows": [[row.get(field) for field in found.fields] for row in found.rows],
        "has_more": found.meta.has_more,
        "duration": milliseconds(found.meta.duration_ms),
        "place": route.runner if route.via == "runner" and route.runner else route.via,
        "request": found.meta.request_id,
    }
