"""Rendered views: made off the loop, compressed, shared by every page that shows the same, kept until something changes."""

from __future__ import annotations

import asyncio
import concurrent.futures
import dataclasses
import gzip
import hashlib
import json
import pathlib
import re
import threading
import urllib.parse
from collections import OrderedDict
from collections.abc import Hashable, Iterable, Mapping
from typing import Any, Final

import jinja2
import markupsafe
import msgspec
from starlette.requests import Request
from starlette.responses import Response

from lensway import limits
from lensway.clock import Clock
from lensway.console import views
from lensway.console.sections import Section, View, link_to
from lensway.usecases.fleet_pages import FleetPages

_HERE: Final = pathlib.Path(__file__).parent
HEADERS: Final = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}
_COST_FACTOR: Final = 10
"""A page whose facts change all the time is collected again after this many times of what it took, at most a second."""
_GZIP_LEVEL: Final = 3
_GZIP_BYTES_MIN: Final = 1_024
_BACKTICKS: Final = re.compile("`([^`]*)`")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Fragment:
    """The rows of a view. Equal content has an equal version."""

    version: str
    html: bytes
    packed: bytes
    problems: int


@dataclasses.dataclass(frozen=True, slots=True)
class _Kept:
    fragment: Fragment
    mark: Hashable
    taken_at: float
    cost_seconds: float


class Templates:
    """The templates of the room; rendering holds no state and may happen in any thread."""

    def __init__(self) -> None:
        self._environment = jinja2.Environment(
            loader=jinja2.FileSystemLoader(_HERE / "templates"),
            autoescape=True,
            undefined=jinja2.StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._environment.filters["segment"] = lambda text: urllib.parse.quote(str(text), safe="")
        self._environment.filters["codes"] = _codes
        self._environment.filters["moment"] = lambda text: str(text)[:19].replace("T", " ")

    def render(self, template: str, **values: Any) -> str:
        """The text of a template."""
        return self._environment.get_template(template).render(**values)


class Fragments:
    """The newest rendering of each view."""

    def __init__(self, fleet: FleetPages, templates: Templates, clock: Clock, sections: Iterable[Section] = ()) -> None:
        self._sections = {section.name: section for section in sections}
        self._fleet = fleet
        self._templates = templates
        self._rows = _Rows(templates)
        self._clock = clock
        self._kept: OrderedDict[View, _Kept] = OrderedDict()
        self._locks: dict[View, asyncio.Lock] = {}
        self._renderer = concurrent.futures.ThreadPoolExecutor(1, "console-renderer")

    async def newest(self, view: View) -> Fragment:
        """The view as it is now. Many may ask at once: it is rendered once. Raises LenswayError."""
        lock = self._locks.setdefault(view, asyncio.Lock())
        async with lock:
            kept = self._kept.get(view)
            if kept is not None and self.has_own_mark(view) and self._mark(view) != kept.mark:
                # Requests begin all the time: collecting them anew takes a tenth of the time at most.
                rest = _COST_FACTOR * kept.cost_seconds - (self._clock.monotonic() - kept.taken_at)
                await asyncio.sleep(min(max(0.0, rest), limits.CONSOLE_PUSH_SECONDS))
            mark, now = self._mark(view), self._clock.monotonic()
            if kept is None or kept.mark != mark or now - kept.taken_at >= limits.CONSOLE_STANDING_SECONDS:
                try:
                    fragment = await self._render(view)
                    kept = _Kept(fragment, mark, now, self._clock.monotonic() - now)
                except BaseException:
                    self._locks.pop(view, None)
                    raise
                self._kept[view] = kept
            self._kept.move_to_end(view)
            while len(self._kept) > limits.CONSOLE_VIEWS_MAX:
                oldest, _ = self._kept.popitem(last=False)
                self._locks.pop(oldest, None)
            return kept.fragment

    def has_own_mark(self, view: View) -> bool:
        """True for a page whose facts change without an event."""
        return self._sections[view.kind].mark is not None

    def _mark(self, view: View) -> Hashable:
        own = self._sections[view.kind].mark
        return self._fleet.mark() if own is None else (self._fleet.mark(), own())

    async def _render(self, view: View) -> Fragment:
        section = self._sections[view.kind]
        found = await section.read(view)
        problems = await self._fleet.problems(view.caller)
        # One thread renders for all pages: the loop would wait for its turn behind each thread that computes.
        return await asyncio.get_running_loop().run_in_executor(
            self._renderer, self._fragment, section, view, found, problems
        )

    def _fragment(self, section: Section, view: View, found: dict[str, Any], problems: int) -> Fragment:
        text = self._templates.render(
            f"{section.name}_rows.html",
            view=view,
            found=section.refine(view, found),
            pages=views.pages_of(found.get("matching", 0), view.query),
            link=lambda **changed: link_to(view, **changed),
            row=lambda template, noun, values: self._rows.html(view, template, noun, values),
        )
        html = text.encode()
        return Fragment(
            version=hashlib.blake2b(html, digest_size=9).hexdigest(),
            html=html,
            packed=gzip.compress(html, _GZIP_LEVEL),
            problems=problems,
        )


class _Rows:
    """Rendered rows by their content: a change of one runner renders one row. Threads share it."""

    def __init__(self, templates: Templates) -> None:
        self._templates = templates
        self._kept: OrderedDict[tuple[str, str, bool, bytes], markupsafe.Markup] = OrderedDict()
        self._lock = threading.Lock()

    def html(self, view: View, template: str, noun: str, row: Mapping[str, Any]) -> markupsafe.Markup:
        """The row as it stands in the list. Its template gets the row under its noun, `base` and `may_operate`."""
        key = template, view.base, view.may_operate, msgspec.json.encode(row)
        with self._lock:
            kept = self._kept.get(key)
            if kept is not None:
                self._kept.move_to_end(key)
                return kept
        text = self._templates.render(template, base=view.base, may_operate=view.may_operate, **{noun: row})
        html = markupsafe.Markup(text)  # noqa: S704 - rendered by a template that escapes
        with self._lock:
            self._kept[key] = html
            while len(self._kept) > limits.CONSOLE_ROWS_KEPT_MAX:
                self._kept.popitem(last=False)
        return html


def fragment_response(request: Request, fragment: Fragment) -> Response:
    """The rows, or 304 for a page that shows this very version."""
    tag = f'"{fragment.version}"'
    headers = {**HEADERS, "ETag": tag, "Vary": "Accept-Encoding", "X-Lensway-Version": fragment.version}
    if request.headers.get("if-none-match") == tag:
        return Response(status_code=304, headers=headers)
    if _takes_gzip(request):
        headers["Content-Encoding"] = "gzip"
        return Response(fragment.packed, 200, headers, "text/html")
    return Response(fragment.html, 200, headers, "text/html")


async def page_response(request: Request, html: str, *, status: int = 200) -> Response:
    """A whole page, compressed in a thread where that pays."""
    body, headers = html.encode(), {**HEADERS, "Vary": "Accept-Encoding"}
    if _takes_gzip(request) and len(body) >= _GZIP_BYTES_MIN:
        headers["Content-Encoding"] = "gzip"
        body = await asyncio.to_thread(gzip.compress, body, _GZIP_LEVEL)
    return Response(body, status, headers, "text/html")


def embedded(fragment: Fragment) -> markupsafe.Markup:
    """The rows as part of a page: they were escaped when they were rendered."""
    return markupsafe.Markup(fragment.html.decode())  # noqa: S704 - rendered by a template that escapes


def script_data(values: dict[str, Any]) -> str:
    """Values for a script, to stand in an attribute."""
    return json.dumps(values, separators=(",", ":"))


def _codes(text: object) -> markupsafe.Markup:
    """A text with what stands in backticks set as code."""
    return markupsafe.Markup(_BACKTICKS.sub(r"<code>\1</code>", str(markupsafe.escape(text))))  # noqa: S704 - escaped here


def _takes_gzip(request: Request) -> bool:
    accepted = request.headers.get("accept-encoding", "")
    return any(part.strip().partition(";")[0] == "gzip" and "q=0" not in part for part in accepted.split(","))
