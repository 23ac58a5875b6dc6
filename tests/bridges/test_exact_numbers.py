"""Numbers of `where` keep every digit: compared as the database compares the same number written out."""

from __future__ import annotations

import asyncio
import decimal
import json
import random
import sqlite3
import time
from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from lensway.api import numbers
from lensway.api.shapes import QueryRequest
from lensway.bridges.contract import AddressPolicy, Execution
from lensway.bridges.library import ExecutionLibrary
from lensway.dialects.registry import capabilities_of
from lensway.errors import ErrorCode, LenswayError
from lensway.query.fields import Field, FieldType, LensDefinition
from lensway.query.planner import plan_rows
from lensway.query.result import ResultLimits, RowFormat, decode_end
from lensway.query.result import encode_end as encoded
from lensway.testing.exact_numbers import holds, literals, stored_decimals
from lensway.testing.fixtures import fresh_database
from lensway.testing.postgres import PostgresCluster

OPERATORS = ("$eq", "$ne", "$gt", "$gte", "$lt", "$lte")
INTEGERS = (*(0, 1, -1, 2, 41), *(2**53 + d for d in (-1, 0, 1, 2)), *(2**63 - 1, 2**63 - 2, -(2**63), -(2**53) - 1))
FLOATS = (0.1, 0.5, -0.0, 1.0, 2.0**53, 2.0**53 + 2, 2.0**63, -(2.0**63), 1e300, 5e-324, 123456789.12345679)
DECIMALS = stored_decimals()
DEFINITION = LensDefinition(
    name="numbers",
    table="numbers",
    fields={
        "id": Field(name="id", column="id", type=FieldType.INTEGER, primary_key=True),
        "whole": Field(name="whole", column="whole", type=FieldType.INTEGER),
        "loose": Field(name="loose", column="whole", type=FieldType.NUMBER),
        "double": Field(name="double", column="double", type=FieldType.NUMBER),
        "exact": Field(name="exact", column="exact", type=FieldType.DECIMAL),
        "spread": Field(name="spread", column="whole", type=FieldType.DECIMAL),
    },
)
COLUMNS = {"whole": INTEGERS, "loose": INTEGERS, "double": FLOATS, "exact": DECIMALS, "spread": INTEGERS}


class Sink:
    def __init__(self) -> None:
        self.data = b""

    async def write(self, chunk: bytes) -> None:
        self.data += chunk


class Asker:
    """Asks one database with requests as they come over HTTP."""

    def __init__(self, bridge: str, config: dict[str, Any], loop: asyncio.AbstractEventLoop) -> None:
        self._bridge, self._config, self._loop = bridge, config, loop
        self._library = ExecutionLibrary(AddressPolicy())

    def page(self, body: str) -> tuple[list[dict[str, Any]], str | None]:
        asked = numbers.decode_request(body.encode())
        request = QueryRequest(
            where=asked.get("where"),
            order_by=asked.get("orderBy"),
            limit=asked.get("limit"),
            cursor=asked.get("cursor"),
            select=asked.get("select"),
        )
        planned = plan_rows(
            DEFINITION, request, capabilities_of(self._bridge), cursor_key=b"k" * 32, environment="default"
        )
        execution = Execution(
            deadline=time.monotonic() + 30,
            format=RowFormat.JSON,
            limits=ResultLimits(rows_max=10_000, bytes_max=10**7, row_bytes_max=10**6),
            tag="numbers/1",
        )
        sink = Sink()
        end = self._loop.run_until_complete(
            self._library.perform(
                "numbers",
                self._bridge,
                self._config,
                kind="rows",
                payload=planned.plan.encode(),
                execution=execution,
                sink=sink,
            )
        )
        return json.loads(b"[" + sink.data + b"]"), planned.next_cursor(decode_end(encoded(end)))

    def ids(self, where: str) -> set[int]:
        rows, _ = self.page(f'{{"where": {where}, "select": ["id"], "limit": 1000}}')
        return {row["id"] for row in rows}

    def close(self) -> None:
        self._loop.run_until_complete(self._library.close())


def rows_of() -> Iterator[tuple[Any, ...]]:
    for number in range(max(map(len, COLUMNS.values())) + 1):
        yield (number, *((column[number] if number < len(column) else None) for column in (INTEGERS, FLOATS, DECIMALS)))


@pytest.fixture(scope="module")
def askers(postgres: PostgresCluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Asker]]:
    loop = asyncio.new_event_loop()
    database = loop.run_until_complete(fresh_database(postgres))
    lines = ", ".join(
        "(" + ", ".join("NULL" if each is None else f"'{each!s}'" for each in row) + ")" for row in rows_of()
    )
    loop.run_until_complete(
        database.execute(
            "CREATE TABLE numbers (id int PRIMARY KEY, whole bigint, double double precision, exact numeric)",
            f"INSERT INTO numbers VALUES {lines}",
            "GRANT SELECT ON numbers TO PUBLIC",
        )
    )
    path = tmp_path_factory.mktemp("numbers") / "numbers.db"
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE numbers (id INTEGER PRIMARY KEY, whole INTEGER, double REAL, exact TEXT)")
        connection.executemany("INSERT INTO numbers VALUES (?, ?, ?, ?)", list(rows_of()))
    connection.close()
    found = {
        "postgres": Asker("postgres", {"url": database.reader_url}, loop),
        "sqlite": Asker("sqlite", {"path": str(path)}, loop),
    }
    yield found
    for asker in found.values():
        asker.close()
    loop.close()


@pytest.fixture(params=["postgres", "sqlite"])
def asker(request: pytest.FixtureRequest, askers: dict[str, Asker]) -> Asker:
    return askers[request.param]


def expected(field: str, operator: str, *literals: str) -> set[int]:
    """The rows for which the comparison holds with any of the literals."""
    return {
        number
        for number, stored in enumerate(COLUMNS[field])
        if any(holds(operator, stored, literal) for literal in literals)
    }


@pytest.mark.parametrize("field", COLUMNS)
def test_every_operator_compares_the_numbers_and_not_their_doubles(asker: Asker, field: str) -> None:
    for literal in literals(random.Random(field), 60, near=COLUMNS[field], is_double=field in ("double", "loose")):
        for operator in OPERATORS:
            found = asker.ids(f'{{"{field}": {{"{operator}": {literal}}}}}')
            assert found == expected(field, operator, literal), (operator, literal)
        negated = asker.ids(f'{{"$not": {{"{field}": {literal}}}}}')
        assert negated == expected(field, "$ne", literal), literal


@pytest.mark.parametrize("field", COLUMNS)
def test_lists_hold_numbers_of_every_size(asker: Asker, field: str) -> None:
    chance = random.Random(field)
    known = literals(chance, 60, near=COLUMNS[field], is_double=field in ("double", "loose"))
    for size in (1, 2, 5, 20, 40):
        for few in (chance.sample(known, size), [known[at] for at in range(0, len(known), 60 // size)]):
            listed = f"[{', '.join(few)}]"
            inside = expected(field, "$eq", *few)
            assert asker.ids(f'{{"{field}": {{"$in": {listed}}}}}') == inside, listed
            outside = set(range(len(COLUMNS[field]))) - inside
            assert asker.ids(f'{{"{field}": {{"$nin": {listed}}}}}') == outside, listed
            with_null = f"[null, {listed[1:]}"
            assert asker.ids(f'{{"{field}": {with_null}}}') == inside
            assert asker.ids(f'{{"{field}": {{"$nin": {with_null}}}}}') == set()


@pytest.mark.parametrize("field", ["exact", "spread"])
def test_a_decimal_as_a_number_is_the_same_as_text(asker: Asker, field: str) -> None:
    for literal in literals(random.Random(7), 20, near=COLUMNS[field]):
        for operator in OPERATORS:
            as_text = asker.ids(f'{{"{field}": {{"{operator}": "{literal}"}}}}')
            assert asker.ids(f'{{"{field}": {{"{operator}": {literal}}}}}') == as_text, (operator, literal)


@pytest.mark.parametrize("field", COLUMNS)
@pytest.mark.parametrize("direction", ["asc", "desc"])
def test_pages_of_one_row_visit_every_number_once(asker: Asker, field: str, direction: str) -> None:
    body = f'{{"orderBy": {{"field": "{field}", "dir": "{direction}"}}, "limit": 1, "select": ["id"]'
    seen, cursor = [], None
    while True:
        rows, cursor = asker.page(body + (f', "cursor": "{cursor}"}}' if cursor else "}"))
        seen += [row["id"] for row in rows]
        if cursor is None:
            break
    place = {number: decimal.Decimal(str(stored)) for number, stored in enumerate(COLUMNS[field])}
    nulls = sorted(set(range(max(map(len, COLUMNS.values())) + 1)) - set(place))
    numbered = sorted(place)
    numbered.sort(key=place.__getitem__, reverse=direction == "desc")
    assert seen == (numbered + nulls if direction == "asc" else nulls + numbered)


@pytest.mark.parametrize(
    ("field", "literal"),
    [
        ("exact", "1e10000"),
        ("exact", "1e99999999999999999999"),
        ("exact", "0." + "1" * 1_001),
        ("exact", "1" * 1_001),
        ("double", "1e400"),
        ("double", "-1e400"),
        ("double", "1e-400"),
        ("double", "1" * 400),
        ("double", "1e99999999999999999999"),
        ("whole", "1e99999999999999999999"),
        ("whole", "1" * 1_001),
        ("whole", "true"),
        ("exact", "[[1]]"),
    ],
)
def test_numbers_that_no_column_holds_are_refused_by_their_path(field: str, literal: str) -> None:
    where = numbers.decode_request(f'{{"{field}": {{"$gt": {literal}}}}}'.encode())
    with pytest.raises(LenswayError) as caught:
        plan_rows(
            DEFINITION, QueryRequest(where=where), capabilities_of("postgres"), cursor_key=b"k" * 32, environment="e"
        )
    assert caught.value.code is ErrorCode.INVALID_REQUEST
    assert caught.value.failure.details["path"] == f"where.{field}.$gt"


@pytest.mark.parametrize("literal", ["1E400", "1e9999", "-0", "-0.0", "0e5", "1" * 1_000, "0." + "1" * 999])
def test_large_exponents_and_long_numbers_are_compared(asker: Asker, literal: str) -> None:
    for operator in OPERATORS:
        found = asker.ids(f'{{"exact": {{"{operator}": {literal}}}}}')
        assert found == expected("exact", operator, literal), operator


def test_an_index_serves_integers_however_they_are_declared(postgres: PostgresCluster) -> None:
    """A 64-bit integer is bound as one, so that columns of either kind are searched and not read through."""
    where: Sequence[tuple[str, str]] = (("spread", "5"), ("spread", '"5"'), ("loose", str(2**60)), ("spread", "[5, 6]"))
    for field, value in where:
        asked = numbers.decode_request(f'{{"{field}": {value}}}'.encode())
        plan = plan_rows(
            DEFINITION, QueryRequest(where=asked), capabilities_of("postgres"), cursor_key=b"k" * 32, environment="e"
        ).plan
        assert all(type(each) is int for each in (plan.params[0] if isinstance(plan.params[0], list) else plan.params))
