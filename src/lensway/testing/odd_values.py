"""Rows of odd values: what encodings, drivers and clients trip over. The columns that hold them are those of a stage."""

from __future__ import annotations

import json
import random
import struct
from collections.abc import Callable
from typing import Any, Final

from lensway.query.fields import Field, FieldType, LensDefinition
from lensway.testing.bridges.stage import Column, Stage, quoted

TEXTS: Final = (
    "",
    " ",
    'a "quoted", text',
    "line\nbreak\r\nand\ttab",
    "back\\slash \\N \\. /",
    "null",
    "\x01\x1f\x7f\u0080\u2028\u2029",
    "é 😀 漢字 \u0301",
    "'; DROP TABLE odd; --",
    "=1+1",
    "x" * 5000,
    "$1 \x0b",
)
FLOATS: Final = (
    *("NaN", "Infinity", "-Infinity", "0", "-0", "5e-324", "-1.7976931348623157e308", "0.1", "1e15", "1e16", "1e-5"),
    *("9.999999999999999e15", "123456789012345680", "-1e-4", "9.9e-5", "1.5e-7", "1e22", "1e100", "2.5", "1000000"),
    *("1000000000000000.5", "2251799813685248.25", "0.00001234", "1.0000000000000002"),
)
DECIMALS: Final = (
    *("NaN", "0", "-0.00", "1.10", "12345678901234567890.123456789", "-99999999999999999999999999999999999999"),
    *("0.0000000000000000000000000000000001", "1e60", "-1e-60"),
)
JSONS: Final = (
    "null",
    "[]",
    '{"a": [1, null, "x\\ny"], "b": {"c": 1e400}}',
    '{\n  "spread": "over\\u00e9\\\\ lines",\r\n\t"a": 1,\n"a": 2}',
    '"text"',
    "-0.0",
    json.dumps(["y" * 3000] * 5),
)
DATES: Final = ("0001-01-01", "9999-12-31", "1970-01-01", "2000-02-29", "1582-10-10")
FAR_DATES: Final = ("infinity", "-infinity", "0044-03-15 BC", "12345-01-01", "4713-01-01 BC", "5874897-12-31")
CLOCKS: Final = ("00:00:00", "23:59:59.999999", "12:00:00.1", "05:06:07.000008")
FAR_MOMENTS: Final = (
    "infinity",
    "-infinity",
    "0044-03-15 12:00:00.5 BC",
    "12345-06-07 08:09:10",
    "0001-12-31 23:00:00 BC",
)

Make = Callable[[random.Random], Any]


def text(chance: random.Random) -> str:
    """A text of `TEXTS`, or one that begins with characters of some plane."""
    if chance.random() < 0.6:
        return chance.choice(TEXTS)
    points = chance.choice(
        (chance.randrange(1, 0x80), chance.randrange(0xA0, 0xD800), chance.randrange(0x10000, 0x11000))
    )
    return chr(points) * chance.randrange(4) + chance.choice(TEXTS)[:20]


def double(chance: random.Random) -> str:
    """A float of `FLOATS`, or any other, as a text."""
    if chance.random() < 0.5:
        return chance.choice(FLOATS)
    value: float = struct.unpack("<d", chance.randbytes(8))[0]
    return repr(value if chance.random() < 0.5 else round(chance.uniform(-1e6, 1e6), chance.randrange(8)))


def integer(chance: random.Random) -> int:
    """An integer at the edge of 64 bits, or where doubles end."""
    return chance.choice((-(2**63), -1, 0, 2**53 + 1, 2**63 - 1))


def moment(chance: random.Random) -> str:
    """A day and a time without a zone, far ones among them."""
    if chance.random() < 0.3:
        return chance.choice(FAR_MOMENTS)
    return f"{chance.choice(DATES)} {chance.choice(CLOCKS)}"


def statements(stage: Stage, table: str, rows: int, chance: random.Random) -> list[str]:
    """The statements that make and fill the table; the key is ``id``, one value in eight is NULL."""
    key = stage.column_type(Column(name="id", type=FieldType.INTEGER, primary_key=True))
    columns = ", ".join(f"{quoted(name)} {odd.column_type}" for name, odd in stage.odd_columns.items())
    made = [f"CREATE TABLE {quoted(table)} (id {key} PRIMARY KEY, {columns})"]
    for number in range(rows):
        values = ["NULL" if chance.random() < 0.125 else odd.literal(chance) for odd in stage.odd_columns.values()]
        made.append(f"INSERT INTO {quoted(table)} VALUES ({number}, {', '.join(values)})")
    return made


def lens_of(stage: Stage, table: str) -> LensDefinition:
    """The lens over what `statements` makes."""
    made = {"id": Field(name="id", column="id", type=FieldType.INTEGER, primary_key=True)}
    for name, odd in stage.odd_columns.items():
        made[name] = Field(name=name, column=name, type=odd.type, is_list=odd.is_list)
    return LensDefinition(name=table, table=table, fields=made)
