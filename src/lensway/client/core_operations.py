"""What a client can do, each as one generator: the source of both the blocking and the awaiting client's methods."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, Literal, TypeAlias, get_args
from urllib.parse import quote

from lensway import limits
from lensway.api import shapes
from lensway.api.bodies import body_of
from lensway.client import core, core_stream, exceptions
from lensway.client.arrow import ArrowRows
from lensway.client.core import Connection, Repeat, Request, Steps, Work
from lensway.errors import ErrorCode

Row: TypeAlias = dict[str, Any]
Where: TypeAlias = Mapping[str, Any]
OrderBy: TypeAlias = str | Mapping[str, str] | Sequence[str | Mapping[str, str]]
"""``"placed"``, ``"placed:desc"``, ``{"field": "placed", "dir": "desc"}``, or a list of these."""
Format: TypeAlias = Literal["ndjson", "csv", "arrow", "parquet"]

_FORMATS: Final = get_args(Format)

ACCEPT: Final[Mapping[str, str]] = {
    "json": "application/json",
    "ndjson": "application/x-ndjson; end=record",
    "csv": "text/csv",
    "arrow": "application/vnd.apache.arrow.stream",
    "parquet": "application/vnd.apache.parquet",
}
"""The media type of each format. NDJSON is asked for with its end record, so that its end can be told from a cut."""


@dataclasses.dataclass(frozen=True, slots=True)
class Page:
    """One page of rows. Iterating gives the rows."""

    rows: list[Row]
    """Values as JSON has them: decimals and timestamps are text, so that nothing is lost."""
    meta: shapes.PageMeta
    """Count, cursor, duration, request id and route."""

    def __iter__(self) -> Iterator[Row]:
        return iter(self.rows)

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def has_more(self) -> bool:
        """True when more rows match than this page holds."""
        return self.meta.has_more

    @property
    def next_cursor(self) -> str | None:
        """What the next page is asked with; None on the last one, and on a lens without a primary key."""
        return self.meta.next_cursor

    @property
    def total(self) -> int | None:
        """How many rows match in all, if it was asked for."""
        return self.meta.total


def query(
    via: Connection,
    lens: str,
    *,
    where: Where | None = None,
    order_by: OrderBy | None = None,
    select: Sequence[str] | None = None,
    limit: int | None = None,
    offset: int | None = None,
    cursor: str | None = None,
    total: bool = False,
    timeout_ms: int | None = None,
) -> Work[Page]:
    """One page of rows.

    Args:
        lens: The lens to ask.
        where: The filter; see the reference of operators. Dates, decimals, UUIDs and bytes may be Python's own.
        order_by: Default: primary-key order.
        select: Fields; default: all.
        limit: Rows of the page, 1 to 10,000; default: 100.
        offset: Rows to skip; not together with ``cursor``.
        cursor: The page before's ``next_cursor``, with the same ``where`` and ``order_by``.
        total: Count all matching rows too.
        timeout_ms: The server's deadline for this request; default: 30,000.

    Raises:
        LenswayError: the class of the failure's code.
    """
    body = query_body(
        shapes.QueryRequest,
        where=where,
        order_by=order_by,
        select=select,
        limit=limit,
        offset=offset,
        cursor=cursor,
        total=total or None,
        timeout_ms=timeout_ms,
    )
    answer = yield from core.answered(via, _read(f"/v1/query/{segment(lens)}", body))
    found = core.decoded(answer, shapes.QueryAnswer)
    return Page(found.rows, found.meta)


def pages(
    via: Connection,
    lens: str,
    *,
    where: Where | None = None,
    order_by: OrderBy | None = None,
    select: Sequence[str] | None = None,
    limit: int = limits.CLIENT_EXPORT_ROWS_PER_PAGE,
    cursor: str | None = None,
    timeout_ms: int | None = None,
) -> Steps[Page]:
    """Every page to the last, following the cursor. ``limit`` is the rows of one page.

    Each page is a query of its own: rows that change meanwhile are seen as they are then. For many rows `export` is faster.

    Raises:
        InvalidCursorError: after the first page, when more rows follow and the lens has no primary key to follow them by.
        LenswayError: the class of the failure's code.
    """
    while True:
        page = yield from query(
            via, lens, where=where, order_by=order_by, select=select, limit=limit, cursor=cursor, timeout_ms=timeout_ms
        )
        yield core.Emit(page)
        cursor = _cursor_after(page, lens)
        if cursor is None:
            return


def rows(
    via: Connection,
    lens: str,
    *,
    where: Where | None = None,
    order_by: OrderBy | None = None,
    select: Sequence[str] | None = None,
    limit: int = limits.CLIENT_EXPORT_ROWS_PER_PAGE,
    timeout_ms: int | None = None,
) -> Steps[Row]:
    """Every matching row, page by page; as `pages`, flattened."""
    cursor = None
    while True:
        page = yield from query(
            via, lens, where=where, order_by=order_by, select=select, limit=limit, cursor=cursor, timeout_ms=timeout_ms
        )
        for row in page:
            yield core.Emit(row)
        cursor = _cursor_after(page, lens)
        if cursor is None:
            return


def count(via: Connection, lens: str, *, where: Where | None = None, timeout_ms: int | None = None) -> Work[int]:
    """Count the matching rows.

    Raises:
        LenswayError: the class of the failure's code.
    """
    body = query_body(shapes.CountRequest, where=where, timeout_ms=timeout_ms)
    answer = yield from core.answered(via, _read(f"/v1/count/{segment(lens)}", body))
    return core.decoded(answer, shapes.CountAnswer).count


def explain(
    via: Connection,
    lens: str,
    *,
    where: Where | None = None,
    order_by: OrderBy | None = None,
    select: Sequence[str] | None = None,
    limit: int | None = None,
    offset: int | None = None,
    cursor: str | None = None,
) -> Work[shapes.ExplainAnswer]:
    """Show what `query` would run and where, with every candidate and the reason, without running it.

    Raises:
        LenswayError: the class of the failure's code.
    """
    members = {"select": select, "limit": limit, "offset": offset, "cursor": cursor}
    body = query_body(shapes.QueryRequest, where=where, order_by=order_by, **members)
    answer = yield from core.answered(via, _read(f"/v1/query/{segment(lens)}/explain", body))
    return core.decoded(answer, shapes.ExplainAnswer)


def lenses(via: Connection) -> Work[list[shapes.LensSummary]]:
    """List the lenses that this key may query, with their fields and operators.

    Raises:
        LenswayError: the class of the failure's code.
    """
    answer = yield from core.answered(via, Request(method="GET", path="/v1/lenses"))
    return core.decoded(answer, shapes.LensList).lenses


def lens(via: Connection, lens: str) -> Work[shapes.LensSummary]:
    """Show one lens, with its fields and operators.

    Raises:
        LenswayError: the class of the failure's code.
    """
    answer = yield from core.answered(via, Request(method="GET", path=f"/v1/lenses/{segment(lens)}"))
    return core.decoded(answer, shapes.LensSummary)


def request(via: Connection, request_id: str) -> Work[dict[str, Any]]:
    """Show a request of this key: outcome, route, attempts, times.

    Raises:
        LenswayError: the class of the failure's code.
    """
    answer = yield from core.answered(via, Request(method="GET", path=f"/v1/requests/{segment(request_id)}"))
    return core.decoded(answer, dict[str, Any])


def arrow(
    via: Connection,
    lens: str,
    *,
    where: Where | None = None,
    order_by: OrderBy | None = None,
    select: Sequence[str] | None = None,
    limit: int | None = None,
    timeout_ms: int | None = None,
) -> Work[ArrowRows]:
    """Every matching row, or the first ``limit``, as Arrow in memory: for pandas, Polars, DuckDB and all that reads Arrow.

    Raises:
        IncompleteStreamError: when the stream broke.
        LenswayError: the class of the failure's code.
    """
    wanted = stream_request(
        lens,
        is_export=limit is None,
        format="arrow",
        where=where,
        order_by=order_by,
        select=select,
        limit=limit,
        timeout_ms=timeout_ms,
    )
    return (yield from core_stream.arrow(core_stream.Incoming(via, wanted)))


def call(
    via: Connection,
    method: str,
    path: str,
    body: object = None,
    *,
    params: Mapping[str, str] | None = None,
) -> Work[Any]:
    """Call any route of the API, also of the control plane. Returns the decoded answer, or None for an empty one.

    Only GET is repeated after a failure; a change is sent again only when it never left.

    Raises:
        LenswayError: the class of the failure's code.
    """
    repeat = Repeat.READ if method == "GET" else Repeat.UNSENT
    wanted = Request(method=method, path=path, body=body, params=params, repeat=repeat)
    answer = yield from core.answered(via, wanted)
    return core.decoded(answer, Any) if answer.body else None


def export_request(
    lens: str,
    *,
    format: Format = "ndjson",
    where: Where | None = None,
    order_by: OrderBy | None = None,
    select: Sequence[str] | None = None,
    timeout_ms: int | None = None,
) -> Request:
    """Every matching row as one stream, in constant memory on all sides. A context manager; entering or reading it asks.

    Args:
        lens: The lens to ask.
        format: ``ndjson``, ``csv``, ``arrow`` or ``parquet``.
        where: The filter.
        order_by: Default: primary-key order; an empty sequence takes the rows as the database finds them, without a sort.
        select: Fields; default: all.
        timeout_ms: The server's deadline for the whole stream; default: an hour.

    Raises:
        IncompleteStreamError: while it is read, when the stream broke: the received rows are incomplete.
        LenswayError: on entering or reading; the class of the failure's code.
    """
    return stream_request(
        lens, is_export=True, format=format, where=where, order_by=order_by, select=select, timeout_ms=timeout_ms
    )


def encoded_request(
    lens: str,
    *,
    format: Format = "ndjson",
    where: Where | None = None,
    order_by: OrderBy | None = None,
    select: Sequence[str] | None = None,
    limit: int | None = None,
    offset: int | None = None,
    cursor: str | None = None,
    timeout_ms: int | None = None,
) -> Request:
    """One page of rows in another format than JSON. A context manager; entering or reading it asks.

    The arguments are those of `query`, and ``format`` is ``ndjson``, ``csv`` or ``arrow``.

    Raises:
        IncompleteStreamError: while it is read, when the stream broke: the received rows are incomplete.
        LenswayError: on entering or reading; the class of the failure's code.
    """
    return stream_request(
        lens,
        is_export=False,
        format=format,
        where=where,
        order_by=order_by,
        select=select,
        limit=limit,
        offset=offset,
        cursor=cursor,
        timeout_ms=timeout_ms,
    )


def any_stream_request(
    method: str,
    path: str,
    body: Mapping[str, object] | None = None,
    *,
    accept: str,
    params: Mapping[str, str] | None = None,
) -> Request:
    """Stream the answer of any route of the API. ``accept`` is a format's name (``ndjson``, ``csv`` …) or a media type."""
    return Request(
        method=method, path=path, body=body, params=params, accept=ACCEPT.get(accept, accept), is_stream=True
    )


def stream_request(lens: str, *, is_export: bool, format: str, **members: Any) -> Request:
    """A query (one page) or an export in a streamed format. Raises InvalidRequestError for a format that it does not have."""
    if format not in ACCEPT:
        kind = "an export" if is_export else "a page"
        raise core.unusable(
            f"Lensway has no format {format!r}, requested for {kind} of lens {lens!r}",
            f"Choose one of {', '.join(_FORMATS)}."
            + (" Spreadsheets open csv." if str(format).startswith("xls") else ""),
        )
    return Request(
        method="POST",
        path=f"/v1/query/{segment(lens)}" + ("/export" if is_export else ""),
        body=query_body(shapes.ExportRequest if is_export else shapes.QueryRequest, **members),
        accept=ACCEPT[format],
        is_stream=True,
        time_limit_ms=limits.EXPORT_TIMEOUT_MS_DEFAULT if is_export else limits.QUERY_TIMEOUT_MS_DEFAULT,
    )


def query_body(shape: type[shapes.Request], *, order_by: OrderBy | None = None, **members: object) -> dict[str, object]:
    """The body of a request of this shape: what was said, and nothing of what was not."""
    said = {name: value for name, value in members.items() if value is not None}
    if order_by is not None:
        terms = [order_by] if isinstance(order_by, (str, Mapping)) else order_by
        said["order_by"] = [_term(term) for term in terms]
    return body_of(shape(**said))


def segment(name: str) -> str:
    """The name as one segment of a path.

    Raises:
        InvalidRequestError: for a name that would make it the path of something else: of the whole list, or of what is above.
    """
    if name in ("", ".", ".."):
        raise core.unusable(f"{name!r} is not a name", "Give the name or the id of one object.")
    return quote(name, safe="")


def _term(term: str | Mapping[str, str]) -> shapes.OrderTerm | Mapping[str, str]:
    if not isinstance(term, str):
        return term  # as it is: the server names what is wrong with it
    field, colon, direction = term.rpartition(":")
    if not colon:
        return shapes.OrderTerm(field=term.strip())
    return shapes.OrderTerm(field=field.strip(), dir=direction.strip())  # type: ignore[arg-type]  # the server checks it


def _cursor_after(page: Page, lens: str) -> str | None:
    """What the next page is asked with; None after the last one."""
    if not page.has_more:
        return None
    if page.next_cursor is None:
        raise exceptions.InvalidCursorError(
            ErrorCode.INVALID_CURSOR,
            f"Lens '{lens}' has no primary key, so its pages cannot be followed; more rows match than the first page holds",
            hint="Export it instead, ask for a larger limit, or declare a primary key.",
            details={"requestId": page.meta.request_id},
        )
    return page.next_cursor


def _read(path: str, body: Mapping[str, object]) -> Request:
    return Request(method="POST", path=path, body=body, time_limit_ms=limits.QUERY_TIMEOUT_MS_DEFAULT)
