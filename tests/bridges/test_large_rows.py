"""I8: a row that is large because it has many values is bounded as one large value is, before anybody holds it."""

from __future__ import annotations

import asyncio
import contextlib
import pathlib
import sqlite3
import time

import psutil
import pytest

from lensway import limits
from lensway.api.shapes import ExportRequest
from lensway.bridges.contract import AddressPolicy, Execution
from lensway.bridges.library import ExecutionLibrary
from lensway.dialects.registry import capabilities_of
from lensway.errors import ErrorCode, LenswayError
from lensway.query.fields import Field, FieldType, LensDefinition
from lensway.query.planner import plan_export
from lensway.query.result import ResultEnd, ResultLimits, RowFormat

VALUES, VALUE_BYTES = 24, 4_000_000


class Sink:
    async def write(self, chunk: bytes) -> None:
        """Forget it."""


def made(path: pathlib.Path, count: int, value: str) -> pathlib.Path:
    """A file with one row of so many values."""
    columns = [f"c{number}" for number in range(count)]
    with contextlib.closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(f"CREATE TABLE wide (id INTEGER PRIMARY KEY, {', '.join(columns)})")
        connection.execute(f"INSERT INTO wide SELECT 1, {', '.join([value] * count)}")
    return path


async def ask(path: pathlib.Path, count: int, format: RowFormat, **request) -> ResultEnd:
    library = ExecutionLibrary(AddressPolicy())
    fields = {
        f"c{number}": Field(name=f"c{number}", column=f"c{number}", type=FieldType.TEXT) for number in range(count)
    }
    fields["id"] = Field(name="id", column="id", type=FieldType.INTEGER, primary_key=True)
    definition = LensDefinition(name="lens", table="wide", fields=fields)
    execution = Execution(
        deadline=time.monotonic() + 30,
        format=format,
        limits=ResultLimits(rows_max=10, bytes_max=limits.GIB, row_bytes_max=limits.ROW_BYTES_DEFAULT),
        tag="test/1",
        is_export=True,
    )
    plan = plan_export(definition, ExportRequest(**request), capabilities_of("sqlite")).encode()
    try:
        return await library.perform(
            "key", "sqlite", {"path": str(path)}, kind="export", payload=plan, execution=execution, sink=Sink()
        )
    finally:
        await library.close()


def grown() -> int:
    """The most that this process has held since its peak was forgotten, beyond what it holds now."""
    status = pathlib.Path("/proc/self/status").read_text()
    peak = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM"))
    return peak * 1024 - psutil.Process().memory_info().rss


@pytest.mark.parametrize("order", [{}, {"order_by": {"field": "c1"}}])
def test_a_row_of_96_mb_is_row_too_large_and_held_by_nobody(tmp_path: pathlib.Path, order: dict) -> None:
    path = made(tmp_path / "wide.db", VALUES, f"replace(hex(zeroblob({VALUE_BYTES // 2})), '0', 'x')")
    for format in (RowFormat.JSON, RowFormat.ARROW):
        pathlib.Path("/proc/self/clear_refs").write_text("5")
        with pytest.raises(LenswayError) as error:
            asyncio.run(ask(path, VALUES, format, **order))
        assert error.value.code is ErrorCode.ROW_TOO_LARGE
        assert grown() < 48 * limits.MIB
    assert asyncio.run(ask(path, VALUES, RowFormat.CSV, select=["id", "c1", "c2"])).rows == 1


def test_what_a_text_hides_behind_a_nul_counts_too(tmp_path: pathlib.Path) -> None:
    path = made(tmp_path / "hidden.db", 3, f"'x' || char(0) || hex(zeroblob({3 * limits.MIB}))")
    with pytest.raises(LenswayError) as error:
        asyncio.run(ask(path, 3, RowFormat.NDJSON))
    assert error.value.code is ErrorCode.ROW_TOO_LARGE


def test_as_many_columns_as_a_table_may_have_can_be_read(tmp_path: pathlib.Path) -> None:
    count = limits.FIELDS_PER_LENS_MAX - 1
    path = made(tmp_path / "columns.db", count, "'x'")
    assert asyncio.run(ask(path, count, RowFormat.NDJSON)).rows == 1
    assert asyncio.run(ask(path, count, RowFormat.NDJSON)).bytes > count
