"""`lensway query`, `count` and `explain`: the data plane from the shell."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Iterator
from typing import Annotated, Any, Literal

import msgspec
from cyclopts import Parameter

from lensway.api import numbers
from lensway.cli import report, target
from lensway.client import Client, Page, Stream
from lensway.errors import ErrorCode, LenswayError
from lensway.limits import ROWS_PER_PAGE_MAX

Where = Annotated[str | None, Parameter(help='Filter as JSON, e.g. \'{"total": {"$gt": 100}}\'.')]
OrderBy = Annotated[str | None, Parameter(help="FIELD or FIELD:desc, several separated by commas.")]
Select = Annotated[str | None, Parameter(help="Fields, separated by commas.")]
TimeoutMs = Annotated[int | None, Parameter(help="The server's deadline for this request.")]


def query(
    lens: str,
    /,
    *,
    where: Where = None,
    order_by: OrderBy = None,
    select: Select = None,
    limit: Annotated[int | None, Parameter(help="Rows of a page, 1 to 10,000; default 100.")] = None,
    all: Annotated[bool, Parameter(negative=(), help="Every matching row, not only the first page.")] = False,
    format: Annotated[
        Literal["json", "ndjson", "csv", "arrow", "table"] | None,
        Parameter(help="table on a terminal, json when piped."),
    ] = None,
    timeout_ms: TimeoutMs = None,
    to: target.To = target.DEFAULT,
) -> None:
    """Query rows of a lens."""
    if limit is not None and limit > ROWS_PER_PAGE_MAX:
        raise LenswayError(
            ErrorCode.INVALID_REQUEST,
            f"--limit {limit:,} exceeds the page size of lens {lens!r}, which is at most {ROWS_PER_PAGE_MAX:,} rows",
            hint="Use --all for every matching row"
            + (f" (in pages of --limit {ROWS_PER_PAGE_MAX})." if all else "; `lensway export` writes them to a file."),
        )
    asked = options(where=where, order_by=order_by, select=select)
    chosen = format or ("json" if report.wants_json(to.json) else "table")
    report.refuse_binary_on_terminal(chosen)
    with to.client() as client:
        if chosen in ("ndjson", "csv", "arrow"):
            with _stream(client, lens, chosen, {**asked, "timeout_ms": timeout_ms}, limit, all=all) as rows:
                rows.save(sys.stdout.buffer)
            sys.stdout.buffer.flush()
            return
        pages = _pages(client, lens, {**asked, "timeout_ms": timeout_ms}, limit, all=all)
        write = _write_json if chosen == "json" else _write_tables
        write(pages)


def count(lens: str, /, *, where: Where = None, timeout_ms: TimeoutMs = None, to: target.To = target.DEFAULT) -> None:
    """Count the rows that match."""
    with to.client() as client:
        found = client.count(lens, timeout_ms=timeout_ms, **options(where=where, order_by=None, select=None))
    if report.wants_json(to.json):
        report.write_json({"count": found})
    else:
        report.write_line(str(found))


def explain(
    lens: str,
    /,
    *,
    where: Where = None,
    order_by: OrderBy = None,
    select: Select = None,
    limit: Annotated[int | None, Parameter(help="Rows of the page.")] = None,
    to: target.To = target.DEFAULT,
) -> None:
    """Show the statement (values redacted) and where it would run, with every candidate and the reason, without running it."""
    with to.client() as client:
        found = client.explain(lens, limit=limit, **options(where=where, order_by=order_by, select=select))
    if report.wants_json(to.json):
        report.write_json(found)
        return
    if found.statement is not None:
        report.write_line(f"{found.statement}\n")
    for number, parameter in enumerate(found.parameters, start=1):
        report.write_line(f"  ${number}  {parameter}")
    route = found.route
    place = route.runner or route.via or "nowhere"
    report.write_line(
        f"source {found.source} ({found.bridge}), via {place}" + (f": {route.error}" if route.error else "")
    )
    if route.candidates:
        report.write_table(
            ("CANDIDATE", "VERDICT", "SCORE"), [(c.runner, c.verdict, c.score) for c in route.candidates], empty=""
        )


def options(*, where: str | None, order_by: str | None, select: str | None) -> dict[str, Any]:
    """The options as the client takes them. Raises LenswayError INVALID_REQUEST for text that is not a JSON object."""
    found: dict[str, Any] = {}
    if where is not None:
        found["where"] = report.read_json(where.encode(), "--where", numbers.decode_verbatim)
        if not isinstance(found["where"], dict):
            raise LenswayError(
                ErrorCode.INVALID_REQUEST,
                "--where must be a JSON object",
                hint='For example \'{"total": {"$gt": 100}}\'',
            )
    if order_by:
        found["order_by"] = order_by.split(",")
    if select:
        found["select"] = [part.strip() for part in select.split(",")]
    return found


def _stream(client: Client, lens: str, format: Any, asked: dict[str, Any], limit: int | None, *, all: bool) -> Stream:
    if all:
        return client.export(lens, format=format, **asked)
    return client.encoded(lens, format=format, limit=limit, **asked)


def _pages(client: Client, lens: str, asked: dict[str, Any], limit: int | None, *, all: bool) -> Iterator[Page]:
    if not all:
        return iter([client.query(lens, limit=limit, **asked)])
    return client.pages(lens, **asked) if limit is None else client.pages(lens, limit=limit, **asked)


def _write_json(pages: Iterator[Page]) -> None:
    """One document, written as the pages come, so that any number of them fits."""
    write = sys.stdout.write
    count, meta, is_first = 0, None, True
    for page in pages:
        for row in page:
            write(('{\n  "rows": [\n    ' if is_first else ",\n    ") + numbers.encode(row).decode())
            is_first = False
        count, meta = count + len(page), page.meta
    assert meta is not None, "there is always a first page"
    # As the API answers: inline, the runner is null and not absent.
    route = {"via": meta.route.via, "runner": meta.route.runner, "attempts": meta.route.attempts}
    shown = msgspec.to_builtins(meta) | {"count": count, "route": route}
    text = msgspec.json.format(msgspec.json.encode(shown), indent=2).decode().replace("\n", "\n  ")
    write(('{\n  "rows": []' if is_first else "\n  ]") + f',\n  "meta": {text}\n}}\n')


def _write_tables(pages: Iterator[Page]) -> None:
    first = next(pages)
    columns = list(first.rows[0]) if first.rows else []
    count, last = 0, first
    for page in itertools.chain([first], pages):
        if page.rows:
            report.write_rows(columns, [list(row.values()) for row in page])
        elif page is first:
            report.write_line("no rows")
        count, last = count + len(page), page
    _write_footer(last, count)


def _write_footer(last: Page, count: int) -> None:
    route = last.meta.route
    place = f"runner {route.runner}" if route.runner else route.via
    more = ", more follow (--all)" if last.has_more else ""
    report.write_note(
        f"{count:,} {'row' if count == 1 else 'rows'} via {place} in {last.meta.duration_ms:.1f} ms{more}"
    )
