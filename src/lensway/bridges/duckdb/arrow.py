"""A plan's rows as the engine's own Arrow batches: no value becomes a Python object. Blocks: called in a thread."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from typing import Any, Final

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

from lensway import limits
from lensway.bridges.contract import Execution
from lensway.bridges.duckdb.columns import Columns, ColumnType, wrapped
from lensway.bridges.encoding.arrow import batch_encoder, check_row_sizes
from lensway.bridges.encoding.arrow_types import Declared, schema_of
from lensway.bridges.kit.failures import not_representable, query_failed
from lensway.bridges.kit.page_end import PageOfBatches
from lensway.dialects.compile import Compiled
from lensway.query.fields import FieldType, PlanColumn
from lensway.query.plan import Plan

_BATCH_ROWS: Final = 2_048
"""The rows that the engine has in hand at once."""
_DAY_MICROSECONDS: Final = 86_400_000_000


class Batches:
    """Runs a plan: `start`, then `next` until None, then `finish`. Raises duckdb.Error, LenswayError as `RowWriter` does."""

    def __init__(self, compiled: Compiled, columns: Columns, plan: Plan, execution: Execution) -> None:
        self._compiled = compiled
        self._columns = columns
        self._plan = plan
        self._execution = execution
        self._output = compiled.columns[: compiled.output_count]
        self.page = PageOfBatches(compiled, page_rows=plan.limit, is_offset=bool(plan.offset))
        declared = [_declared(*each) for each in zip(self._output, columns.types[: len(self._output)], strict=True)]
        self._schema = schema_of(self._output, declared)
        self._encoder = batch_encoder(execution.format, self._schema)
        _, self._shows = columns.text()
        self._waiting: list[tuple[str, list[object]]] = []
        self._reader: Any = None
        self._pieces: Iterator[Any] = iter(())

    def start(self, connection: duckdb.DuckDBPyConnection) -> None:
        """Begin the first statement."""
        expressions = self._columns.arrow(len(self._output), self.page.positions)
        count = len(self._compiled.columns)
        self._waiting = [
            (wrapped(sql, expressions, count, self._execution.tag), values)
            for sql, values in self._compiled.statements(self._plan)
        ]
        self._begin(connection)

    def next(self, connection: duckdb.DuckDBPyConnection) -> tuple[int, bytes] | None:
        """So many rows more, and their bytes; None behind the last ones."""
        while True:
            piece = next(self._pieces, None)
            if piece is not None:
                return piece.num_rows, self._encoder.batch(piece)
            batch = None if self.page.has_more else self._next_batch(connection)
            if batch is None:
                return None
            columns = batch.columns[len(self._output) :]
            count = self.page.take(batch.num_rows, functools.partial(self._tail, columns))
            if count:
                # Changed as a whole, while nothing of it is cut off.
                shaped = self._shaped(batch).slice(0, count)
                check_row_sizes(shaped, self._execution.limits.row_bytes_max)
                self._pieces = _pieces(shaped)

    def finish(self) -> bytes:
        """What stands behind the last row."""
        return self._encoder.end()

    def close(self) -> None:
        """End the statement."""
        reader, self._reader = self._reader, None
        if reader is not None:
            reader.close()

    def _begin(self, connection: duckdb.DuckDBPyConnection) -> None:
        self.page.begin_statement()
        sql, values = self._waiting.pop(0)
        connection.abort()  # a page that was full left rows behind
        # Of a relation, the engine gives its rows as they come; of a cursor it would keep a copy of all of them.
        self._reader = connection.sql(sql, params=values or None).to_arrow_reader(_BATCH_ROWS)

    def _next_batch(self, connection: duckdb.DuckDBPyConnection) -> Any:
        while True:
            try:
                return self._reader.read_next_batch()
            except StopIteration:
                if not self._waiting:
                    return None
            except (pa.ArrowException, OSError):
                # The engine's own error does not come through the stream.
                raise query_failed(
                    "invalid_value",
                    "The database failed while it read the rows",
                    hint="Request application/x-ndjson: its error has the details.",
                ) from None
            self.close()
            self._begin(connection)

    def _tail(self, columns: Sequence[Any], row: int) -> tuple[Any, ...]:
        values = [column[row].as_py() for column in columns]
        shows = [self._shows[at] for at in self.page.positions]
        return tuple(
            value if value is None or show is None else show(value) for value, show in zip(values, shows, strict=True)
        )

    def _shaped(self, batch: Any) -> Any:
        arrays = []
        for number, column in enumerate(self._output):
            try:
                arrays.append(_array(batch.column(number), column, self._schema.field(number).type))
            except (pa.ArrowException, ValueError, OverflowError):
                raise not_representable(column.name, self._execution.format.value) from None
        return pa.record_batch(arrays, schema=self._schema)


def _pieces(batch: Any) -> Iterator[Any]:
    """The batch in pieces of about `ARROW_BATCH_BYTES`."""
    rows = max(1, batch.num_rows * limits.ARROW_BATCH_BYTES // max(1, batch.nbytes))
    for at in range(0, batch.num_rows, rows):
        yield batch.slice(at, rows)


def _array(array: Any, column: PlanColumn, type: Any) -> Any:
    if not column.is_list:
        return _values(array, column.type, type)
    values = _values(array.values, column.type, type.value_type)
    mask = array.is_null() if array.null_count else None
    return pa.ListArray.from_arrays(array.offsets, values, type=type, mask=mask)


def _values(array: Any, field_type: FieldType, type: Any) -> Any:
    if isinstance(type, pa.BaseExtensionType):
        return pa.ExtensionArray.from_storage(type, array.cast(type.storage_type))
    if field_type is FieldType.TIME and len(array):
        latest = pc.max(array.cast(pa.time64("us")).view(pa.int64())).as_py()
        if latest is not None and latest >= _DAY_MICROSECONDS:
            raise ValueError("24:00 is no time of Arrow's")
    return array if array.type == type else array.cast(type)


def _declared(column: PlanColumn, type: ColumnType | None) -> Declared:
    if type is None:
        return Declared()
    if column.type is FieldType.TIMESTAMP:
        return Declared(has_zone=type.name == "TIMESTAMP WITH TIME ZONE")
    if column.type is FieldType.DECIMAL and type.name == "DECIMAL" and not type.is_list:
        precision, scale = map(int, type.arguments.split(","))
        return Declared(precision=precision, scale=scale)
    return Declared()
