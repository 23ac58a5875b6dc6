"""Rows of odd values, as PostgreSQL and as SQLite take them: what encodings, drivers and clients trip over."""

from __future__ import annotations

import json
import random
import struct
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from lensway.query.fields import Field, FieldType, LensDefinition

_TEXTS: Final = (
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
_FLOATS: Final = (
    *("NaN", "Infinity", "-Infinity", "0", "-0", "5e-324", "-1.7976931348623157e308", "0.1", "1e15", "1e16", "1e-5"),
    *("9.999999999999999e15", "123456789012345680", "-1e-4", "9.9e-5", "1.5e-7", "1e22", "1e100", "2.5", "1000000"),
    *("1000000000000000.5", "2251799813685248.25", "0.00001234", "1.0000000000000002"),
)
_DECIMALS: Final = (
    *("NaN", "0", "-0.00", "1.10", "12345678901234567890.123456789", "-99999999999999999999999999999999999999"),
    *("0.0000000000000000000000000000000001", "1e60", "-1e-60"),
)
_JSONS: Final = (
    "null",
    "[]",
    '{"a": [1, null, "x\\ny"], "b": {"c": 1e400}}',
    '{\n  "spread": "over\\u00e9\\\\ lines",\r\n\t"a": 1,\n"a": 2}',
    '"text"',
    "-0.0",
    json.dumps(["y" * 3000] * 5),
)
_DATES: Final = ("0001-01-01", "9999-12-31", "1970-01-01", "2000-02-29", "1582-10-10")
_FAR_DATES: Final = ("infinity", "-infinity", "0044-03-15 BC", "12345-01-01", "4713-01-01 BC", "5874897-12-31")
_CLOCKS: Final = ("00:00:00", "23:59:59.999999", "12:00:00.1", "05:06:07.000008")
_FAR_MOMENTS: Final = (
    "infinity",
    "-infinity",
    "0044-03-15 12:00:00.5 BC",
    "12345-06-07 08:09:10",
    "0001-12-31 23:00:00 BC",
)
_HOURS: Final = ("+00", "+02", "-05:30", "+13:45", "-00:00:07")

Make = Callable[[random.Random], Any]


def _text(chance: random.Random) -> str:
    if chance.random() < 0.6:
        return chance.choice(_TEXTS)
    points = chance.choice(
        (chance.randrange(1, 0x80), chance.randrange(0xA0, 0xD800), chance.randrange(0x10000, 0x11000))
    )
    return chr(points) * chance.randrange(4) + chance.choice(_TEXTS)[:20]


def _float(chance: random.Random) -> str:
    if chance.random() < 0.5:
        return chance.choice(_FLOATS)
    value: float = struct.unpack("<d", chance.randbytes(8))[0]
    return repr(value if chance.random() < 0.5 else round(chance.uniform(-1e6, 1e6), chance.randrange(8)))


def _moment(chance: random.Random) -> str:
    if chance.random() < 0.3:
        return chance.choice(_FAR_MOMENTS)
    return f"{chance.choice(_DATES)} {chance.choice(_CLOCKS)}"


POSTGRES: Final[Mapping[str, tuple[FieldType, str, Make]]] = {
    "words": (FieldType.TEXT, "text", _text),
    "short": (FieldType.TEXT, "varchar(40)", lambda chance: _text(chance)[:40]),
    "padded": (FieldType.TEXT, "char(6)", lambda chance: chance.choice(("", "ab", 'a\\b"', "é"))),
    "span": (FieldType.TEXT, "interval", lambda chance: chance.choice(("1 year 2 mons", "-3 days 04:05:06.7", "0"))),
    "net": (FieldType.TEXT, "inet", lambda chance: chance.choice(("10.0.0.1/8", "::1"))),
    "small": (FieldType.INTEGER, "smallint", lambda chance: str(chance.choice((-(2**15), 0, 2**15 - 1)))),
    "big": (FieldType.INTEGER, "bigint", lambda chance: str(chance.choice((-(2**63), -1, 0, 2**53 + 1, 2**63 - 1)))),
    "double": (FieldType.NUMBER, "double precision", _float),
    "single": (
        FieldType.NUMBER,
        "real",
        lambda chance: chance.choice(("0.1", "NaN", "-Infinity", "3.4028235e38", "1e-45", "1e15", "16777216")),
    ),
    "whole": (FieldType.NUMBER, "integer", lambda chance: str(chance.choice((-(2**31), 7)))),
    "exact": (FieldType.DECIMAL, "numeric", lambda chance: chance.choice(_DECIMALS)),
    "price": (FieldType.DECIMAL, "numeric(12,2)", lambda chance: f"{chance.uniform(-1e9, 1e9):.2f}"),
    "flag": (FieldType.BOOLEAN, "boolean", lambda chance: chance.choice(("true", "false"))),
    "day": (FieldType.DATE, "date", lambda chance: chance.choice((*_DATES, *_FAR_DATES))),
    "clock": (FieldType.TIME, "time", lambda chance: chance.choice(_CLOCKS)),
    "zoned": (FieldType.TIME, "timetz", lambda chance: chance.choice((*_CLOCKS, "24:00:00")) + chance.choice(_HOURS)),
    "moment": (FieldType.TIMESTAMP, "timestamptz", _moment),
    "local": (FieldType.TIMESTAMP, "timestamp", _moment),
    "ref": (FieldType.UUID, "uuid", lambda chance: f"{chance.getrandbits(128):032x}"),
    "document": (FieldType.JSON, "json", lambda chance: chance.choice(_JSONS)),
    "binary": (FieldType.JSON, "jsonb", lambda chance: chance.choice([each for each in _JSONS if "e400" not in each])),
    "raw": (
        FieldType.BYTES,
        "bytea",
        lambda chance: "\\x" + chance.randbytes(chance.choice((0, 1, 57, 58, 200))).hex(),
    ),
}
"""Fields by name: the lens's type, the column's, and a text that PostgreSQL reads as a value of it."""

SQLITE: Final[Mapping[str, tuple[FieldType, Make]]] = {
    "words": (FieldType.TEXT, _text),
    "big": (FieldType.INTEGER, lambda chance: chance.choice((-(2**63), -1, 0, 2**53 + 1, 2**63 - 1))),
    "double": (FieldType.NUMBER, lambda chance: float(chance.choice(_FLOATS[1:]))),
    "exact": (FieldType.DECIMAL, lambda chance: chance.choice((*_DECIMALS[1:6], 0.1, 1e300, 7))),
    "flag": (FieldType.BOOLEAN, lambda chance: chance.randrange(2)),
    "day": (FieldType.DATE, lambda chance: chance.choice((*_DATES, 0, 2451544.5))),
    "clock": (FieldType.TIME, lambda chance: chance.choice((*_CLOCKS, "12:00"))),
    "moment": (
        FieldType.TIMESTAMP,
        lambda chance: chance.choice(("2000-02-29 10:00:00+02", "1970-01-01T00:00:00Z", "2013-01-31", 1, 2451544.25)),
    ),
    "ref": (FieldType.UUID, lambda chance: f"{chance.getrandbits(128):032x}"),
    "document": (FieldType.JSON, lambda chance: chance.choice(_JSONS)),
    "raw": (FieldType.BYTES, lambda chance: chance.randbytes(chance.choice((0, 1, 57, 200)))),
}
"""As `POSTGRES`, with values as SQLite stores them."""


def lens_of(table: str, fields: Mapping[str, FieldType], *, lists: Sequence[str] = ()) -> LensDefinition:
    """The lens over a table of odd values; its key is ``id``."""
    made = {"id": Field(name="id", column="id", type=FieldType.INTEGER, primary_key=True)}
    for name, type in fields.items():
        made[name] = Field(name=name, column=name, type=type, is_list=name in lists)
    return LensDefinition(name=table, table=table, fields=made)


def postgres_statements(table: str, rows: int, chance: random.Random) -> list[str]:
    """The statements that make and fill the table; one value in eight is NULL. Lists stand in ``l_`` columns of three types."""
    lists = {f"l_{name}": name for name in ("words", "double", "moment", "price")}
    columns = [f'"{name}" {column}' for name, (_, column, _) in POSTGRES.items()]
    columns += [f'"{name}" {POSTGRES[of][1]}[]' for name, of in lists.items()]
    statements = [f"CREATE TABLE {table} (id bigint PRIMARY KEY, {', '.join(columns)})"]
    for number in range(rows):
        values = [_literal(None if chance.random() < 0.125 else make(chance)) for _, _, make in POSTGRES.values()]
        for of in lists.values():
            column, make = POSTGRES[of][1:]
            items = ", ".join(_literal(chance.choice((None, make(chance)))) for _ in range(chance.randrange(4)))
            values.append("NULL" if chance.random() < 0.2 else f"ARRAY[{items}]::{column}[]")
        statements.append(f"INSERT INTO {table} VALUES ({number}, {', '.join(values)})")
    return [*statements, f"GRANT SELECT ON {table} TO PUBLIC"]


def postgres_lens(table: str) -> LensDefinition:
    """The lens over what `postgres_statements` makes."""
    fields = {name: type for name, (type, _, _) in POSTGRES.items()}
    lists = {f"l_{name}": POSTGRES[name][0] for name in ("words", "double", "moment", "price")}
    return lens_of(table, {**fields, **lists}, lists=tuple(lists))


def sqlite_rows(rows: int, chance: random.Random) -> list[list[Any]]:
    """Rows for a table with the columns ``id`` and those of `SQLITE`; one value in eight is NULL."""
    return [
        [number, *(None if chance.random() < 0.125 else make(chance) for _, make in SQLITE.values())]
        for number in range(rows)
    ]


def _literal(text: str | None) -> str:
    return "NULL" if text is None else "'" + text.replace("'", "''") + "'"
