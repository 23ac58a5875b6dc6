"""The part of the suite about statements that run: limits, memory, deadlines, cancel, close."""

# ruff: noqa: D102  # the name of a test says what it asserts

from __future__ import annotations

import asyncio
import gc
import pathlib
import time
from collections.abc import Mapping
from typing import ClassVar, Final

import psutil
import pytest

from lensway.bridges.contract import OpenSource
from lensway.errors import ErrorCode, LenswayError
from lensway.query.result import RowFormat
from lensway.testing.bridges.bench import Answer, Bench, Sink, series_lens
from lensway.testing.bridges.stage import Stage

_ROWS: Final = 3_000
_LARGE_ROWS: Final = 65_536
_LARGE_TEXT_BYTES: Final = 1_000
_CANCEL_SECONDS_MAX: Final = 0.25
_LATE_SECONDS_MAX: Final = 1.0
_RUNS: Final = [
    pytest.param(RowFormat.JSON, False, id="page"),
    pytest.param(RowFormat.NDJSON, True, id="export"),
    pytest.param(RowFormat.ARROW, True, id="arrow"),
]


class RunningTests:
    """Bounds, time and the end of statements."""

    stage_class: ClassVar[type[Stage]]

    @classmethod
    async def open_source(cls, config: Mapping[str, object]) -> OpenSource:
        """Overridden by the suite."""
        raise NotImplementedError

    async def is_gone(self, stage: Stage) -> bool:
        """Whether the database works on no statement any more, now that `run` has ended. Override it where that takes a way."""
        return not await stage.is_executing()

    # --- limits -----------------------------------------------------------------------------------------------------------

    @pytest.mark.parametrize(
        ("bound", "code"),
        [
            ({"rows_max": _ROWS - 1}, ErrorCode.LIMIT_EXCEEDED),
            ({"bytes_max": 10_000}, ErrorCode.LIMIT_EXCEEDED),
            ({"row_bytes_max": 10}, ErrorCode.ROW_TOO_LARGE),
        ],
        ids=["rows", "bytes", "row bytes"],
    )
    @pytest.mark.parametrize("format", [RowFormat.NDJSON, RowFormat.CSV, RowFormat.ARROW])
    def test_a_limit_fails_the_result_and_never_shortens_it(
        self, bench: Bench, format: RowFormat, bound: dict[str, int], code: ErrorCode
    ) -> None:
        definition = series_lens(bench.series(_ROWS, 20))
        with pytest.raises(LenswayError) as error:
            bench.ask(bench.export(definition), format, is_export=True, **bound)
        assert error.value.code is code
        assert bench.ask(bench.export(definition), format, is_export=True).end.rows == _ROWS, "the source still serves"

    def test_a_result_of_just_the_limit_is_complete(self, bench: Bench) -> None:
        definition = series_lens(bench.series(_ROWS, 20))
        plan = bench.export(definition)
        size = bench.ask(plan, RowFormat.NDJSON, is_export=True).end.bytes
        bounds = {"rows_max": _ROWS, "bytes_max": size, "row_bytes_max": 100}
        assert bench.ask(plan, RowFormat.NDJSON, is_export=True, **bounds).end.rows == _ROWS
        with pytest.raises(LenswayError) as error:
            bench.ask(plan, RowFormat.NDJSON, is_export=True, **bounds | {"bytes_max": size - 1})
        assert error.value.code is ErrorCode.LIMIT_EXCEEDED

    @pytest.mark.parametrize("format", [RowFormat.NDJSON, RowFormat.CSV, RowFormat.ARROW])
    def test_a_large_result_passes_through_in_bounded_memory(self, bench: Bench, format: RowFormat) -> None:
        definition = series_lens(bench.series(_LARGE_ROWS, _LARGE_TEXT_BYTES))
        plan = bench.export(definition)
        bench.ask(bench.export(definition, where={"id": 1}), format, is_export=True)  # imports are not the result's
        sink = _Forgetful()
        gc.collect()
        before = psutil.Process().memory_info().rss
        pathlib.Path("/proc/self/clear_refs").write_text("5")
        end = bench.ask(plan, format, is_export=True, sink=sink).end
        assert (end.rows, end.bytes) == (_LARGE_ROWS, sink.bytes)
        assert end.bytes > _LARGE_ROWS * _LARGE_TEXT_BYTES
        assert _peak() - before < bench.stage.memory_bytes_max

    # --- deadlines --------------------------------------------------------------------------------------------------------

    @pytest.mark.parametrize(("format", "is_export"), _RUNS)
    def test_a_deadline_ends_the_statement_in_the_database(
        self, bench: Bench, format: RowFormat, is_export: bool
    ) -> None:
        slow = bench.slow()
        plan = bench.export(slow) if is_export else bench.page(slow).plan

        async def ask() -> float:
            started = time.monotonic()
            with pytest.raises(LenswayError) as error:
                await bench.answer(plan, format, is_export=is_export, seconds=0.3)
            assert error.value.code is ErrorCode.QUERY_TIMEOUT
            late = time.monotonic() - started - 0.3
            assert await self.is_gone(bench.stage)
            return late

        assert bench.run(ask()) < _LATE_SECONDS_MAX
        _still_serves(bench)

    def test_a_deadline_in_the_past_ends_a_statement_at_once(self, bench: Bench) -> None:
        slow = bench.slow()
        started = time.monotonic()
        with pytest.raises(LenswayError) as error:
            bench.ask(bench.page(slow).plan, seconds=-1.0)
        assert error.value.code is ErrorCode.QUERY_TIMEOUT
        assert time.monotonic() - started < _LATE_SECONDS_MAX
        assert bench.run(self.is_gone(bench.stage))
        _still_serves(bench)

    @pytest.mark.parametrize("format", [RowFormat.NDJSON, RowFormat.ARROW])
    def test_a_reader_that_takes_nothing_stops_the_source_until_the_deadline(
        self, bench: Bench, format: RowFormat
    ) -> None:
        definition = series_lens(bench.series(_LARGE_ROWS, _LARGE_TEXT_BYTES))
        sink = _Stalled()
        started = time.monotonic()
        with pytest.raises(LenswayError) as error:
            bench.ask(bench.export(definition), format, is_export=True, sink=sink, seconds=0.5)
        assert error.value.code is ErrorCode.QUERY_TIMEOUT
        assert time.monotonic() - started < 0.5 + _LATE_SECONDS_MAX
        assert len(sink.chunks) == 1, "nothing is written before the last write has returned"
        _still_serves(bench)

    # --- cancel -----------------------------------------------------------------------------------------------------------

    @pytest.mark.parametrize(("format", "is_export"), _RUNS)
    def test_i7_a_cancelled_statement_is_gone_from_the_database(
        self, bench: Bench, format: RowFormat, is_export: bool
    ) -> None:
        slow = bench.slow()
        plan = bench.export(slow) if is_export else bench.page(slow).plan

        async def cancel() -> float:
            task = asyncio.create_task(bench.answer(plan, format, is_export=is_export))
            await _executing(bench.stage, task)
            started = time.monotonic()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            took = time.monotonic() - started
            assert await self.is_gone(bench.stage), "the statement ends before `run` does"
            return took

        assert bench.run(cancel()) < _CANCEL_SECONDS_MAX
        _still_serves(bench)

    @pytest.mark.parametrize("format", [RowFormat.NDJSON, RowFormat.ARROW])
    def test_a_stream_that_is_cancelled_midway_ends_and_the_source_serves_on(
        self, bench: Bench, format: RowFormat
    ) -> None:
        definition = series_lens(bench.series(_LARGE_ROWS, _LARGE_TEXT_BYTES))

        async def cancel() -> None:
            sink = _Stalled()
            task = asyncio.create_task(bench.answer(bench.export(definition), format, is_export=True, sink=sink))
            await asyncio.wait({task, asyncio.create_task(sink.reached.wait())}, return_when="FIRST_COMPLETED")
            assert not task.done()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert await self.is_gone(bench.stage)

        bench.run(cancel())
        _still_serves(bench)

    def test_a_cancel_ends_no_statement_but_its_own(self, bench: Bench) -> None:
        slow, definition = bench.slow(), series_lens(bench.series(_ROWS, 20))

        async def cancel() -> list[Answer]:
            task = asyncio.create_task(bench.answer(bench.page(slow).plan))
            await _executing(bench.stage, task)
            others = [
                asyncio.create_task(bench.answer(bench.page(definition, offset=at, limit=500).plan)) for at in range(6)
            ]
            await asyncio.sleep(0)
            task.cancel()
            await asyncio.wait({task})
            assert task.cancelled()
            return await asyncio.gather(*others)

        assert [answer.end.rows for answer in bench.run(cancel())] == [500] * 6

    # --- close ------------------------------------------------------------------------------------------------------------

    def test_close_ends_idle_connections_now_and_the_others_with_their_jobs(self, bench: Bench) -> None:
        slow, definition = bench.slow(), series_lens(bench.series(_LARGE_ROWS, _LARGE_TEXT_BYTES))

        async def gone() -> None:
            give_up = time.monotonic() + bench.stage.notices_seconds
            while await bench.stage.is_connected():
                assert time.monotonic() < give_up, "no connection stays behind"
                await asyncio.sleep(0.005)

        async def close() -> None:
            source = await self.open_source(bench.stage.config)
            assert not await bench.stage.is_connected(), "connections are made when they are needed"
            assert (await bench.answer(bench.page(definition, limit=1).plan, source=source)).end.rows == 1
            assert await bench.stage.is_connected()
            await source.close()
            await gone()
            source = await self.open_source(bench.stage.config)
            sink = _Stalled()
            stream = asyncio.create_task(
                bench.answer(bench.export(definition), RowFormat.NDJSON, is_export=True, sink=sink, source=source)
            )
            endless = asyncio.create_task(bench.answer(bench.page(slow).plan, source=source))
            await sink.reached.wait()
            await _executing(bench.stage, endless)
            await source.close()
            sink.released.set()
            assert (await stream).end.rows == _LARGE_ROWS, "a job that runs is complete"
            endless.cancel()
            await asyncio.wait({endless})
            assert not await bench.stage.is_executing()
            await gone()

        async def reopen() -> None:
            bench.source = await self.open_source(bench.stage.config)

        bench.run(bench.source.close())  # so that no other connection is counted
        try:
            bench.run(close())
        finally:
            bench.run(reopen())
        _still_serves(bench)


class _Forgetful:
    """A reader that keeps nothing and lets others run."""

    def __init__(self) -> None:
        self.bytes = 0

    async def write(self, chunk: bytes) -> None:
        self.bytes += len(chunk)
        await asyncio.sleep(0)


class _Stalled(Sink):
    """A reader that takes one chunk, and nothing more until it is released."""

    def __init__(self) -> None:
        super().__init__()
        self.reached = asyncio.Event()
        self.released = asyncio.Event()

    async def write(self, chunk: bytes) -> None:
        await super().write(chunk)
        self.reached.set()
        await self.released.wait()


async def _executing(stage: Stage, task: asyncio.Task[Answer]) -> None:
    """Wait until the database works on the statement of this task."""
    while not await stage.is_executing():
        assert not task.done(), task
        await asyncio.sleep(0.005)


def _still_serves(bench: Bench) -> None:
    definition = series_lens(bench.series(_ROWS, 20))
    assert [row["id"] for row in bench.rows(definition, limit=3)] == [1, 2, 3]


def _peak() -> int:
    """The most that this process has held since its peak was forgotten."""
    status = pathlib.Path("/proc/self/status").read_text()
    return next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmHWM"))
