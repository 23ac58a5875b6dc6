"""One plan on one session of the bulk path, from its first statement to its last byte. Blocks: called in a thread."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from lensway.bridges.contract import Execution
from lensway.bridges.encoding.arrow import BatchEncoder, batch_encoder, check_row_sizes
from lensway.bridges.encoding.arrow_types import schema_of
from lensway.bridges.encoding.text import csv_header
from lensway.bridges.kit.failures import row_too_large
from lensway.bridges.kit.page_end import PageOfBatches, Tail
from lensway.bridges.postgres.bulk.adbc import Session
from lensway.bridges.postgres.bulk.arrow import bulk_column, declared_type, shaped
from lensway.bridges.postgres.bulk.sql import (
    TEXT_FORMATS,
    BulkColumn,
    batches_sql,
    csv_sql,
    objects_sql,
    spelled,
    with_values,
)
from lensway.bridges.postgres.transaction import (
    ADVISORY_LOCKS,
    PREPARED,
    begin_sql,
    end_sql,
    step_sql,
    timeout_seconds,
)
from lensway.bridges.postgres.types import ENUM, NamedTypes
from lensway.bridges.postgres.values import column_mismatch
from lensway.dialects.compile import Compiled
from lensway.errors import LenswayError
from lensway.query.plan import Plan
from lensway.query.result import RowFormat

_AROUND: Final = {RowFormat.JSON: ",", RowFormat.NDJSON: "\n", RowFormat.CSV: "\r\n"}
"""What separates rows of text from each other: before each in JSON, behind each in lines."""
_ABOUT_SESSION: Final = (
    f"SELECT pg_catalog.pg_backend_pid(), ({ADVISORY_LOCKS}) > 0,"  # noqa: S608 - made of our own texts
    " (1000 * extract(epoch FROM pg_catalog.current_setting('statement_timeout')::pg_catalog.interval))::pg_catalog.int8,"
    f" {PREPARED}"
)


class UnknownTypeError(Exception):
    """The driver does not know this type. ``mismatch`` is what to say when it never will."""

    def __init__(self, oid: int, mismatch: LenswayError) -> None:
        super().__init__(oid)
        self.oid = oid
        self.mismatch = mismatch


class Piece(NamedTuple):
    """Encoded rows, and how many."""

    rows: int
    data: bytes


class BulkJob:
    """Runs a plan: `begin`, `start`, then `next` until None, then `finish`."""

    def __init__(self, session: Session, compiled: Compiled, plan: Plan, execution: Execution) -> None:
        self._session = session
        self._compiled = compiled
        self._plan = plan
        self._execution = execution
        self._output = compiled.columns[: compiled.output_count]
        self._has_rows = False
        self._encoder: BatchEncoder | None = None
        self._schema: Any = None
        self._unlocks = False
        self._prepared: Sequence[str] = ()
        is_csv = execution.format is RowFormat.CSV
        self._header = csv_header([column.name for column in self._output]) if is_csv else b""
        self._page = PageOfBatches(compiled, page_rows=plan.limit, is_offset=bool(plan.offset))
        self._waiting: list[str] = []
        self.last_key: tuple[object, ...] | None = None
        self.row_id: int | None = None
        self.total: int | None = None
        self.own_timeout_ms = 0
        """The statement timeout that the database sets for the login, where it is stricter than ours."""

    @property
    def has_more(self) -> bool:
        """True once a row behind the page was seen."""
        return self._page.has_more

    def begin(self) -> int:
        """Begin the transaction; the pid of the backend that it runs in. Raises SessionError."""
        # COPY is one statement to its end, however slowly it is read: its timeout is the deadline. Whether a pooler gives this
        # connection another session for each transaction does not matter: everything is set in here, and nothing outside.
        seconds = timeout_seconds(self._execution.deadline)
        has_steps = self._compiled.count_sql is not None
        self._session.command(begin_sql(seconds, is_shared=True, has_steps=has_steps, is_own_known=False))
        backend_pid, has_locks, timeout_ms, self._prepared = self._session.row(_ABOUT_SESSION)
        self.own_timeout_ms = timeout_ms if timeout_ms < seconds * 1000 else 0
        self._unlocks = not has_locks
        return int(backend_pid)

    def start(self) -> None:
        """Begin the statement. Raises SessionError, LenswayError type_mismatch."""
        session, compiled = self._session, self._compiled
        columns = self._columns(session.schema(compiled.sql))
        statements = [self._with_values(sql, values) for sql, values in compiled.statements(self._plan)]
        self._waiting = [self._wrapped(statement, columns) for statement in statements]
        self._stream()

    def _wrapped(self, statement: str, columns: Sequence[BulkColumn]) -> str:
        row_bytes, count = self._execution.limits.row_bytes_max, self._compiled.output_count
        match self._execution.format:
            case RowFormat.JSON:
                return objects_sql(statement, columns, count, row_bytes, before=_AROUND[RowFormat.JSON], behind="")
            case RowFormat.NDJSON:
                return objects_sql(statement, columns, count, row_bytes, before="", behind=_AROUND[RowFormat.NDJSON])
            case RowFormat.CSV:
                return csv_sql(statement, columns, count, row_bytes)
            case _:
                return batches_sql(statement, columns, count, self._page.positions, row_bytes)

    def _stream(self) -> None:
        """Begin the next statement."""
        self._page.begin_statement()
        # In front: behind it, the comment would swallow what the driver puts around the statement.
        self._session.stream(f"/* lensway {self._execution.tag.replace('*', '')} */ {self._waiting.pop(0)}")

    def _next_batch(self) -> Any:
        while (batch := self._session.next_batch()) is None:
            if not self._waiting:
                return None
            self._stream()
        return batch

    def next(self) -> Piece | None:
        """The next rows, or None behind the last ones. Raises SessionError, and LenswayError as `RowWriter` does."""
        while not self.has_more and (batch := self._next_batch()) is not None:
            columns = batch.columns[len(self._output) :]
            count = self._page.take(batch.num_rows, functools.partial(_tail, columns))
            if count < batch.num_rows:
                batch = batch.slice(0, count)
            if batch.num_rows:
                return Piece(batch.num_rows, self._encoded(batch))
        return None

    def finish(self) -> bytes:
        """What stands behind the last row; the session can be used again. Raises SessionError."""
        while self.has_more and self._session.is_streaming and self._session.next_batch() is not None:
            pass  # at most one row
        self.last_key, self.row_id = self._page.key()
        if self._compiled.count_sql is not None:
            self._session.command(step_sql(timeout_seconds(self._execution.deadline), is_own_known=False))
            sql = self._with_values(self._compiled.count_sql, self._compiled.bind_count(self._plan))
            self.total = self._session.row(sql)[0]
        prepared = set(self._session.row(f"SELECT {PREPARED}")[0]) - set(self._prepared)
        self._session.command(end_sql(unlocks=self._unlocks, prepared=sorted(prepared)))
        return self._take_header() if self._encoder is None else self._encoder.end()

    def _take_header(self) -> bytes:
        header, self._header = self._header, b""
        return header

    def _columns(self, schema: Any) -> Sequence[BulkColumn]:
        fields = list(schema)
        columns = self._resolved([bulk_column(*each) for each in zip(self._compiled.columns, fields, strict=True)])
        for column in columns:
            if not column.fits():
                shown = column.type_name + ("[]" if column.is_list else "")
                mismatch = column_mismatch(column.declared, ENUM if column.is_enum else column.type_name, shown)
                raise mismatch if column.unknown_type is None else UnknownTypeError(column.unknown_type, mismatch)
        if self._execution.format not in TEXT_FORMATS:
            declared_types = [declared_type(*each) for each in zip(columns, fields, strict=True)]
            self._schema = schema_of(self._output, declared_types[: len(self._output)])
            self._encoder = batch_encoder(self._execution.format, self._schema)
        return columns

    def _resolved(self, columns: list[BulkColumn]) -> list[BulkColumn]:
        """The columns with what the catalog says of those that the driver is not certain of."""
        asked = [each for each in columns if not each.is_certain]
        if not asked:
            return columns
        oids = [each.unknown_type for each in asked if each.unknown_type is not None]
        names = [each.type_name for each in asked if each.unknown_type is None]
        types = NamedTypes.looked_up(self._session, oids, names)
        return [each if each.is_certain else each.resolved(types) for each in columns]

    def _with_values(self, sql: str, values: Sequence[object]) -> str:
        if not values:
            return sql
        asked = ", ".join(f"quote_nullable(${number + 1}::text)" for number in range(len(values)))
        literals = self._session.row(f"SELECT {asked}", [spelled(value) for value in values])
        return with_values(sql, literals)

    def _text(self, column: Any) -> bytes:
        row_bytes = self._execution.limits.row_bytes_max
        text, longest = _joined(column)
        if longest - len(_AROUND[self._execution.format]) > row_bytes:
            raise row_too_large(row_bytes)
        is_first, self._has_rows = not self._has_rows, True
        return text[1:] if is_first and self._execution.format is RowFormat.JSON else text

    def _encoded(self, batch: Any) -> bytes:
        row_bytes = self._execution.limits.row_bytes_max
        if self._encoder is None:
            return self._take_header() + self._text(batch.column(0))
        made = shaped(batch, self._schema, self._output, self._execution.format.value)
        check_row_sizes(made, row_bytes)
        return self._encoder.batch(made)


def _tail(columns: Sequence[Any], row: int) -> Tail:
    return tuple(column[row].as_py() for column in columns)


def _joined(texts: Any) -> tuple[bytes, int]:
    """The texts of a column, one behind the other, and the length of the longest: they are the bytes of its buffer."""
    _, offsets, data = texts.buffers()
    ends = pa.Array.from_buffers(pa.int32(), len(texts) + 1, [None, offsets], offset=texts.offset)
    start, stop = ends[0].as_py(), ends[len(texts)].as_py()
    joined: bytes = data.slice(start, stop - start).to_pybytes()
    return joined, pc.max(pc.binary_length(texts)).as_py()
