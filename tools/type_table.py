"""How values of every type look in every encoding: what docs/reference/types.md shows and tests of its cells expect."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any, Final

REFUSED: Final = "refused"
"""Fails as `SOURCE_QUERY_FAILED` with class `not_representable`."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One value of one type, as databases hold it and as callers are given it.

    ``postgres`` is a column's type and a literal, ``sqlite`` what is stored; None where the database has no such value.
    ``arrow`` is what stands in the array's storage: days or microseconds since 1970 or midnight for days and times.
    """

    type: str
    value: str
    postgres: tuple[str, str] | None = None
    sqlite: tuple[Any] | None = None
    json: str
    csv: str
    arrow_type: str
    arrow: Any
    is_list: bool = False
    sqlite_arrow_type: str | None = None


_UUID: Final = "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"
_MOMENT: Final = "timestamp[us, tz=UTC]"
_LOCAL: Final = "timestamp[us]"

CELLS: Final[tuple[Cell, ...]] = (
    Cell(type="text", value="plain", postgres=("text", "'abc'"), sqlite=("abc",), json='"abc"', csv="abc",
         arrow_type="string", arrow="abc"),
    Cell(type="text", value="empty", postgres=("text", "''"), sqlite=("",), json='""', csv='""', arrow_type="string", arrow=""),
    Cell(type="text", value="quotes, commas, lines", postgres=("text", "E'a\"b,\\r\\nc'"), sqlite=('a"b,\r\nc',),
         json='"a\\"b,\\r\\nc"', csv='"a""b,\r\nc"', arrow_type="string", arrow='a"b,\r\nc'),
    Cell(type="text", value="beyond ASCII", postgres=("varchar(9)", "'é漢😀'"), sqlite=("é漢😀",), json='"é漢😀"', csv="é漢😀",
         arrow_type="string", arrow="é漢😀"),
    Cell(type="text", value="char(4), padded", postgres=("char(4)", "'ab'"), json='"ab  "', csv="ab  ",
         arrow_type="string", arrow="ab  "),
    Cell(type="text", value="interval", postgres=("interval", "'1 year 2 days 03:04:05.6'"),
         json='"1 year 2 days 03:04:05.6"', csv="1 year 2 days 03:04:05.6", arrow_type="string",
         arrow="1 year 2 days 03:04:05.6"),
    Cell(type="text", value="inet", postgres=("inet", "'10.0.0.1/8'"), json='"10.0.0.1/8"', csv="10.0.0.1/8",
         arrow_type="string", arrow="10.0.0.1/8"),
    Cell(type="text", value="inet, one address", postgres=("inet", "'::1'"), json='"::1"', csv="::1", arrow_type="string",
         arrow="::1"),
    Cell(type="text", value="an integer", postgres=("bigint", "9007199254740993"), json='"9007199254740993"',
         csv="9007199254740993", arrow_type="string", arrow="9007199254740993"),
    Cell(type="text", value="list of integers", is_list=True, postgres=("bigint[]", "'{9007199254740993,NULL}'"),
         json='["9007199254740993",null]', csv='"[""9007199254740993"",null]"', arrow_type="list<item: string>",
         arrow=["9007199254740993", None]),
    Cell(type="text", value="list of addresses", is_list=True, postgres=("inet[]", "'{::1,10.0.0.1/8}'"),
         json='["::1","10.0.0.1/8"]', csv='"[""::1"",""10.0.0.1/8""]"', arrow_type="list<item: string>",
         arrow=["::1", "10.0.0.1/8"]),
    Cell(type="text", value="NULL", postgres=("text", "NULL"), sqlite=(None,), json="null", csv="",
         arrow_type="string", arrow=None),
    Cell(type="integer", value="64 bits", postgres=("bigint", "9223372036854775807"), sqlite=(2**63 - 1,),
         json="9223372036854775807", csv="9223372036854775807", arrow_type="int64", arrow=2**63 - 1),
    Cell(type="integer", value="lowest", postgres=("bigint", "'-9223372036854775808'"), sqlite=(-(2**63),),
         json="-9223372036854775808", csv="-9223372036854775808", arrow_type="int64", arrow=-(2**63)),
    Cell(type="integer", value="smallint", postgres=("smallint", "-3"), sqlite=(-3,), json="-3", csv="-3",
         arrow_type="int64", arrow=-3),
    Cell(type="integer", value="NULL", postgres=("integer", "NULL"), sqlite=(None,), json="null", csv="",
         arrow_type="int64", arrow=None),
    Cell(type="number", value="double", postgres=("double precision", "0.1"), sqlite=(0.1,), json="0.1", csv="0.1",
         arrow_type="double", arrow=0.1),
    Cell(type="number", value="large", postgres=("double precision", "1e300"), sqlite=(1e300,), json="1e300", csv="1e300",
         arrow_type="double", arrow=1e300),
    Cell(type="number", value="small", postgres=("double precision", "0.00001"), sqlite=(0.00001,), json="0.00001",
         csv="0.00001", arrow_type="double", arrow=0.00001),
    Cell(type="number", value="whole", postgres=("double precision", "7"), sqlite=(7.0,), json="7.0", csv="7.0",
         arrow_type="double", arrow=7.0),
    Cell(type="number", value="real, as it reads", postgres=("real", "0.1"), json="0.1", csv="0.1",
         arrow_type="double", arrow=0.1),
    Cell(type="number", value="not a number", postgres=("double precision", "'NaN'"), json='"NaN"', csv="NaN",
         arrow_type="double", arrow=float("nan")),
    Cell(type="number", value="infinity", postgres=("double precision", "'Infinity'"), sqlite=(float("inf"),),
         json='"Infinity"', csv="Infinity", arrow_type="double", arrow=float("inf")),
    Cell(type="number", value="-infinity", postgres=("real", "'-Infinity'"), sqlite=(float("-inf"),),
         json='"-Infinity"', csv="-Infinity", arrow_type="double", arrow=float("-inf")),
    Cell(type="number", value="NULL", postgres=("double precision", "NULL"), sqlite=(None,), json="null", csv="",
         arrow_type="double", arrow=None),
    Cell(type="decimal", value="any digits", postgres=("numeric", "12345678901234567890.1234567890"),
         sqlite=("12345678901234567890.1234567890",), json='"12345678901234567890.1234567890"',
         csv="12345678901234567890.1234567890", arrow_type="string", arrow="12345678901234567890.1234567890"),
    Cell(type="decimal", value="bounded digits", postgres=("numeric(6,2)", "1.5"), json='"1.50"', csv="1.50",
         arrow_type="decimal128(6, 2)", arrow="1.50"),
    Cell(type="decimal", value="an integer", postgres=("bigint", "9007199254740993"), sqlite=(9007199254740993,),
         json='"9007199254740993"', csv="9007199254740993", arrow_type="string", arrow="9007199254740993"),
    Cell(type="decimal", value="list of integers", is_list=True, postgres=("int[]", "'{-7,NULL}'"), json='["-7",null]',
         csv='"[""-7"",null]"', arrow_type="list<item: string>", arrow=["-7", None]),
    Cell(type="decimal", value="infinity", postgres=("numeric", "'-Infinity'"), json='"-Infinity"', csv="-Infinity",
         arrow_type="string", arrow="-Infinity"),
    Cell(type="decimal", value="not a number", postgres=("numeric", "'NaN'"), json='"NaN"', csv="NaN",
         arrow_type="string", arrow="NaN"),
    Cell(type="decimal", value="not a number, bounded", postgres=("numeric(6,2)", "'NaN'"), json='"NaN"', csv="NaN",
         arrow_type="decimal128(6, 2)", arrow=REFUSED),
    Cell(type="decimal", value="NULL", postgres=("numeric(6,2)", "NULL"), sqlite=(None,), json="null", csv="",
         arrow_type="decimal128(6, 2)", sqlite_arrow_type="string", arrow=None),
    Cell(type="boolean", value="true", postgres=("boolean", "true"), sqlite=(1,), json="true", csv="true",
         arrow_type="bool", arrow=True),
    Cell(type="boolean", value="false", postgres=("boolean", "false"), sqlite=(0,), json="false", csv="false",
         arrow_type="bool", arrow=False),
    Cell(type="boolean", value="NULL", postgres=("boolean", "NULL"), sqlite=(None,), json="null", csv="",
         arrow_type="bool", arrow=None),
    Cell(type="date", value="a day", postgres=("date", "'2013-01-31'"), sqlite=("2013-01-31",), json='"2013-01-31"',
         csv="2013-01-31", arrow_type="date32[day]", arrow=15_736),
    Cell(type="date", value="before Christ", postgres=("date", "'0044-03-15 BC'"), json='"0044-03-15 BC"',
         csv="0044-03-15 BC", arrow_type="date32[day]", arrow=-735_160),
    Cell(type="date", value="beyond 9999", postgres=("date", "'12345-01-01'"), json='"12345-01-01"', csv="12345-01-01",
         arrow_type="date32[day]", arrow=3_789_391),
    Cell(type="date", value="infinity", postgres=("date", "'infinity'"), json='"infinity"', csv="infinity",
         arrow_type="date32[day]", arrow=2**31 - 1),
    Cell(type="date", value="-infinity", postgres=("date", "'-infinity'"), json='"-infinity"', csv="-infinity",
         arrow_type="date32[day]", arrow=-(2**31 - 1)),
    Cell(type="date", value="list", is_list=True, postgres=("date[]", "'{infinity,0044-03-15 BC,2013-01-31}'"),
         json='["infinity","0044-03-15 BC","2013-01-31"]', csv='"[""infinity"",""0044-03-15 BC"",""2013-01-31""]"',
         arrow_type="list<item: date32[day]>", arrow=[2**31 - 1, -735_160, 15_736]),
    Cell(type="date", value="NULL", postgres=("date", "NULL"), sqlite=(None,), json="null", csv="",
         arrow_type="date32[day]", arrow=None),
    Cell(type="time", value="a time", postgres=("time", "'17:05'"), sqlite=("17:05",), json='"17:05:00.000000"',
         csv="17:05:00.000000", arrow_type="time64[us]", arrow=61_500_000_000),
    Cell(type="time", value="24:00", postgres=("time", "'24:00'"), json='"24:00:00.000000"', csv="24:00:00.000000",
         arrow_type="time64[us]", arrow=REFUSED),
    Cell(type="time", value="with a zone", postgres=("timetz", "'17:05:00.5+02'"), json='"17:05:00.500000+02:00"',
         csv="17:05:00.500000+02:00", arrow_type="string", arrow="17:05:00.500000+02:00"),
    Cell(type="time", value="list with 24:00", is_list=True, postgres=("time[]", "'{24:00}'"), json='["24:00:00.000000"]',
         csv='"[""24:00:00.000000""]"', arrow_type="list<item: time64[us]>", arrow=REFUSED),
    Cell(type="time", value="NULL", postgres=("time", "NULL"), sqlite=(None,), json="null", csv="",
         arrow_type="time64[us]", arrow=None),
    Cell(type="timestamp", value="with a zone", postgres=("timestamptz", "'2013-01-31 17:05:00.123456+02'"),
         sqlite=("2013-01-31 17:05:00.123456+02",), json='"2013-01-31T15:05:00.123456Z"',
         csv="2013-01-31T15:05:00.123456Z", arrow_type=_MOMENT, arrow=1_359_644_700_123_456),
    Cell(type="timestamp", value="without one", postgres=("timestamp", "'2013-01-31 17:05:00.1'"),
         sqlite=("2013-01-31 17:05:00.1",), json='"2013-01-31T17:05:00.100000"', csv="2013-01-31T17:05:00.100000",
         arrow_type=_LOCAL, sqlite_arrow_type=_MOMENT, arrow=1_359_651_900_100_000),
    Cell(type="timestamp", value="before Christ", postgres=("timestamptz", "'0044-03-15 12:00:00+00 BC'"),
         json='"0044-03-15T12:00:00.000000Z BC"', csv="0044-03-15T12:00:00.000000Z BC", arrow_type=_MOMENT,
         arrow=-63_517_780_800_000_000),
    Cell(type="timestamp", value="infinity", postgres=("timestamptz", "'infinity'"), json='"infinity"', csv="infinity",
         arrow_type=_MOMENT, arrow=2**63 - 1),
    Cell(type="timestamp", value="-infinity", postgres=("timestamp", "'-infinity'"), json='"-infinity"', csv="-infinity",
         arrow_type=_LOCAL, arrow=-(2**63 - 1)),
    Cell(type="timestamp", value="beyond 64 bits", postgres=("timestamp", "'294270-01-01'"),
         json='"294270-01-01T00:00:00.000000"', csv="294270-01-01T00:00:00.000000", arrow_type=_LOCAL, arrow=REFUSED),
    Cell(type="timestamp", value="NULL", postgres=("timestamptz", "NULL"), sqlite=(None,), json="null", csv="",
         arrow_type=_MOMENT, arrow=None),
    Cell(type="uuid", value="a uuid", postgres=("uuid", f"'{_UUID.upper()}'"), sqlite=(_UUID,), json=f'"{_UUID}"',
         csv=_UUID, arrow_type="extension<arrow.uuid>", arrow=bytes.fromhex(_UUID.replace("-", ""))),
    Cell(type="uuid", value="NULL", postgres=("uuid", "NULL"), sqlite=(None,), json="null", csv="",
         arrow_type="extension<arrow.uuid>", arrow=None),
    Cell(type="json", value="a document", postgres=("jsonb", """'{"a": [1, null]}'"""), json='{"a": [1, null]}',
         csv='"{""a"": [1, null]}"', arrow_type="extension<arrow.json>", arrow='{"a": [1, null]}'),
    Cell(type="json", value="a document as text", postgres=("json", """'{"a":[1]}'"""), sqlite=('{"a": [1]}',),
         json='{"a":[1]}', csv='"{""a"":[1]}"', arrow_type="extension<arrow.json>", arrow='{"a":[1]}'),
    Cell(type="json", value="over several lines", postgres=("json", """E'{\\n"b": 1}'"""), json='{ "b": 1}',
         csv='"{ ""b"": 1}"', arrow_type="extension<arrow.json>", arrow='{ "b": 1}'),
    Cell(type="json", value="JSON's own null", postgres=("jsonb", "'null'"), sqlite=("null",), json="null", csv="null",
         arrow_type="extension<arrow.json>", arrow="null"),
    Cell(type="json", value="NULL", postgres=("jsonb", "NULL"), sqlite=(None,), json="null", csv="",
         arrow_type="extension<arrow.json>", arrow=None),
    Cell(type="bytes", value="bytes", postgres=("bytea", r"'\xff00'"), sqlite=(b"\xff\x00",), json='"/wA="', csv="/wA=",
         arrow_type="binary", arrow=b"\xff\x00"),
    Cell(type="bytes", value="none", postgres=("bytea", "''"), sqlite=(b"",), json='""', csv='""', arrow_type="binary",
         arrow=b""),
    Cell(type="bytes", value="NULL", postgres=("bytea", "NULL"), sqlite=(None,), json="null", csv="",
         arrow_type="binary", arrow=None),
    Cell(type="integer", value="list", is_list=True, postgres=("bigint[]", "'{1,NULL}'"), json="[1,null]",
         csv='"[1,null]"', arrow_type="list<item: int64>", arrow=[1, None]),
    Cell(type="text", value="list", is_list=True, postgres=("text[]", """'{a,"b,c",NULL}'"""), json='["a","b,c",null]',
         csv='"[""a"",""b,c"",null]"', arrow_type="list<item: string>", arrow=["a", "b,c", None]),
    Cell(type="number", value="list", is_list=True, postgres=("real[]", "'{0.1,NaN}'"), json='[0.1,"NaN"]',
         csv='"[0.1,""NaN""]"', arrow_type="list<item: double>", arrow=[0.1, float("nan")]),
    Cell(type="decimal", value="list", is_list=True, postgres=("numeric(6,2)[]", "'{1.5}'"), json='["1.50"]',
         csv='"[""1.50""]"', arrow_type="list<item: string>", arrow=["1.50"]),
    Cell(type="timestamp", value="list", is_list=True, postgres=("timestamptz[]", "'{infinity}'"), json='["infinity"]',
         csv='"[""infinity""]"', arrow_type=f"list<item: {_MOMENT}>", arrow=[2**63 - 1]),
    Cell(type="integer", value="empty list", is_list=True, postgres=("integer[]", "'{}'"), json="[]", csv="[]",
         arrow_type="list<item: int64>", arrow=[]),
    Cell(type="integer", value="list of lists", is_list=True, postgres=("integer[]", "'{{1,2},{3,4}}'"),
         json="[[1,2],[3,4]]", csv='"[[1,2],[3,4]]"', arrow_type="list<item: int64>", arrow=REFUSED),
    Cell(type="integer", value="NULL list", is_list=True, postgres=("integer[]", "NULL"), json="null", csv="",
         arrow_type="list<item: int64>", arrow=None),
)  # fmt: skip


def rows() -> Iterator[str]:
    """The table for the docs."""
    yield "| type | value | PostgreSQL | SQLite | JSON, NDJSON | CSV | Arrow, Parquet |"
    yield "| --- | --- | --- | --- | --- | --- | --- |"
    for cell in CELLS:
        name = f"`{cell.type}`" + (" list" if cell.is_list else "")
        column, literal = cell.postgres or ("", "")
        postgres = f"`{column}` {_code(literal)}" if cell.postgres else "—"
        sqlite = _code(_stored(cell.sqlite[0])) if cell.sqlite else "—"
        arrow = REFUSED if cell.arrow == REFUSED else _code(_shown(cell.arrow))
        types = f"`{cell.arrow_type}`" + (f" (SQLite: `{cell.sqlite_arrow_type}`)" if cell.sqlite_arrow_type else "")
        csv = _code(cell.csv) if cell.csv else "empty"
        yield f"| {name} | {cell.value} | {postgres} | {sqlite} | {_code(cell.json)} | {csv} | {types} {arrow} |"


def _stored(value: Any) -> str:
    if isinstance(value, bytes):
        return f"x'{value.hex()}'"
    return "NULL" if value is None else repr(value)


def _shown(value: Any) -> str:
    if isinstance(value, bytes):
        return f"0x{value.hex()}" if value else "no bytes"
    if isinstance(value, str):
        return _json_like(value)
    return "null" if value is None else str(value).replace("None", "null")


def _json_like(value: str) -> str:
    return '"' + value + '"'


def _code(text: str) -> str:
    shown = text.replace("\r", "\\r").replace("\n", "\\n").replace("|", "\\|")
    fence = "``" if "`" in shown else "`"
    return f"{fence}{shown}{fence}"
