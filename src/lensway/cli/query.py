"""`lensway query`, `export`, `explain`: the data plane from the shell."""

from __future__ import annotations

import os
import pathlib
import sys
import time
from collections.abc import Mapping
from typing import Annotated, Any, BinaryIO, Final, Literal

import msgspec
from cyclopts import Parameter

from lensway.cli import report, target
from lensway.client import StreamedRows
from lensway.client.http import segment
from lensway.errors import ErrorCode, LenswayError

_PROGRESS_SECONDS: Final = 0.5
_ExportFormat = Literal["json", "ndjson", "csv", "arrow", "parquet"]

_Where = Annotated[str | None, Parameter(help='Filter as JSON, e.g. \'{"total": {"$gt": 100}}\'.')]
_OrderBy = Annotated[str | None, Parameter(help="FIELD or FIELD:desc, several separated by commas.")]
_Select = Annotated[str | None, Parameter(help="Fields, separated by commas.")]
_To = target.Target


def query(
    lens: str,
    *,
    where: _Where = None,
    order_by: _OrderBy = None,
    select: _Select = None,
    limit: Annotated[int | None, Parameter(help="Rows of a page, 1 to 10,000; 100 unless said.")] = None,
    all: Annotated[bool, Parameter(negative=(), help="Every page to the last, not only the first.")] = False,
    format: Annotated[
        Literal["json", "ndjson", "csv", "arrow", "table"] | None,
        Parameter(help="table on a terminal, json when piped."),
    ] = None,
    to: _To = target.DEFAULT,
) -> None:
    """Ask a lens for rows."""
    body = request_body(where=where, order_by=order_by, select=select, limit=limit)
    chosen = format or ("json" if report.wants_json(to.json) else "table")
    with to.client() as client:
        if chosen in ("ndjson", "csv", "arrow"):
            operation = "/export" if all else ""
            with client.stream("POST", f"/v1/query/{segment(lens)}{operation}", body, accept=chosen) as rows:
                for chunk in rows:
                    sys.stdout.buffer.write(chunk)
            sys.stdout.buffer.flush()
            return
        pages = client.pages(lens, body) if all else iter([client.query(lens, body)])
        if chosen == "json":
            _write_pages(pages)
            return
        for page in pages:
            columns = list(page["rows"][0]) if page["rows"] else []
            report.write_table(columns, [list(row.values()) for row in page["rows"]], empty="no rows")
            _write_footer(page["meta"], all=all)


def export(
    lens: str,
    *,
    output: Annotated[
        pathlib.Path | None, Parameter(name=["--output", "-o"], help="File; standard output unless said.")
    ] = None,
    where: _Where = None,
    order_by: _OrderBy = None,
    select: _Select = None,
    format: Annotated[
        _ExportFormat | None, Parameter(help="By the file's ending unless said; ndjson otherwise.")
    ] = None,
    to: _To = target.DEFAULT,
) -> None:
    """Stream every matching row into a file: to a temporary name beside it, renamed when it is complete."""
    body = request_body(where=where, order_by=order_by, select=select, limit=None)
    chosen = format or _format_of(output)
    with to.client() as client, client.stream("POST", f"/v1/query/{segment(lens)}/export", body, accept=chosen) as rows:
        if output is None:
            _copy(rows, sys.stdout.buffer)
            sys.stdout.buffer.flush()
            return
        partial = output.with_name(f".{output.name}.{os.getpid()}.partial")
        try:
            with partial.open("xb") as file:
                _copy(rows, file)
                file.flush()
                os.fsync(file.fileno())
            partial.replace(output)
        except OSError as error:
            raise LenswayError(ErrorCode.INVALID_REQUEST, f"cannot write {output}: {error.strerror}") from None
        finally:
            partial.unlink(missing_ok=True)
    report.write_note(f"{output}: {rows.bytes_received:,} bytes")


def explain(
    lens: str,
    *,
    where: _Where = None,
    order_by: _OrderBy = None,
    select: _Select = None,
    limit: int | None = None,
    to: _To = target.DEFAULT,
) -> None:
    """Show the statement (values redacted) and where it would run, with every candidate and the reason. Runs nothing."""
    body = request_body(where=where, order_by=order_by, select=select, limit=limit)
    with to.client() as client:
        report.write_json(client.call("POST", f"/v1/query/{segment(lens)}/explain", body))


def request_body(
    *, where: str | None, order_by: str | None, select: str | None, limit: int | None
) -> dict[str, object]:
    """The body of a query from the options. Raises LenswayError INVALID_REQUEST for text that is not JSON."""
    body: dict[str, object] = {}
    if where is not None:
        try:
            body["where"] = msgspec.json.decode(where)
        except msgspec.DecodeError as error:
            raise LenswayError(ErrorCode.INVALID_REQUEST, f"--where is not JSON: {error}") from None
    if order_by:
        body["orderBy"] = [_order(part) for part in order_by.split(",")]
    if select:
        body["select"] = [part.strip() for part in select.split(",")]
    if limit is not None:
        body["limit"] = limit
    return body


def _order(part: str) -> Mapping[str, str]:
    field, _, direction = part.strip().rpartition(":")
    if not field:
        return {"field": direction, "dir": "asc"}
    return {"field": field, "dir": direction}


def _write_pages(pages: Any) -> None:
    first = next(pages)
    rows = list(first["rows"])
    for page in pages:
        rows.extend(page["rows"])
        first["meta"] |= {
            "count": len(rows),
            "hasMore": page["meta"]["hasMore"],
            "nextCursor": page["meta"]["nextCursor"],
        }
    report.write_json({"rows": rows, "meta": first["meta"]})


def _write_footer(meta: Mapping[str, Any], *, all: bool) -> None:
    route = meta.get("route") or {}
    place = f"runner {route['runner']}" if route.get("runner") else route.get("via", "")
    more = "" if all or not meta.get("hasMore") else ", more follow (--all)"
    report.write_note(f"{meta['count']} rows via {place} in {meta['durationMs']:.1f} ms{more}")


def _format_of(output: pathlib.Path | None) -> str:
    endings = {".csv": "csv", ".json": "json", ".arrow": "arrow", ".parquet": "parquet"}
    return endings.get(output.suffix.lower(), "ndjson") if output is not None else "ndjson"


def _copy(rows: StreamedRows, file: BinaryIO) -> None:
    started = shown = time.monotonic()
    is_shown = sys.stderr.isatty()
    for chunk in rows:
        file.write(chunk)
        now = time.monotonic()
        if is_shown and now - shown >= _PROGRESS_SECONDS:
            shown = now
            rate = rows.bytes_received / (now - started) / 1e6
            sys.stderr.write(f"\r{rows.bytes_received / 1e6:,.1f} MB, {rate:,.1f} MB/s ")
            sys.stderr.flush()
    if is_shown and shown != started:
        sys.stderr.write("\n")
