"""The table of types: how values of every type look in every encoding. Stages say how their databases hold them."""

from __future__ import annotations

import dataclasses
from typing import Any, Final

REFUSED: Final = "refused"
"""Fails as `SOURCE_QUERY_FAILED` with class `not_representable`."""
MOMENT: Final = "timestamp[us, tz=UTC]"
LOCAL: Final = "timestamp[us]"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One value of one type, as callers are given it.

    ``arrow`` is what stands in the array's storage: days or microseconds since 1970 or midnight for days and times.
    """

    type: str
    value: str
    json: str
    csv: str
    arrow_type: str
    arrow: Any
    is_list: bool = False

    @property
    def key(self) -> str:
        """The name by which stages refer to this cell."""
        return f"{self.type}{' list' if self.is_list else ''}: {self.value}"


CELLS: Final[tuple[Cell, ...]] = (
    Cell(type="text", value="plain", json='"abc"', csv="abc", arrow_type="string", arrow="abc"),
    Cell(type="text", value="empty", json='""', csv='""', arrow_type="string", arrow=""),
    Cell(
        type="text",
        value="quotes, commas, lines",
        json='"a\\"b,\\r\\nc"',
        csv='"a""b,\r\nc"',
        arrow_type="string",
        arrow='a"b,\r\nc',
    ),
    Cell(type="text", value="beyond ASCII", json='"é漢😀"', csv="é漢😀", arrow_type="string", arrow="é漢😀"),
    Cell(type="text", value="char(4), padded", json='"ab  "', csv="ab  ", arrow_type="string", arrow="ab  "),
    Cell(
        type="text",
        value="interval",
        json='"1 year 2 days 03:04:05.6"',
        csv="1 year 2 days 03:04:05.6",
        arrow_type="string",
        arrow="1 year 2 days 03:04:05.6",
    ),
    Cell(type="text", value="inet", json='"10.0.0.1/8"', csv="10.0.0.1/8", arrow_type="string", arrow="10.0.0.1/8"),
    Cell(type="text", value="inet, one address", json='"::1"', csv="::1", arrow_type="string", arrow="::1"),
    Cell(
        type="text",
        value="an integer",
        json='"9007199254740993"',
        csv="9007199254740993",
        arrow_type="string",
        arrow="9007199254740993",
    ),
    Cell(
        type="text",
        value="list of integers",
        is_list=True,
        json='["9007199254740993",null]',
        csv='"[""9007199254740993"",null]"',
        arrow_type="list<item: string>",
        arrow=["9007199254740993", None],
    ),
    Cell(
        type="text",
        value="list of addresses",
        is_list=True,
        json='["::1","10.0.0.1/8"]',
        csv='"[""::1"",""10.0.0.1/8""]"',
        arrow_type="list<item: string>",
        arrow=["::1", "10.0.0.1/8"],
    ),
    Cell(type="text", value="NULL", json="null", csv="", arrow_type="string", arrow=None),
    Cell(
        type="integer",
        value="64 bits",
        json="9223372036854775807",
        csv="9223372036854775807",
        arrow_type="int64",
        arrow=2**63 - 1,
    ),
    Cell(
        type="integer",
        value="lowest",
        json="-9223372036854775808",
        csv="-9223372036854775808",
        arrow_type="int64",
        arrow=-(2**63),
    ),
    Cell(type="integer", value="smallint", json="-3", csv="-3", arrow_type="int64", arrow=-3),
    Cell(type="integer", value="NULL", json="null", csv="", arrow_type="int64", arrow=None),
    Cell(type="number", value="double", json="0.1", csv="0.1", arrow_type="double", arrow=0.1),
    Cell(type="number", value="large", json="1e300", csv="1e300", arrow_type="double", arrow=1e300),
    Cell(type="number", value="small", json="0.00001", csv="0.00001", arrow_type="double", arrow=1e-05),
    Cell(type="number", value="whole", json="7.0", csv="7.0", arrow_type="double", arrow=7.0),
    Cell(type="number", value="real, as it reads", json="0.1", csv="0.1", arrow_type="double", arrow=0.1),
    Cell(type="number", value="not a number", json='"NaN"', csv="NaN", arrow_type="double", arrow=float("nan")),
    Cell(type="number", value="infinity", json='"Infinity"', csv="Infinity", arrow_type="double", arrow=float("inf")),
    Cell(
        type="number", value="-infinity", json='"-Infinity"', csv="-Infinity", arrow_type="double", arrow=float("-inf")
    ),
    Cell(type="number", value="NULL", json="null", csv="", arrow_type="double", arrow=None),
    Cell(
        type="decimal",
        value="any digits",
        json='"12345678901234567890.1234567890"',
        csv="12345678901234567890.1234567890",
        arrow_type="string",
        arrow="12345678901234567890.1234567890",
    ),
    Cell(
        type="decimal", value="bounded digits", json='"1.50"', csv="1.50", arrow_type="decimal128(6, 2)", arrow="1.50"
    ),
    Cell(
        type="decimal",
        value="an integer",
        json='"9007199254740993"',
        csv="9007199254740993",
        arrow_type="string",
        arrow="9007199254740993",
    ),
    Cell(
        type="decimal",
        value="list of integers",
        is_list=True,
        json='["-7",null]',
        csv='"[""-7"",null]"',
        arrow_type="list<item: string>",
        arrow=["-7", None],
    ),
    Cell(type="decimal", value="infinity", json='"-Infinity"', csv="-Infinity", arrow_type="string", arrow="-Infinity"),
    Cell(type="decimal", value="not a number", json='"NaN"', csv="NaN", arrow_type="string", arrow="NaN"),
    Cell(
        type="decimal",
        value="not a number, bounded",
        json='"NaN"',
        csv="NaN",
        arrow_type="decimal128(6, 2)",
        arrow=REFUSED,
    ),
    Cell(type="decimal", value="NULL", json="null", csv="", arrow_type="decimal128(6, 2)", arrow=None),
    Cell(type="boolean", value="true", json="true", csv="true", arrow_type="bool", arrow=True),
    Cell(type="boolean", value="false", json="false", csv="false", arrow_type="bool", arrow=False),
    Cell(type="boolean", value="NULL", json="null", csv="", arrow_type="bool", arrow=None),
    Cell(type="date", value="a day", json='"2013-01-31"', csv="2013-01-31", arrow_type="date32[day]", arrow=15736),
    Cell(
        type="date",
        value="before Christ",
        json='"0044-03-15 BC"',
        csv="0044-03-15 BC",
        arrow_type="date32[day]",
        arrow=-735160,
    ),
    Cell(
        type="date",
        value="beyond 9999",
        json='"12345-01-01"',
        csv="12345-01-01",
        arrow_type="date32[day]",
        arrow=3789391,
    ),
    Cell(type="date", value="infinity", json='"infinity"', csv="infinity", arrow_type="date32[day]", arrow=2**31 - 1),
    Cell(
        type="date",
        value="-infinity",
        json='"-infinity"',
        csv="-infinity",
        arrow_type="date32[day]",
        arrow=-(2**31 - 1),
    ),
    Cell(
        type="date",
        value="list",
        is_list=True,
        json='["infinity","0044-03-15 BC","2013-01-31"]',
        csv='"[""infinity"",""0044-03-15 BC"",""2013-01-31""]"',
        arrow_type="list<item: date32[day]>",
        arrow=[2**31 - 1, -735160, 15736],
    ),
    Cell(type="date", value="NULL", json="null", csv="", arrow_type="date32[day]", arrow=None),
    Cell(
        type="time",
        value="a time",
        json='"17:05:00.000000"',
        csv="17:05:00.000000",
        arrow_type="time64[us]",
        arrow=61500000000,
    ),
    Cell(
        type="time",
        value="24:00",
        json='"24:00:00.000000"',
        csv="24:00:00.000000",
        arrow_type="time64[us]",
        arrow=REFUSED,
    ),
    Cell(
        type="time",
        value="with a zone",
        json='"17:05:00.500000+02:00"',
        csv="17:05:00.500000+02:00",
        arrow_type="string",
        arrow="17:05:00.500000+02:00",
    ),
    Cell(
        type="time",
        value="list with 24:00",
        is_list=True,
        json='["24:00:00.000000"]',
        csv='"[""24:00:00.000000""]"',
        arrow_type="list<item: time64[us]>",
        arrow=REFUSED,
    ),
    Cell(type="time", value="NULL", json="null", csv="", arrow_type="time64[us]", arrow=None),
    Cell(
        type="timestamp",
        value="with a zone",
        json='"2013-01-31T15:05:00.123456Z"',
        csv="2013-01-31T15:05:00.123456Z",
        arrow_type=MOMENT,
        arrow=1359644700123456,
    ),
    Cell(
        type="timestamp",
        value="without one",
        json='"2013-01-31T17:05:00.100000"',
        csv="2013-01-31T17:05:00.100000",
        arrow_type=LOCAL,
        arrow=1359651900100000,
    ),
    Cell(
        type="timestamp",
        value="before Christ",
        json='"0044-03-15T12:00:00.000000Z BC"',
        csv="0044-03-15T12:00:00.000000Z BC",
        arrow_type=MOMENT,
        arrow=-63517780800000000,
    ),
    Cell(type="timestamp", value="infinity", json='"infinity"', csv="infinity", arrow_type=MOMENT, arrow=2**63 - 1),
    Cell(
        type="timestamp", value="-infinity", json='"-infinity"', csv="-infinity", arrow_type=LOCAL, arrow=-(2**63 - 1)
    ),
    Cell(
        type="timestamp",
        value="beyond 64 bits",
        json='"294270-01-01T00:00:00.000000"',
        csv="294270-01-01T00:00:00.000000",
        arrow_type=LOCAL,
        arrow=REFUSED,
    ),
    Cell(type="timestamp", value="NULL", json="null", csv="", arrow_type=MOMENT, arrow=None),
    Cell(
        type="uuid",
        value="a uuid",
        json='"a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"',
        csv="a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11",
        arrow_type="extension<arrow.uuid>",
        arrow=b"\xa0\xee\xbc\x99\x9c\x0bN\xf8\xbbmk\xb9\xbd8\n\x11",
    ),
    Cell(type="uuid", value="NULL", json="null", csv="", arrow_type="extension<arrow.uuid>", arrow=None),
    Cell(
        type="json",
        value="a document",
        json='{"a": [1, null]}',
        csv='"{""a"": [1, null]}"',
        arrow_type="extension<arrow.json>",
        arrow='{"a": [1, null]}',
    ),
    Cell(
        type="json",
        value="a document as text",
        json='{"a":[1]}',
        csv='"{""a"":[1]}"',
        arrow_type="extension<arrow.json>",
        arrow='{"a":[1]}',
    ),
    Cell(
        type="json",
        value="over several lines",
        json='{ "b": 1}',
        csv='"{ ""b"": 1}"',
        arrow_type="extension<arrow.json>",
        arrow='{ "b": 1}',
    ),
    Cell(
        type="json", value="JSON's own null", json="null", csv="null", arrow_type="extension<arrow.json>", arrow="null"
    ),
    Cell(type="json", value="NULL", json="null", csv="", arrow_type="extension<arrow.json>", arrow=None),
    Cell(type="bytes", value="bytes", json='"/wA="', csv="/wA=", arrow_type="binary", arrow=b"\xff\x00"),
    Cell(type="bytes", value="none", json='""', csv='""', arrow_type="binary", arrow=b""),
    Cell(type="bytes", value="NULL", json="null", csv="", arrow_type="binary", arrow=None),
    Cell(
        type="integer",
        value="list",
        is_list=True,
        json="[1,null]",
        csv='"[1,null]"',
        arrow_type="list<item: int64>",
        arrow=[1, None],
    ),
    Cell(
        type="text",
        value="list",
        is_list=True,
        json='["a","b,c",null]',
        csv='"[""a"",""b,c"",null]"',
        arrow_type="list<item: string>",
        arrow=["a", "b,c", None],
    ),
    Cell(
        type="number",
        value="list",
        is_list=True,
        json='[0.1,"NaN"]',
        csv='"[0.1,""NaN""]"',
        arrow_type="list<item: double>",
        arrow=[0.1, float("nan")],
    ),
    Cell(
        type="decimal",
        value="list",
        is_list=True,
        json='["1.50"]',
        csv='"[""1.50""]"',
        arrow_type="list<item: string>",
        arrow=["1.50"],
    ),
    Cell(
        type="timestamp",
        value="list",
        is_list=True,
        json='["infinity"]',
        csv='"[""infinity""]"',
        arrow_type=f"list<item: {MOMENT}>",
        arrow=[2**63 - 1],
    ),
    Cell(
        type="integer", value="empty list", is_list=True, json="[]", csv="[]", arrow_type="list<item: int64>", arrow=[]
    ),
    Cell(
        type="integer",
        value="list of lists",
        is_list=True,
        json="[[1,2],[3,4]]",
        csv='"[[1,2],[3,4]]"',
        arrow_type="list<item: int64>",
        arrow=REFUSED,
    ),
    Cell(
        type="integer", value="NULL list", is_list=True, json="null", csv="", arrow_type="list<item: int64>", arrow=None
    ),
)
