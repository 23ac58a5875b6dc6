"""The part of the suite about rows: types in every encoding, NULLs, order, pages by cursor, against the query model."""

# ruff: noqa: D102  # the name of a test says what it asserts

from __future__ import annotations

import asyncio
import csv
import io
import json
import math
from typing import Any, ClassVar, Final

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lensway import limits
from lensway.errors import ErrorCode, LenswayError
from lensway.query.conditions import Operator
from lensway.query.fields import Field, FieldType, LensDefinition
from lensway.query.planner import plan_count
from lensway.query.result import RowFormat
from lensway.testing import query_model
from lensway.testing.bridges.bench import Bench, series_lens
from lensway.testing.bridges.cells import CELLS, REFUSED, Cell
from lensway.testing.bridges.stage import Column, Stage, quoted

TEXT_FORMATS: Final = (RowFormat.JSON, RowFormat.NDJSON, RowFormat.CSV)
ARROW_FORMATS: Final = (RowFormat.ARROW, RowFormat.ARROW_ZSTD, RowFormat.PARQUET)
FORMATS: Final = (*TEXT_FORMATS, *ARROW_FORMATS)
_ROWS: Final = 40
_MANY: Final = 3_000


class RowTests:
    """Encodings, the table of types, and the model."""

    stage_class: ClassVar[type[Stage]]
    condition_step: ClassVar[int] = 3
    """One in so many conditions of the model is asked: all of them with all values are asked in the tests of dialects."""

    # --- the table of types -----------------------------------------------------------------------------------------------

    def test_a_null_and_a_value_of_every_type_stand_in_the_cells(self) -> None:
        held = [cell for cell in CELLS if cell.key in self.stage_class.cells]
        assert len(held) == len(self.stage_class.cells), "every key of `Stage.cells` is that of a cell"
        for type in self.stage_class.types:
            of_type = [cell for cell in held if cell.type == type.value and not cell.is_list]
            assert any(cell.csv == "" for cell in of_type), f"{type} has a NULL"
            assert any(cell.csv != "" for cell in of_type), f"{type} has a value"

    @pytest.mark.parametrize("format", TEXT_FORMATS)
    def test_a_cell_as_text(self, bench: Bench, cell: Cell, format: RowFormat) -> None:
        body = _cell(bench, cell, format)
        if format is RowFormat.CSV:
            # A lone NULL is written as an empty text: an empty line is no record for many readers.
            shown = cell.csv or '""'
            assert body.decode() == f"c\r\n{shown}\r\n"
            assert len(list(csv.reader(io.StringIO(body.decode(), newline="")))) == 2
            return
        assert body == f'{{"c":{cell.json}}}'.encode() + (b"\n" if format is RowFormat.NDJSON else b"")
        json.loads(body)

    @pytest.mark.parametrize("format", ARROW_FORMATS)
    def test_a_cell_in_columns(self, bench: Bench, cell: Cell, format: RowFormat) -> None:
        empty = table_of(_cell(bench, cell, format, {"id": 7}), format)
        field = empty.schema.field("c")
        wanted = bench.stage.cells[cell.key].arrow_type or cell.arrow_type
        assert (empty.num_rows, str(field.type).replace("element:", "item:")) == (0, wanted)
        assert field.metadata[b"lensway:type"].decode() == cell.type
        if isinstance(cell.arrow, str) and cell.arrow == REFUSED:
            with pytest.raises(LenswayError) as error:
                _cell(bench, cell, format)
            assert error.value.code is ErrorCode.SOURCE_QUERY_FAILED
            assert error.value.failure.details["class"] == "not_representable"
            return
        table = table_of(_cell(bench, cell, format), format)
        assert table.schema.equals(empty.schema, check_metadata=True)
        assert _is_same(_stored(table.column("c")), cell.arrow)

    # --- many rows --------------------------------------------------------------------------------------------------------

    @pytest.mark.parametrize("is_export", [False, True], ids=["page", "export"])
    @pytest.mark.parametrize("format", FORMATS)
    def test_every_row_comes_once_in_order_in_every_encoding(
        self, bench: Bench, format: RowFormat, is_export: bool
    ) -> None:
        definition = series_lens(bench.series(_MANY, 20))
        plan = (
            bench.export(definition, order_by=[{"field": "id"}])
            if is_export
            else bench.page(definition, limit=_MANY).plan
        )
        answer = bench.ask(plan, format, is_export=is_export)
        assert _ids(answer.body, format) == list(range(1, _MANY + 1))
        assert (answer.end.rows, answer.end.bytes, answer.end.has_more) == (_MANY, len(answer.body), False)

    @pytest.mark.parametrize("format", FORMATS)
    def test_a_result_without_rows_is_complete_in_every_encoding(self, bench: Bench, format: RowFormat) -> None:
        definition = series_lens(bench.series(_MANY, 20))
        answer = bench.ask(bench.export(definition, where={"id": -1}), format, is_export=True)
        assert _ids(answer.body, format) == []
        assert (answer.end.rows, answer.end.bytes) == (0, len(answer.body))

    def test_a_page_and_an_export_are_the_same_bytes(self, bench: Bench) -> None:
        definition, _ = _things(bench)
        # Arrow has no time of day for 24:00; the cells say so.
        chosen = [name for name, field in definition.fields.items() if field.type is not FieldType.TIME]
        order = [{"field": "key_a", "dir": "desc"}, {"field": "key_b"}]
        page = bench.page(definition, order_by=order, limit=_ROWS, select=chosen).plan
        export = bench.export(definition, order_by=order, select=chosen)
        for format in (RowFormat.JSON, RowFormat.NDJSON, RowFormat.CSV, RowFormat.ARROW):
            paged = bench.ask(page, format).body
            exported = bench.ask(export, format, is_export=True).body
            if format is RowFormat.ARROW:
                paged, exported = _one_batch(paged), _one_batch(exported)
            assert paged == exported

    def test_questions_at_once_get_each_their_own_rows(self, bench: Bench) -> None:
        definition = series_lens(bench.series(_MANY, 20))

        async def ask() -> list[list[int]]:
            plans = [bench.page(definition, where={"id": {"$gt": at}}, limit=50).plan for at in range(0, 600, 50)]
            return [_ids(each.body, RowFormat.JSON) for each in await asyncio.gather(*map(bench.answer, plans))]

        assert bench.run(ask()) == [list(range(at + 1, at + 51)) for at in range(0, 600, 50)]

    # --- the model --------------------------------------------------------------------------------------------------------

    @pytest.mark.parametrize("direction", ["asc", "desc"])
    def test_every_type_is_ordered_with_its_nulls_where_they_belong(self, bench: Bench, direction: str) -> None:
        definition, rows = _things(bench)
        for field in definition.fields.values():
            if field.type is FieldType.JSON or field.is_list:
                continue
            order = [{"field": field.name, "dir": direction}]
            wanted = _keys(query_model.expected(rows, definition, None, order))
            assert _keys(bench.rows(definition, order_by=order, limit=_ROWS)) == wanted, order
            assert _keys(bench.walk(definition, order_by=order, limit=7)) == wanted, order

    def test_every_operator_holds_for_every_value_as_in_the_model(self, bench: Bench) -> None:
        definition, rows = _things(bench)
        special = bench.capabilities.has_special_values
        for number, where in enumerate(query_model.conditions(definition, has_special_values=special)):
            operation = next(iter(where.values()))
            assert isinstance(operation, dict)
            operator = next(iter(operation))[1:]
            if number % self.condition_step or operator not in bench.capabilities.operators:
                continue
            wanted = sum(query_model.matches(where, row, definition) for row in rows)
            assert bench.count(definition, where) == wanted, where

    @settings(
        max_examples=40, deadline=None, suppress_health_check=[HealthCheck.differing_executors, HealthCheck.too_slow]
    )
    @given(data=st.data())
    def test_pages_totals_counts_and_offsets_are_those_of_the_model(self, bench: Bench, data: st.DataObject) -> None:
        self.ask_as_the_model(bench, data)

    def ask_as_the_model(self, bench: Bench, data: st.DataObject) -> None:
        """Draw a question, and ask it in every way."""
        definition, rows = _things(bench)
        special = bench.capabilities.has_special_values
        asked = data.draw(query_model.questions(definition, has_special_values=special))
        wanted = _keys(query_model.expected(rows, definition, asked.where, asked.order_by))
        request: dict[str, Any] = {"where": asked.where, "order_by": asked.order_by, "select": ["key_b", "key_a"]}
        assert _keys(bench.walk(definition, limit=asked.limit, **request)) == wanted
        skipped = bench.ask(bench.page(definition, limit=asked.limit, offset=3, total=True, **request).plan)
        assert _keys(skipped.rows) == wanted[3 : 3 + asked.limit]
        assert (skipped.end.total, skipped.end.has_more) == (len(wanted), len(wanted) > 3 + asked.limit)
        assert bench.count(definition, asked.where) == len(wanted)

    @pytest.mark.parametrize(
        ("limit", "rows", "has_more"), [(_ROWS - 1, _ROWS - 1, True), (_ROWS, _ROWS, False), (_ROWS + 1, _ROWS, False)]
    )
    def test_a_page_says_whether_there_is_more(self, bench: Bench, limit: int, rows: int, has_more: bool) -> None:
        definition, _ = _things(bench)
        answer = bench.ask(bench.page(definition, limit=limit, total=True, select=["key_a"]).plan)
        assert (len(answer.rows), answer.end.rows) == (rows, rows)
        assert (answer.end.has_more, answer.end.total) == (has_more, _ROWS)

    def test_rows_show_the_fields_that_were_asked_for_in_that_order(self, bench: Bench) -> None:
        definition, _ = _things(bench)
        for select in (["text", "key_a"], ["key_a", "text"], ["key_b"]):
            assert [list(row) for row in bench.rows(definition, select=select, limit=2)] == [select, select]

    # --- capabilities -----------------------------------------------------------------------------------------------------

    def test_an_operator_that_is_not_declared_is_refused(self, bench: Bench) -> None:
        definition, _ = _things(bench)
        for operator in Operator:
            value: object = ["a"] if operator in (Operator.IN, Operator.NIN) else "a"
            where = {"text": {f"${operator.value}": value}}
            if operator in bench.capabilities.operators:
                assert 0 <= bench.count(definition, where) <= _ROWS
                continue
            with pytest.raises(LenswayError) as error:
                plan_count(definition, where, bench.capabilities)
            assert error.value.code is ErrorCode.UNSUPPORTED_OPERATOR

    def test_the_longest_pattern_runs(self, bench: Bench) -> None:
        definition, _ = _things(bench)
        assert bench.count(definition, {"text": {"$startsWith": "x" * (limits.PATTERN_CHARACTERS_MAX - 1)}}) == 0


def things_definition(stage: Stage) -> LensDefinition:
    """The lens of the model, with the types and lists that the bridge serves."""
    made = query_model.make_definition()
    has_lists = stage.capabilities().has_lists
    fields = {
        name: field
        for name, field in made.fields.items()
        if field.type in stage.types and (has_lists or not field.is_list)
    }
    return LensDefinition(name=made.name, table=made.table, fields=fields)


def _things(bench: Bench) -> tuple[LensDefinition, list[query_model.Row]]:
    """The table of the model, and its rows."""
    stage = bench.stage
    definition = things_definition(stage)
    special = bench.capabilities.has_special_values
    rows = query_model.make_rows(definition, count=_ROWS, has_special_values=special)

    async def make(name: str) -> None:
        columns = [
            Column(
                name=field.column,
                type=field.type,
                is_list=field.is_list,
                nullable=field.nullable and not field.primary_key,
                primary_key=field.primary_key,
            )
            for field in definition.fields.values()
        ]
        values = [
            [_as_list(row[field.name]) if field.is_list else row[field.name] for field in definition.fields.values()]
            for row in rows
        ]
        await stage.create_table(name, columns, values)

    bench.made(definition.table, make)
    return definition, rows


def _as_list(value: object) -> object:
    return None if value is None else []


def _keys(rows: Any) -> list[tuple[object, object]]:
    return [(row["key_a"], row["key_b"]) for row in rows]


def _cell(bench: Bench, cell: Cell, format: RowFormat, where: object = None) -> bytes:
    """One cell in one encoding: as a page for JSON, as an export for the others."""
    stage = bench.stage
    held = [each for each in CELLS if each.key in stage.cells]

    async def make(name: str) -> None:
        key = stage.column_type(Column(name="id", type=FieldType.INTEGER))
        columns = ", ".join(f"c{at} {stage.cells[each.key].column_type}" for at, each in enumerate(held))
        literals = ", ".join(stage.cells[each.key].literal for each in held)
        await stage.execute(
            f"CREATE TABLE {quoted(name)} (id {key} PRIMARY KEY, {columns})",
            f"INSERT INTO {quoted(name)} VALUES (1, {literals})",
        )

    column = f"c{held.index(cell)}"
    fields = {
        "id": Field(name="id", column="id", type=FieldType.INTEGER, primary_key=True),
        "c": Field(name="c", column=column, type=FieldType(cell.type), is_list=cell.is_list),
    }
    definition = LensDefinition(name="cells", table=bench.made("cells", make), fields=fields)
    if format is RowFormat.JSON:
        return bench.ask(bench.page(definition, select=["c"], where=where).plan).body
    return bench.ask(bench.export(definition, select=["c"], where=where), format, is_export=True).body


def table_of(body: bytes, format: RowFormat) -> pa.Table:
    """The table of these bytes."""
    if format is RowFormat.PARQUET:
        return pq.read_table(io.BytesIO(body))
    return pa.ipc.open_stream(body).read_all()


def _one_batch(body: bytes) -> bytes:
    """The same Arrow stream with all its rows in one batch."""
    table = table_of(body, RowFormat.ARROW).combine_chunks()
    made = io.BytesIO()
    with pa.ipc.new_stream(made, table.schema) as writer:
        writer.write_table(table)
    return made.getvalue()


def _ids(body: bytes, format: RowFormat) -> list[int]:
    match format:
        case RowFormat.JSON:
            return [row["id"] for row in json.loads(b"[" + body + b"]")]
        case RowFormat.NDJSON:
            return [json.loads(line)["id"] for line in body.splitlines()]
        case RowFormat.CSV:
            header, *lines = csv.reader(io.StringIO(body.decode(), newline=""))
            assert header == ["id", "note"]
            return [int(line[0]) for line in lines]
        case _:
            found: list[int] = table_of(body, format).column("id").to_pylist()
            return found


def _stored(column: pa.ChunkedArray) -> object:
    array = column.combine_chunks()
    if isinstance(array, pa.ChunkedArray):
        array = array.chunk(0)
    if pa.types.is_list(array.type):
        return None if array.null_count else [_item(array.values, at) for at in range(len(array.values))]
    return _item(array, 0)


def _item(array: pa.Array, at: int) -> object:
    array = array.storage if isinstance(array, pa.ExtensionArray) else array
    if pa.types.is_temporal(array.type):
        array = array.view(pa.int32() if array.type.bit_width == 32 else pa.int64())
    value = array[at].as_py()
    return str(value) if pa.types.is_decimal(array.type) and value is not None else value


def _is_same(found: object, wanted: object) -> bool:
    if isinstance(wanted, list):
        return isinstance(found, list) and len(found) == len(wanted) and all(map(_is_same, found, wanted))
    if isinstance(wanted, float) and math.isnan(wanted):
        return isinstance(found, float) and math.isnan(found)
    return type(found) is type(wanted) and found == wanted
