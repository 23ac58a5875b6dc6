"""Record batches as an Arrow IPC stream or a Parquet file, and rows as record batches. Imports pyarrow."""

from __future__ import annotations

import datetime
import uuid
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Protocol

import pyarrow as pa
import pyarrow.parquet as pq

from lensway import limits
from lensway.bridges.encoding.arrow_types import Declared, schema_of
from lensway.bridges.kit.failures import not_representable, row_too_large
from lensway.errors import ErrorCode, LenswayError
from lensway.query.fields import FieldType, NestedColumn, PlanColumn
from lensway.query.result import RowFormat


class BatchEncoder(Protocol):
    """One format while it encodes the batches of one result."""

    def batch(self, batch: Any) -> bytes:
        """This batch, with what stands before the first one; may be empty while it is gathered."""

    def end(self) -> bytes:
        """The rest, and what stands behind it."""


def batch_encoder(format: RowFormat, schema: Any) -> BatchEncoder:
    """The encoder of a format that is made of batches."""
    if format is RowFormat.PARQUET:
        return ParquetFile(schema)
    return ArrowStream(schema, compression="zstd" if format is RowFormat.ARROW_ZSTD else None)


def flat(columns: Sequence[PlanColumn | NestedColumn], format: RowFormat) -> Sequence[PlanColumn]:
    """Return these columns if each holds plain values.

    Raises:
        LenswayError: NOT_ACCEPTABLE for a column that holds rows of its own.
    """
    found = [column for column in columns if isinstance(column, PlanColumn)]
    if len(found) == len(columns):
        return found
    nested = next(column.name for column in columns if isinstance(column, NestedColumn))
    raise LenswayError(
        ErrorCode.NOT_ACCEPTABLE,
        f"Rows with the relation '{nested}' inside are not available as {format.value}",
        hint="Ask for JSON or NDJSON, or leave the relation out.",
    )


class _Drain:
    """A file that is written to in memory and emptied after every batch."""

    closed = False

    def __init__(self) -> None:
        self._pieces: list[bytes] = []
        self._size = 0

    def write(self, data: Any) -> int:
        piece = bytes(data)
        self._pieces.append(piece)
        self._size += len(piece)
        return len(piece)

    def tell(self) -> int:
        return self._size

    def flush(self) -> None:
        pass

    def close(self) -> None:
        pass

    def writable(self) -> bool:
        return True

    def readable(self) -> bool:
        return False

    def seekable(self) -> bool:
        return False

    def take(self) -> bytes:
        pieces, self._pieces = self._pieces, []
        return b"".join(pieces)


class ArrowStream:
    """The Arrow IPC stream: schema, batches, end mark."""

    def __init__(self, schema: Any, *, compression: str | None) -> None:
        self._drain = _Drain()
        options = pa.ipc.IpcWriteOptions(compression=compression)
        self._writer = pa.ipc.new_stream(self._drain, schema, options=options)

    def batch(self, batch: Any) -> bytes:
        """The message of this batch, behind the schema when it is the first."""
        self._writer.write_batch(batch)
        return self._drain.take()

    def end(self) -> bytes:
        """The end mark; a reader that does not find it fails."""
        self._writer.close()
        return self._drain.take()


class ParquetFile:
    """A Parquet file, in row groups of a bounded size; compressed with zstd. The same rows give the same bytes."""

    def __init__(self, schema: Any) -> None:
        self._drain = _Drain()
        self._schema = schema
        self._writer = pq.ParquetWriter(self._drain, schema, compression="zstd")
        self._gathered: list[Any] = []
        self._size = 0

    def batch(self, batch: Any) -> bytes:
        """A row group once enough rows are gathered."""
        self._gathered.append(batch)
        self._size += batch.nbytes
        return self._group() if self._size >= limits.PARQUET_GROUP_BYTES else b""

    def end(self) -> bytes:
        """The last row group and the footer; without the footer it is no Parquet file."""
        rest = self._group() if self._gathered else b""
        self._writer.close()
        return rest + self._drain.take()

    def _group(self) -> bytes:
        table = pa.Table.from_batches(self._gathered, schema=self._schema)
        self._gathered, self._size = [], 0
        self._writer.write_table(table, row_group_size=max(1, table.num_rows))
        return self._drain.take()


class ArrowRows:
    """Rows of wire values, encoded as batches; for databases whose driver has no Arrow of its own."""

    def __init__(self, columns: Sequence[PlanColumn | NestedColumn], format: RowFormat) -> None:
        self._columns = flat(columns, format)
        columns = self._columns
        self._schema = schema_of(columns, [Declared()] * len(columns))
        self._format = format
        self._encoder = batch_encoder(format, self._schema)

    def rows(self, rows: Sequence[Sequence[Any]], row_bytes_max: int) -> bytes:
        """These rows. Raises LenswayError ROW_TOO_LARGE, SOURCE_QUERY_FAILED for a value that Arrow cannot hold."""
        arrays = [
            self._array(column, self._schema.field(number).type, [row[number] for row in rows])
            for number, column in enumerate(self._columns)
        ]
        batch = pa.record_batch(arrays, schema=self._schema)
        check_row_sizes(batch, row_bytes_max)
        return self._encoder.batch(batch)

    def end(self) -> bytes:
        """What stands behind the last row."""
        return self._encoder.end()

    def _array(self, column: PlanColumn, type: Any, values: list[Any]) -> Any:
        try:
            return _MAKERS[column.type](values, type)
        except (pa.ArrowException, ValueError, TypeError, OverflowError):
            raise not_representable(column.name, self._format.value) from None


def check_row_sizes(batch: Any, row_bytes_max: int) -> None:
    """Raises LenswayError ROW_TOO_LARGE when a row of the batch holds more bytes than that."""
    if batch.nbytes > row_bytes_max:
        for number in range(batch.num_rows):
            if batch.slice(number, 1).nbytes > row_bytes_max:
                raise row_too_large(row_bytes_max)


def _plain(values: list[Any], type: Any) -> Any:
    return pa.array(values, type)


def _doubles(values: list[Any], type: Any) -> Any:
    # Of a large integer, Arrow has the nearest double: it refuses to round one itself.
    return pa.array([None if value is None else float(value) for value in values], type)


def _parsed(values: list[Any], type: Any) -> Any:
    return pa.array(values, pa.utf8()).cast(type)


def _times(values: list[Any], type: Any) -> Any:
    return pa.array([None if value is None else datetime.time.fromisoformat(value) for value in values], type)


def _moments(values: list[Any], type: Any) -> Any:
    texts = pa.array([None if value is None else value.removesuffix("Z") for value in values], pa.utf8())
    return texts.cast(pa.timestamp(type.unit)).view(type)


def _uuids(values: list[Any], type: Any) -> Any:
    packed = [None if value is None else uuid.UUID(value).bytes for value in values]
    return pa.ExtensionArray.from_storage(type, pa.array(packed, type.storage_type))


def _documents(values: list[Any], type: Any) -> Any:
    texts = [None if value is None else bytes(value).decode() for value in values]
    return pa.ExtensionArray.from_storage(type, pa.array(texts, type.storage_type))


_MAKERS: Final[Mapping[FieldType, Callable[[list[Any], Any], Any]]] = {
    FieldType.TEXT: _plain,
    FieldType.INTEGER: _plain,
    FieldType.NUMBER: _doubles,
    FieldType.DECIMAL: _plain,
    FieldType.BOOLEAN: _plain,
    FieldType.DATE: _parsed,
    FieldType.TIME: _times,
    FieldType.TIMESTAMP: _moments,
    FieldType.UUID: _uuids,
    FieldType.JSON: _documents,
    FieldType.BYTES: _plain,
}
