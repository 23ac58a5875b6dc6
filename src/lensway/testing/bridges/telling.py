"""The part of the suite about what a source tells: failures, the connection test, introspection; and that it never writes."""

# ruff: noqa: D102  # the name of a test says what it asserts

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import ClassVar, Final

import pytest

from lensway.bridges.contract import AddressPolicy, Bridge, OpenSource
from lensway.bridges.contract import Stage as TestStage
from lensway.errors import ErrorCode, LenswayError
from lensway.query.fields import FieldType, LensDefinition
from lensway.query.planner import plan_probe
from lensway.query.result import RowFormat
from lensway.testing.bridges.bench import ID, NOTE, SECONDS, Bench, lens
from lensway.testing.bridges.stage import FAILING, Column, Failure, Situation, Stage

_CANARY: Final = "Canary"
"""Stages put it into what they have the bridge use: no failure shows it."""
_OF_QUERIES: Final = frozenset(
    {Situation.UNKNOWN_TABLE, Situation.UNKNOWN_COLUMN, Situation.WRONG_TYPE, Situation.NO_PERMISSION}
)


class TellingTests:
    """Failures, reports and descriptions."""

    stage_class: ClassVar[type[Stage]]

    @classmethod
    def bridge(cls) -> Bridge:
        """Overridden by the suite."""
        raise NotImplementedError

    @classmethod
    async def open_source(cls, config: Mapping[str, object]) -> OpenSource:
        """Overridden by the suite."""
        raise NotImplementedError

    # --- failures ---------------------------------------------------------------------------------------------------------

    def test_a_failure_has_its_code_and_class_and_shows_nothing(self, bench: Bench, situation: Situation) -> None:
        failure, definition = self._brought_about(bench, situation)

        async def ask() -> LenswayError:
            source = bench.source
            if failure.config is not None:
                source = await self.open_source(failure.config)
            with pytest.raises(LenswayError) as error:
                await bench.answer(bench.page(definition).plan, source=source)
            if failure.stage is not None:
                with pytest.raises(LenswayError) as probed:
                    await source.probe(deadline=time.monotonic() + SECONDS)
                assert probed.value.failure.details == error.value.failure.details
            if source is not bench.source:
                await source.close()
            return error.value

        error = bench.run(ask())
        details = error.failure.details
        assert (error.code, details["class"], details.get("stage")) == (
            failure.code,
            failure.cause,
            failure.stage and failure.stage.value,
        )
        assert error.failure.message
        if situation is Situation.WRONG_TYPE:
            assert details["field"] == "note"
        assert error.failure.hint, "a failure says what to do"
        assert error.__cause__ is None, "the driver's error does not travel along"
        assert _CANARY not in f"{error.failure}{error}"

    def test_the_connection_test_stops_at_the_stage_that_fails(self, bench: Bench, situation: Situation) -> None:
        failure, definition = self._brought_about(bench, situation)

        async def test() -> None:
            source = bench.source
            if failure.config is not None:
                source = await self.open_source(failure.config)
            report = await source.test([plan_probe(definition)], deadline=time.monotonic() + SECONDS)
            if source is not bench.source:
                await source.close()
            assert [each.stage for each in report.stages] == list(TestStage)
            # A probe reads no row, so a value of the wrong type may stay unseen; a wrong type of the column may not.
            if situation is Situation.WRONG_TYPE and report.ok:
                return
            assert not report.ok
            failed = failure.stage or TestStage.LENSES
            at = list(TestStage).index(failed)
            found = report.stages[at]
            assert (found.ok, found.error) == (False, failure.cause)
            assert found.hint
            assert all(each.ok is not False for each in report.stages[:at])
            assert all(each.ok is None for each in report.stages[at + 1 :])
            assert _CANARY not in str(report)

        bench.run(test())

    def test_every_situation_is_brought_about_or_declared_as_lacking(self) -> None:
        assert {Situation.UNKNOWN_TABLE, Situation.UNKNOWN_COLUMN, Situation.WRONG_TYPE}.isdisjoint(
            self.stage_class.lacks
        )
        assert all(reason for reason in self.stage_class.lacks.values())

    def test_a_format_that_is_not_for_rows_is_refused(self, bench: Bench) -> None:
        definition = lens(bench.series(10, 5), (ID, NOTE))
        with pytest.raises(LenswayError) as error:
            bench.ask(bench.page(definition).plan, RowFormat.DOCUMENT)
        assert error.value.code is ErrorCode.NOT_ACCEPTABLE

    @staticmethod
    def _brought_about(bench: Bench, situation: Situation) -> tuple[Failure, LensDefinition]:
        """The failure of this situation, and the lens that runs into it."""
        failure = bench.run(bench.stage.failure(situation))

        async def make(name: str) -> None:
            await bench.stage.create_table(name, (ID, NOTE), [[1, "x"]])

        bench.made(FAILING, make)
        if failure.statements:
            bench.run(bench.stage.execute(*failure.statements))
        note = Column(name="note", type=FieldType.TIMESTAMP if situation is Situation.WRONG_TYPE else FieldType.TEXT)
        columns = (
            ID,
            note,
            *((Column(name="ghost", type=FieldType.TEXT),) if situation is Situation.UNKNOWN_COLUMN else ()),
        )
        return failure, lens("ghost" if situation is Situation.UNKNOWN_TABLE else FAILING, columns)

    # --- settings ---------------------------------------------------------------------------------------------------------

    def test_an_unknown_setting_is_refused_by_name(self, bench: Bench) -> None:
        bridge = self.bridge()
        bridge.check_config(bench.stage.config, policy=AddressPolicy())
        with pytest.raises(LenswayError) as error:
            bridge.check_config({**bench.stage.config, "no_such_setting": "Canary"}, policy=AddressPolicy())
        assert error.value.code is ErrorCode.INVALID_REQUEST
        assert "no_such_setting" in str(error.value.failure)
        assert _CANARY not in str(error.value.failure)

    def test_the_bridge_is_of_its_kind_and_its_driver_has_a_version(self) -> None:
        bridge = self.bridge()
        assert bridge.kind == self.stage_class.kind.name
        assert bridge.driver_version()

    # --- read-only --------------------------------------------------------------------------------------------------------

    def test_a_login_that_may_write_is_kept_from_writing(self, bench: Bench) -> None:
        counted: list[str | None] = []

        async def make(name: str) -> None:
            counted.append(await bench.stage.create_writing_view(name))

        view = bench.made("writing_view", make)

        async def test() -> None:
            source = await self.open_source(bench.stage.writer_config)
            report = await source.test([], deadline=time.monotonic() + SECONDS)
            assert {each.stage: each.ok for each in report.stages}[TestStage.READ_ONLY] is True
            if counted[0] is not None:
                for is_export in (False, True):
                    plan = bench.export(lens(view, (ID,))) if is_export else bench.page(lens(view, (ID,))).plan
                    with pytest.raises(LenswayError) as error:
                        await bench.answer(plan, source=source, is_export=is_export)
                    assert error.value.code is ErrorCode.SOURCE_QUERY_FAILED
                    assert await bench.stage.fetch(counted[0]) == [(0,)], "nothing was written"
            await source.close()

        bench.run(test())

    # --- the connection test ----------------------------------------------------------------------------------------------

    def test_the_connection_test_proves_every_stage(self, bench: Bench) -> None:
        definition = lens(bench.series(10, 5), (ID, NOTE))
        report = bench.run(bench.source.test([plan_probe(definition)], deadline=time.monotonic() + SECONDS))
        assert [each.stage for each in report.stages] == list(TestStage)
        skipped = bench.stage.skipped_stages
        assert {each.stage: each.ok for each in report.stages} == {
            stage: None if stage in skipped else True for stage in TestStage
        }
        assert report.ok
        assert report.server_version
        bench.run(bench.source.probe(deadline=time.monotonic() + SECONDS))

    def test_a_connection_test_without_time_reports_a_failure(self, bench: Bench) -> None:
        report = bench.run(bench.source.test([], deadline=time.monotonic() - 1))
        assert not report.ok
        assert any(each.ok is False and each.error == "timeout" for each in report.stages) or any(
            each.error == ErrorCode.QUERY_TIMEOUT.value for each in report.stages
        )

    # --- introspection ----------------------------------------------------------------------------------------------------

    def test_introspection_shows_every_column_as_a_lens_would_declare_it(self, bench: Bench) -> None:
        stage = bench.stage
        columns = _columns(stage)

        async def make(name: str) -> None:
            await stage.create_table(name, columns, [])

        table = stage.described_name(bench.made("described", make))
        found = bench.run(bench.source.table(table, deadline=time.monotonic() + SECONDS))
        assert (found.name, found.kind) == (table, "table")
        assert [(each.name, each.type, each.is_list, each.nullable, each.primary_key) for each in found.columns] == [
            (each.name, stage.described_as(each), each.is_list, each.nullable, each.primary_key) for each in columns
        ]
        assert all(each.database_type for each in found.columns if each.type is not None)

    def test_introspection_lists_tables_and_views_under_names_that_lenses_can_use(self, bench: Bench) -> None:
        bench.slow()
        series = bench.stage.described_name(bench.series(10, 5))
        found = bench.run(bench.source.tables(deadline=time.monotonic() + SECONDS))
        kinds: Mapping[str, str] = {each.name: each.kind for each in found}
        assert len(kinds) == len(found), "a table is listed once"
        assert kinds[series] == "table"
        assert kinds[bench.stage.described_name("slow_view")] == "view"
        assert len(bench.rows(lens(series, (ID, NOTE)))) == 10

    def test_a_table_that_is_not_there_is_not_found(self, bench: Bench) -> None:
        with pytest.raises(LenswayError) as error:
            bench.run(bench.source.table(bench.stage.described_name("ghost"), deadline=time.monotonic() + SECONDS))
        assert error.value.code is ErrorCode.NOT_FOUND


def _columns(stage: Stage) -> list[Column]:
    """A column of every type, nullable and not, and lists where the database has them."""
    columns = [ID]
    for type in FieldType:
        if type in stage.types:
            columns.append(Column(name=f"{type.value} a", type=type))
            columns.append(Column(name=f"{type.value}_b", type=type, nullable=False))
            if stage.capabilities().has_lists:
                columns.append(Column(name=f"{type.value}_l", type=type, is_list=True))
    return columns
