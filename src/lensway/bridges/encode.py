"""Rows to bytes, once, next to the database: JSON pages, NDJSON, CSV. Counts them, checks every bound, writes to the sink."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable, Sequence
from typing import Any, Final

import msgspec

from lensway.bridges.contract import RowSink
from lensway.bridges.failures import limit_exceeded, row_too_large
from lensway.errors import ErrorCode, LenswayError
from lensway.query.compile import Compiled
from lensway.query.fields import FieldType
from lensway.query.result import ResultEnd, ResultLimits, RowFormat

_encoder: Final = msgspec.json.Encoder()


class RowWriter:
    """Takes rows as tuples of wire values, in the order of the compiled columns; gives the end mark."""

    def __init__(
        self, compiled: Compiled, format: RowFormat, limits: ResultLimits, sink: RowSink, *, page_rows: int | None
    ) -> None:
        columns = compiled.columns[: compiled.output_count]
        self._names = [column.name for column in columns]
        self._floats = [number for number, column in enumerate(columns) if column.type is FieldType.NUMBER]
        self._compiled = compiled
        self._limits = limits
        self._sink = sink
        self._page_rows = page_rows
        self._encode: Callable[[list[dict[str, Any]]], bytes] = _encoder_of(format)
        self._is_page = format is RowFormat.JSON
        self._header = _csv_header(self._names) if format is RowFormat.CSV else b""
        self._last: Sequence[Any] | None = None
        self.rows = 0
        self.bytes = 0
        self.has_more = False

    async def write(self, rows: Sequence[Sequence[Any]]) -> None:
        """Encode and write these rows. What is beyond the page says only that there is more.

        Raises:
            LenswayError: LIMIT_EXCEEDED, ROW_TOO_LARGE.
        """
        if self._page_rows is not None and self.rows + len(rows) > self._page_rows:
            self.has_more = True
            rows = rows[: self._page_rows - self.rows]
        if not rows:
            return
        if self.rows + len(rows) > self._limits.rows_max:
            raise limit_exceeded("rows", self._limits.rows_max)
        names = self._names
        documents = [dict(zip(names, row, strict=False)) for row in rows]
        if self._floats:
            self._spell_floats(documents)
        chunk = self._encode(documents)
        if len(chunk) > self._limits.row_bytes_max:
            self._check_rows(documents)
        if self._is_page and self.rows:
            chunk = b"," + chunk
        chunk = self._header + chunk
        self._header = b""
        if self.bytes + len(chunk) > self._limits.bytes_max:
            raise limit_exceeded("bytes", self._limits.bytes_max)
        self._last = rows[-1]
        self.rows += len(rows)
        self.bytes += len(chunk)
        await self._sink.write(chunk)

    async def end(self, total: int | None = None) -> ResultEnd:
        """The end mark; an empty CSV still has its header."""
        if self._header:
            self.bytes += len(self._header)
            await self._sink.write(self._header)
        return ResultEnd(
            rows=self.rows, bytes=self.bytes, has_more=self.has_more, last_key=self._last_key(), total=total
        )

    def _last_key(self) -> tuple[object, ...] | None:
        if self._last is None or not self._compiled.key_positions:
            return None
        return tuple(self._last[position] for position in self._compiled.key_positions)

    def _spell_floats(self, documents: list[dict[str, Any]]) -> None:
        # JSON has no NaN and no infinities; the contract gives them as texts.
        for index in self._floats:
            name = self._names[index]
            for document in documents:
                value = document[name]
                if type(value) is float and not math.isfinite(value):
                    document[name] = _spelled(value)
                elif type(value) is list:
                    document[name] = [
                        _spelled(each) if type(each) is float and not math.isfinite(each) else each for each in value
                    ]

    def _check_rows(self, documents: list[dict[str, Any]]) -> None:
        for document in documents:
            if len(_encoder.encode(document)) > self._limits.row_bytes_max:
                raise row_too_large(self._limits.row_bytes_max)


def _spelled(value: float) -> str:
    if math.isnan(value):
        return "NaN"
    return "Infinity" if value > 0 else "-Infinity"


def _encoder_of(format: RowFormat) -> Callable[[list[dict[str, Any]]], bytes]:
    match format:
        case RowFormat.JSON:
            return lambda documents: _encoder.encode(documents)[1:-1]
        case RowFormat.NDJSON:
            return _encoder.encode_lines
        case RowFormat.CSV:
            return _csv_lines
        case _:
            raise LenswayError(ErrorCode.NOT_ACCEPTABLE, f"rows are not available as {format.value} yet")


def _csv_header(names: Sequence[str]) -> bytes:
    return _csv_text([list(names)])


def _csv_lines(documents: list[dict[str, Any]]) -> bytes:
    return _csv_text([[_csv_cell(value) for value in document.values()] for document in documents])


def _csv_text(lines: list[list[str]]) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator="\r\n").writerows(lines)
    return text.getvalue().encode()


def _csv_cell(value: Any) -> str:
    """NULL is empty; what has no plain text is as it is in JSON."""
    match value:
        case None:
            return ""
        case str():
            return value
        case bool() | int() | float():
            return _encoder.encode(value).decode()
        case bytes():
            return _encoder.encode(value).decode().strip('"')
        case _:
            return _encoder.encode(value).decode()
