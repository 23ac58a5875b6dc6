"""`lensway query`, `count` and `explain`: the data plane from the shell."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from typing import Annotated, Any, BinaryIO, Final, Literal, cast

import msgspec
from cyclopts import Parameter

from lensway.api import numbers
from lensway.api.shapes import ExplainAnswer
from lensway.cli import forms, names, output, report, screen, target
from lensway.cli.tables import Column
from lensway.client import Client, Page, Stream
from lensway.errors import ErrorCode, LenswayError
from lensway.limits import ROWS_PER_PAGE_MAX

Where = Annotated[str | None, Parameter(help='Filter as JSON, e.g. \'{"total": {"$gt": 100}}\'.')]
OrderBy = Annotated[str | None, Parameter(help="FIELD or FIELD:desc, several separated by commas.")]
Select = Annotated[str | None, Parameter(help="Fields, separated by commas.")]
_CANDIDATES: Final = (
    Column("CANDIDATE", "runner", rank=0),
    Column("VERDICT", "verdict", rank=0),
    Column("SCORE", "score", rank=1),
)
_ASSIGNED: Final = re.compile(r"\s*([A-Za-z_]\w*)\s*(==|=|!=|<>|>=|<=|>|<)\s*(.*\S)\s*")
_OPERATORS: Final = {
    "=": None,
    "==": None,
    "!=": "$ne",
    "<>": "$ne",
    ">": "$gt",
    ">=": "$gte",
    "<": "$lt",
    "<=": "$lte",
}
_LITERAL: Final = re.compile(r"-?(0|[1-9]\d*)(\.\d+)?|true|false|null")
TimeoutMs = Annotated[int | None, Parameter(help="The server's deadline for this request.")]


def query(
    lens: names.Lens,
    /,
    *,
    where: Where = None,
    order_by: OrderBy = None,
    select: Select = None,
    limit: Annotated[int | None, Parameter(help="Rows of a page, 1 to 10,000; default 100.")] = None,
    offset: Annotated[int | None, Parameter(help="Rows to skip; not together with --cursor.")] = None,
    cursor: Annotated[
        str | None, Parameter(help="The page before's meta.nextCursor, with the same --where and --order-by.")
    ] = None,
    all: Annotated[bool, Parameter(negative=(), help="Every matching row, not only the first page.")] = False,
    format: Annotated[
        Literal["json", "ndjson", "csv", "arrow", "table"] | None,
        Parameter(help="table on a terminal, json when piped."),
    ] = None,
    json: Annotated[bool, Parameter(negative=(), help="The short form of --format json.")] = False,
    timeout_ms: TimeoutMs = None,
    to: target.Server = target.SERVER,
) -> None:
    """Query rows of a lens."""
    if limit is not None and limit > ROWS_PER_PAGE_MAX:
        raise LenswayError(
            ErrorCode.INVALID_REQUEST,
            f"--limit {limit:,} exceeds the page size of lens {lens!r}, which is at most {ROWS_PER_PAGE_MAX:,} rows",
            hint="Use --all for every matching row"
            + (f" (in pages of --limit {ROWS_PER_PAGE_MAX})." if all else "; `lensway export` writes them to a file."),
        )
    asked = {**options(where=where, order_by=order_by, select=select), "timeout_ms": timeout_ms}
    start = _start(offset, cursor, all=all)
    chosen = forms.form_of(format, json=json) or ("table" if screen.is_terminal() else "json")
    report.refuse_binary_on_terminal(chosen)
    with to.client() as client:
        if chosen in ("ndjson", "csv", "arrow"):
            out = screen.BinaryOut(is_json=chosen == "ndjson")
            with _stream(client, lens, chosen, asked | start, limit, all=all) as rows:
                rows.save(cast("BinaryIO", out))
            out.flush()
            return
        pages = _pages(client, lens, asked | start, limit, all=all)
        write = _write_json if chosen == "json" else _write_tables
        write(pages)


def _start(offset: int | None, cursor: str | None, *, all: bool) -> dict[str, Any]:
    """Where the rows begin. Raises LenswayError INVALID_REQUEST for what excludes each other."""
    if all and offset is not None:
        raise LenswayError(
            ErrorCode.INVALID_REQUEST,
            "--all and --offset exclude each other",
            hint="Continue after a page with --cursor, or take one page with --limit and --offset.",
        )
    if cursor == "":
        raise LenswayError(
            ErrorCode.INVALID_REQUEST,
            "--cursor is empty",
            hint="Give meta.nextCursor of the previous page, or omit it.",
        )
    return {name: value for name, value in (("offset", offset), ("cursor", cursor)) if value is not None}


def count(
    lens: names.Lens, /, *, where: Where = None, timeout_ms: TimeoutMs = None, to: target.Target = target.DEFAULT
) -> None:
    """Count the rows that match."""
    with to.client() as client:
        found = client.count(lens, timeout_ms=timeout_ms, **options(where=where, order_by=None, select=None))
    output.write_one(to.form, {"count": found}, lambda: report.write_line(str(found)))


def explain(
    lens: names.Lens,
    /,
    *,
    where: Where = None,
    order_by: OrderBy = None,
    select: Select = None,
    limit: Annotated[int | None, Parameter(help="Rows of the page.")] = None,
    to: target.Target = target.DEFAULT,
) -> None:
    """Show the statement (values redacted) and where it would run, with every candidate and the reason, without running it."""
    with to.client() as client:
        found = client.explain(lens, limit=limit, **options(where=where, order_by=order_by, select=select))
    output.write_one(to.form, msgspec.to_builtins(found), lambda: _write_explained(found))


def _write_explained(found: ExplainAnswer) -> None:
    if found.statement is not None:
        report.write_text(f"{found.statement}\n\n")
    for number, parameter in enumerate(found.parameters, start=1):
        report.write_line(f"  ${number}  {parameter}")
    route = found.route
    place = route.runner or route.via or "nowhere"
    report.write_line(
        f"source {found.source} ({found.bridge}), via {place}" + (f": {route.error}" if route.error else "")
    )
    if route.candidates:
        output.write_list("table", [msgspec.to_builtins(each) for each in route.candidates], _CANDIDATES, empty="")


def options(*, where: str | None, order_by: str | None, select: str | None) -> dict[str, Any]:
    """The options as the client takes them. Raises LenswayError INVALID_REQUEST for text that is not a JSON object."""
    found: dict[str, Any] = {}
    if where is not None:
        found["where"] = _where(where)
    if order_by is not None:
        found["order_by"] = _names("--order-by", order_by, "FIELD or FIELD:desc, for example --order-by placed:desc,id")
    if select is not None:
        found["select"] = _names("--select", select, "fields, for example --select id,total")
    return found


def _where(text: str) -> dict[str, Any]:
    form = 'It is a JSON object: --where \'{"total": {"$gt": 100}}\'.'
    if (found := _ASSIGNED.fullmatch(text)) is not None:
        # Who writes id=1 means this; what looks like JSON stays, the rest is text.
        field, operator, value = found[1], _OPERATORS[found[2]], found[3].strip("'\"")
        literal = value if _LITERAL.fullmatch(value) else msgspec.json.encode(value).decode()
        meant = literal if operator is None else f'{{"{operator}": {literal}}}'
        form = f"Write --where '{{\"{field}\": {meant}}}'."
    try:
        decoded = report.read_json(text.encode(), "--where", numbers.decode_verbatim)
    except LenswayError as error:
        raise LenswayError(ErrorCode.INVALID_REQUEST, str(error), hint=error.failure.hint or form) from None
    if not isinstance(decoded, dict):
        raise LenswayError(ErrorCode.INVALID_REQUEST, "--where must be a JSON object", hint=form)
    return decoded


def _names(option: str, text: str, wanted: str) -> list[str]:
    names = [part.strip() for part in text.split(",")]
    if not all(names):
        what = "is empty" if not text.strip() else "has an empty part between its commas"
        raise LenswayError(
            ErrorCode.INVALID_REQUEST, f"{option} {what}", hint=f"Give {wanted}; omit it for the default."
        )
    return names


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
    write = report.write_data_text
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
