"""The declaration of a page of the Console: its addresses, its place in the navigation and its live rows.

A section reads its facts from a use case (`read`) and turns them into plain values for its template off the loop (`refine`). It
may have parts to fetch (`parts`) and changes to post (`posts`). The section of a list is a noun in the plural. The section of one
object is the same noun in the singular with ``has_object``: `/e/default/runners` and `/e/default/runner/fra-1`. The two never
collide, whatever an object is called.
"""

from __future__ import annotations

import dataclasses
import urllib.parse
from collections.abc import Awaitable, Callable, Hashable, Iterable, Mapping, Sequence
from typing import Any, Final

from starlette.responses import Response

from lensway import limits
from lensway.auth import decisions
from lensway.auth.caller import Caller
from lensway.catalog.records import Role
from lensway.console import views
from lensway.console.visits import Visit
from lensway.errors import ErrorCode, LenswayError
from lensway.usecases.fleet_pages import ListQuery

ORDER: Final = ("overview", "runners", "sources", "lenses", "requests", "events", "audit", "keys", "settings")
"""The navigation, from left to right. A name without a declared section does not appear."""

Found = dict[str, Any]
Page = Callable[[Visit], Awaitable[Response]]


@dataclasses.dataclass(frozen=True, slots=True)
class View:
    """One page as one kind of caller sees it. Equal views share their rendering."""

    kind: str
    caller: Caller = dataclasses.field(compare=False)
    environment: str
    may_operate: bool
    query: ListQuery
    object: str = ""
    filters: tuple[tuple[str, str], ...] = ()
    role: str = ""
    person: str = ""

    @property
    def may_administer(self) -> bool:
        """True for an admin."""
        return decisions.may_administer(self.caller.identity)

    @property
    def base(self) -> str:
        """Where the addresses of this environment begin."""
        return base_of(self.environment)

    @property
    def path(self) -> str:
        """The address of the page without its query."""
        return f"{self.base}/{self.kind}" + (f"/{urllib.parse.quote(self.object, safe='')}" if self.object else "")

    def filter(self, name: str) -> str:
        """The value of one of the section's own filters, empty when it is not set."""
        return dict(self.filters).get(name, "")


def _unchanged(_view: View, found: Found) -> Found:
    return found


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """One page, or one page for each object of a kind.

    ``read`` returns the facts; a list adds ``total`` and ``matching``. ``refine`` may be slow: it runs in a thread. The template
    ``{name}_rows.html`` gets ``view``, ``found`` (as refined), ``pages``, ``link(**changed)`` and
    ``row(template, noun, values)``, which renders a row once for equal values. ``page`` is the template around the rows:
    ``list.html`` with a filter, ``detail.html`` without, or one that extends them. ``filters`` are the parts of the address
    besides ``q``, ``problems``, ``page`` and ``open``.
    """

    name: str
    title: str
    read: Callable[[View], Awaitable[Found]]
    refine: Callable[[View, Found], Found] = _unchanged
    mark: Callable[[], Hashable] | None = None
    """For a page that shows more than the fleet: a value that differs as soon as its facts do. Open pages look every beat."""
    page: str = "list.html"
    filters: tuple[str, ...] = ()
    has_object: bool = False
    parent: str = ""
    needs: Role = Role.VIEWER
    rows: int = limits.CONSOLE_ROWS_MAX
    is_personal: bool = False
    """True when the page differs between keys of the same role."""
    parts: Mapping[str, Page] = dataclasses.field(default_factory=dict)
    posts: Mapping[str, Page] = dataclasses.field(default_factory=dict)
    scripts: tuple[str, ...] = ()
    """Modules of its own, below `static/`, loaded after console.js."""

    @property
    def tab(self) -> str:
        """The entry of the navigation that it belongs to."""
        return self.parent or self.name

    def view(self, visit: Visit) -> View:
        """The view that the address of a request asks for. Raises LenswayError FORBIDDEN."""
        self.require(visit.caller)
        values = visit.request.query_params
        return View(
            kind=self.name,
            caller=visit.caller,
            environment=visit.environment,
            may_operate=visit.may_operate,
            query=dataclasses.replace(views.read_query(values), size=self.rows),
            object=visit.request.path_params.get("object", ""),
            filters=tuple((name, text) for name in self.filters if (text := values.get(name, "").strip()[:200])),
            role=visit.role,
            person=visit.caller.identity.key if self.is_personal else "",
        )

    def require(self, caller: Caller) -> None:
        """Raises LenswayError FORBIDDEN for a role that may not see the page."""
        if self.needs is Role.OPERATOR and not decisions.may_operate(caller.identity):
            raise _denied(self, caller)
        if self.needs is Role.ADMIN and caller.identity.role is not Role.ADMIN:
            raise _denied(self, caller)


def base_of(environment: str) -> str:
    """Where the addresses of an environment begin."""
    return f"/console/e/{urllib.parse.quote(environment)}"


def tabs(sections: Iterable[Section]) -> Sequence[Section]:
    """The sections of the navigation in their order."""
    by_name = {section.name: section for section in sections}
    return [by_name[name] for name in ORDER if name in by_name]


def link_to(view: View, **changed: Any) -> str:
    """The address of the same page with other parts of its query."""
    fields = {field.name for field in dataclasses.fields(ListQuery)}
    query = dataclasses.replace(view.query, **{name: value for name, value in changed.items() if name in fields})
    own = dict(view.filters) | {name: str(value) for name, value in changed.items() if name not in fields}
    values = views.address_values(query) | {name: value for name, value in own.items() if value}
    return view.path + (f"?{urllib.parse.urlencode(values)}" if values else "")


def _denied(section: Section, caller: Caller) -> LenswayError:
    role = "" if caller.identity.role is None else caller.identity.role.value
    return LenswayError(
        ErrorCode.FORBIDDEN,
        f"The page {section.title} needs the role {section.needs.value}, and your key has the role {role}",
        hint="Sign in with another key, or ask an administrator.",
    )
