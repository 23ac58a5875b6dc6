"""Rows to bytes, once, next to the database. Counts them, checks every bound, writes to the sink; encoders know the formats.

`encode_text` has JSON pages, NDJSON and CSV, `arrow_encode` has Arrow and Parquet and is imported when one of them is asked for.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import Any, Final, Protocol

from lensway.bridges.contract import RowSink
from lensway.bridges.encoding.text import CsvLines, JsonLines, JsonPage
from lensway.bridges.kit import loading
from lensway.bridges.kit.failures import limit_exceeded
from lensway.bridges.kit.page_end import PageEnd
from lensway.dialects.compile import Compiled
from lensway.query import result
from lensway.query.fields import NestedColumn, PlanColumn
from lensway.query.result import ResultEnd, ResultLimits, RowFormat, not_available

ARROW_FORMATS: Final = result.ARROW_FORMATS
_ARROW_MODULE: Final = "lensway.bridges.encoding.arrow"


class RowEncoder(Protocol):
    """One format while it encodes one result."""

    def rows(self, rows: Sequence[Sequence[Any]], row_bytes_max: int) -> bytes:
        """These rows, with what stands before the first one.

        Raises:
            LenswayError: ROW_TOO_LARGE, SOURCE_QUERY_FAILED for a value that the format cannot hold.
        """

    def end(self) -> bytes:
        """What stands behind the last row; for an empty result what stands before the first one too."""


class Meter:
    """Counts what a result has, and refuses what would be more than the limits."""

    def __init__(self, limits: ResultLimits) -> None:
        self.limits = limits
        self.rows = 0
        self.bytes = 0

    def count(self, rows: int, size: int) -> None:
        """So many rows more, in so many bytes. Raises LenswayError LIMIT_EXCEEDED."""
        if self.rows + rows > self.limits.rows_max:
            raise limit_exceeded("rows", self.limits.rows_max)
        if self.bytes + size > self.limits.bytes_max:
            raise limit_exceeded("bytes", self.limits.bytes_max)
        self.rows += rows
        self.bytes += size


class RowWriter:
    """Takes rows as tuples of wire values, in the order of the compiled columns; gives the end mark."""

    def __init__(
        self,
        compiled: Compiled,
        format: RowFormat,
        limits: ResultLimits,
        sink: RowSink,
        *,
        page_rows: int | None,
        is_offset: bool = False,
    ) -> None:
        self._page = PageEnd(compiled)
        self._is_offset = is_offset
        self._encoder = _encoder_of(format, compiled.columns[: compiled.output_count])
        self._meter = Meter(limits)
        self._sink = sink
        self._page_rows = page_rows
        self._last: Sequence[Any] | None = None
        self._is_new_statement = True
        self.has_more = False

    @property
    def rows(self) -> int:
        """Rows written so far."""
        return self._meter.rows

    @property
    def bytes(self) -> int:
        """Bytes written so far."""
        return self._meter.bytes

    def begin_statement(self) -> None:
        """The rows from here on are of another statement than those before, and so not equal to them in the order."""
        self._is_new_statement = True

    async def write(self, rows: Sequence[Sequence[Any]]) -> None:
        """Encode and write these rows. A row beyond the page only shows that there is more.

        Raises:
            LenswayError: LIMIT_EXCEEDED, ROW_TOO_LARGE, SOURCE_QUERY_FAILED for a value that the format cannot hold, and for a
                page whose boundary falls between equal keys.
        """
        meter, page = self._meter, self._page
        if self._is_offset and rows and not meter.rows:
            page.begins_with(page.tail(rows[0]))
        if self._page_rows is not None and meter.rows + len(rows) > self._page_rows:
            self.has_more = True
            count = self._page_rows - meter.rows
            last = rows[count - 1] if count else None if self._is_new_statement else self._last
            if last is not None:
                page.ends_between(page.tail(last), page.tail(rows[count]))
            rows = rows[:count]
        if not rows:
            return
        self._is_new_statement = False
        if meter.rows + len(rows) > meter.limits.rows_max:
            raise limit_exceeded("rows", meter.limits.rows_max)
        chunk = self._encoder.rows(rows, meter.limits.row_bytes_max)
        meter.count(len(rows), len(chunk))
        self._last = rows[-1]
        await self._sink.write(chunk)

    async def end(self, total: int | None = None) -> ResultEnd:
        """The end mark, after what the format has behind its last row. Raises LenswayError LIMIT_EXCEEDED."""
        chunk = self._encoder.end()
        if chunk:
            self._meter.count(0, len(chunk))
            await self._sink.write(chunk)
        key = row_id = None
        if self._last is not None and self._page.positions:
            key, row_id = self._page.key(self._page.tail(self._last), has_more=self.has_more)
        return ResultEnd(
            rows=self.rows, bytes=self.bytes, has_more=self.has_more, last_key=key, total=total, row_id=row_id
        )


async def load_encoder(format: RowFormat) -> None:
    """Import what this format needs, while the event loop goes on.

    Raises:
        LenswayError: NOT_ACCEPTABLE when it is not installed here.
    """
    if format in ARROW_FORMATS:
        try:
            await loading.load(_ARROW_MODULE, packages=loading.ARROW_PACKAGES)
        except ImportError:
            raise not_available(format.value) from None


def _encoder_of(format: RowFormat, columns: Sequence[PlanColumn | NestedColumn]) -> RowEncoder:
    match format:
        case RowFormat.JSON:
            return JsonPage(columns)
        case RowFormat.NDJSON:
            return JsonLines(columns)
        case RowFormat.CSV:
            return CsvLines(columns)
        case RowFormat.ARROW | RowFormat.ARROW_ZSTD | RowFormat.PARQUET:
            encoder: RowEncoder = importlib.import_module(_ARROW_MODULE).ArrowRows(columns, format)
            return encoder
        case RowFormat.DOCUMENT:
            raise not_available(format.value)
