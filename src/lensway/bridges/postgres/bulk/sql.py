"""The statements of the bulk path: what a plan's statement is wrapped in so that rows arrive as Arrow wants them, or as NDJSON.

The plan's own statement stands inside as a subquery, its values as literals that the server itself has quoted: COPY takes no
parameters. A subquery with an order keeps it through a projection. Expressions give exactly what `postgres.values` gives for
the same value, so that a page and an export show the same bytes.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

import msgspec

from lensway.bridges.postgres.types import ENUM, OTHER, RANGE, NamedTypes
from lensway.bridges.postgres.values import KNOWN_KINDS, fits, written
from lensway.query.fields import FieldType, PlanColumn
from lensway.query.result import RowFormat

ROW_TOO_LARGE_STATE: Final = "2201G"
"""SQLSTATE of `width_bucket` without buckets, which the guard raises; no statement of ours can come by it otherwise."""
NESTED_LIST_STATE: Final = "2201E"
"""SQLSTATE of the logarithm of a negative number, raised for lists of lists."""
TEXT_FORMATS: Final = frozenset({RowFormat.JSON, RowFormat.NDJSON, RowFormat.CSV})
"""Formats whose rows PostgreSQL writes."""
COLUMNS_MAX: Final = 200
"""Columns of a statement whose lines PostgreSQL makes: one expression for each, nested in the one before."""

_TOKENS: Final = re.compile(r""""(?:[^"]|"")*"|'(?:[^']|'')*'|\$(\d+)""")
_SENT_AS_TEXT: Final = frozenset({"text", "varchar", "bpchar", "name"})
_SIZED: Final = frozenset({"text", "varchar", "bytea"})
_FIXED: Final = frozenset(
    {"int2", "int4", "int8", "oid", "float4", "float8", "bool", "date", "time", "timetz", "timestamp", "timestamptz"}
    | {"uuid", "name", "money", "interval"}
)
_LARGE_BYTES: Final = 65_536
COMPOSITE: Final = "a composite type"
"""What a column of composite values is called here."""
_AS_WRITTEN: Final = frozenset({OTHER, RANGE})
"""Kinds that may have a JSON of their own, such as hstore. A text is what PostgreSQL writes of them."""


class BulkColumn(msgspec.Struct, frozen=True, kw_only=True):
    """One column of the statement: what the lens declares, and the kind of its type in PostgreSQL (of a list: its elements')."""

    declared: PlanColumn
    type_name: str
    is_list: bool
    is_enum: bool = False
    unknown_type: int | None = None
    """The oid of a type that the driver does not know: made after it read the catalog, or of a kind that it never knows."""

    @property
    def is_certain(self) -> bool:
        """False when only the catalog can tell what the column is. The driver names elements of a list by their domain."""
        return self.type_name == COMPOSITE or (not self.is_list if self.is_enum else self.type_name in KNOWN_KINDS)

    def resolved(self, types: NamedTypes) -> BulkColumn:
        """The column as the catalog knows it; unchanged where it does not."""
        found = types.of(oid=self.unknown_type, name=self.type_name)
        if found is None or not found.kind or (found.kind == ENUM and self.unknown_type is not None):
            return self
        is_list = found.is_list if self.unknown_type is not None else self.is_list
        return msgspec.structs.replace(
            self, type_name=found.kind, is_list=is_list, is_enum=found.kind == ENUM, unknown_type=None
        )

    def fits(self) -> bool:
        """True when the column can be shown as what the lens declares."""
        kind = ENUM if self.is_enum else self.type_name
        return self.is_list == self.declared.is_list and fits(self.declared.type, kind)


def with_values(sql: str, literals: Sequence[str]) -> str:
    """The statement with these literals in the place of its parameters."""

    def replaced(match: re.Match[str]) -> str:
        return match[0] if match[1] is None else literals[int(match[1]) - 1]

    return _TOKENS.sub(replaced, sql)


def spelled(value: object) -> str | None:
    """A value of a plan as PostgreSQL reads it from text."""
    match value:
        case None:
            return None
        case bool():
            return "true" if value else "false"
        case bytes():
            return "\\x" + value.hex()
        case list() | tuple():
            return "{" + ",".join(_spelled_element(each) for each in value) + "}"
        case float():
            return repr(value)
        case _:
            return str(value)


def _spelled_element(value: object) -> str:
    text = spelled(value)
    return "NULL" if text is None else '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def batches_sql(statement: str, columns: Sequence[BulkColumn], output: int, keys: Sequence[int], row_bytes: int) -> str:
    """The rows as columns that the driver gives Arrow types; behind them the tail of the row (see `page_end`), in the form of
    plans."""
    shown = [_shown(number, column) for number, column in enumerate(columns[:output])]
    guarded = _largest(columns[:output])
    if guarded is not None:
        shown[guarded] = _guarded(shown[guarded], columns[:output], row_bytes)
    named = [f"{expression} AS s{number}" for number, expression in enumerate(shown)]
    named += [f"{_key(position, columns[position])} AS k{position}" for position in keys]
    return _wrapped(", ".join(named), statement, len(columns))


def objects_sql(
    statement: str, columns: Sequence[BulkColumn], output: int, row_bytes: int, *, before: str, behind: str
) -> str:
    """The rows as JSON objects in one column of text, with these texts before and behind each."""
    start = _literal(before + "{")
    if _largest(columns[:output]) is not None:
        start = _guarded(start, columns[:output], row_bytes)
    parts = [start]
    for number, column in enumerate(columns[:output]):
        comma = "," if number else ""
        parts.append(_literal(f"{comma}{msgspec.json.encode(column.declared.name).decode()}:"))
        parts.append(f"coalesce({_json(f'q.c{number}', column)}, 'null')")
    parts.append(_literal("}" + behind))
    return _wrapped(" || ".join(parts) + " AS line", statement, len(columns))


def csv_sql(statement: str, columns: Sequence[BulkColumn], output: int, row_bytes: int) -> str:
    """The rows as lines of CSV, in one column of text."""
    shown = columns[:output]
    # A line with nothing on it is no record for many readers.
    absent = "'\"\"'" if output == 1 else "''"
    start = "''" if _largest(shown) is None else _guarded("''", shown, row_bytes)
    parts = [start]
    for number, column in enumerate(shown):
        if number:
            parts.append("','")
        parts.append(f"coalesce({_csv(f'q.c{number}', column)}, {absent})")
    parts.append("E'\\r\\n'")
    return _wrapped(" || ".join(parts) + " AS line", statement, len(columns))


def _wrapped(expressions: str, statement: str, count: int) -> str:
    names = ", ".join(f"c{number}" for number in range(count))
    return f"SELECT {expressions} FROM ({statement}) AS q({names})"  # noqa: S608 - identifiers and literals are quoted


def _literal(text: str) -> str:
    # Backslashes are ordinary characters: the session says so.
    return "'" + text.replace("'", "''") + "'"


# --- size -------------------------------------------------------------------------------------------------------------------


def _largest(columns: Sequence[BulkColumn]) -> int | None:
    """The first column whose values may be of any size."""
    return next((number for number, each in enumerate(columns) if each.is_list or each.type_name not in _FIXED), None)


def _guarded(expression: str, columns: Sequence[BulkColumn], row_bytes: int) -> str:
    """The expression, failing in the database for a row that is too large: nobody has to hold it to find out."""
    sizes = [
        f"coalesce({_size(f'q.c{number}', each)}, 0)::bigint"
        for number, each in enumerate(columns)
        if each.is_list or each.type_name not in _FIXED
    ]
    total = " + ".join(sizes)
    return (
        f"CASE WHEN {total} > {row_bytes} THEN CASE width_bucket(({total})::float8, 0, 1, 0) WHEN 0 THEN {expression} END"
        f" ELSE {expression} END"
    )


def _size(value: str, column: BulkColumn) -> str:
    if not column.is_list and column.type_name in _SIZED:
        # Known without reading what is stored aside. The cast is for an enum that is called so.
        return f"octet_length({value}{'' if column.type_name == 'bytea' else '::text'})"
    stored = f"pg_column_size({value})"
    return f"CASE WHEN {stored} > {_LARGE_BYTES} THEN octet_length({value}::text) ELSE {stored} END"


# --- Arrow ------------------------------------------------------------------------------------------------------------------


def _shown(number: int, column: BulkColumn) -> str:
    value = f"q.c{number}"
    if column.is_list:
        # The driver flattens lists of lists and knows only lists that begin at 1.
        nested = f"array_ndims({value}) > 1 THEN {value}[:ln(-array_ndims({value}))::int]"
        value = f"(CASE WHEN {nested} ELSE {value}[:] END)"
    brackets = "[]" if column.is_list else ""
    name = column.type_name
    match column.declared.type:
        case FieldType.TEXT:
            return value if name in _SENT_AS_TEXT or column.is_enum else _written(value, column)
        case FieldType.INTEGER:
            return value if name == "int8" else f"{value}::bigint{brackets}"
        case FieldType.NUMBER:
            # By its text: the float that callers are shown, not the one that its bits widen to.
            single = f"{value}::text{brackets}" if name == "float4" else value
            return value if name == "float8" else f"{single}::float8{brackets}"
        case FieldType.DECIMAL:
            return f"{value}::text{brackets}"
        case FieldType.TIME if name == "timetz" and column.is_list:
            return f"{value}::text[]"
        case FieldType.TIME if name == "timetz":
            return _timetz(value)
        case FieldType.JSON if name == "json" and not column.is_list:
            return _one_line(value)
        case _:
            return value


def _key(position: int, column: BulkColumn) -> str:
    value = f"q.c{position}"
    match column.declared.type:
        case FieldType.INTEGER:
            return f"{value}::bigint"
        case FieldType.NUMBER:
            # The number itself, not the one that is shown: the next page must begin right behind it.
            return f"{value}::float8" if column.type_name in ("float4", "float8") else f"{value}::bigint"
        case FieldType.BOOLEAN | FieldType.BYTES:
            return _shown(position, column)
        case FieldType.TIME | FieldType.TIMESTAMP:
            return _text(value, column)
        case FieldType.TEXT:
            return _written(value, column)
        case _:
            return f"{value}::text"


def _written(value: str, column: BulkColumn) -> str:
    """The text as PostgreSQL writes the value. A cast to text does something else: to char(n), to addresses."""
    if column.is_list:
        return f"{value}::text::text[]"
    if column.type_name in ("text", "varchar"):
        return f"{value}::text"
    return f"CASE WHEN {value} IS NULL THEN NULL ELSE concat({value}) END"


# --- text -------------------------------------------------------------------------------------------------------------------


def _json(value: str, column: BulkColumn) -> str:
    match column.declared.type:
        case FieldType.TEXT:
            # An integer as text is one in quotes.
            is_cast = written(column.declared.type, column.type_name) or column.type_name in _AS_WRITTEN
            return f"to_json({_written(value, column) if is_cast else value})::text"
        case FieldType.INTEGER | FieldType.BOOLEAN:
            return f"{value}::text"
        case FieldType.NUMBER:
            return _json_number(value, column.type_name)
        case FieldType.JSON:
            return _one_line(value) if column.type_name == "json" else f"{value}::text"
        case FieldType.BYTES:
            # PostgreSQL breaks base64 into lines.
            return f"'\"' || translate(encode({value}, 'base64'), E'\\n', '') || '\"'"
        case _:
            return f"'\"' || {_text(value, column)} || '\"'"


def _csv(value: str, column: BulkColumn) -> str:
    match column.declared.type:
        case FieldType.TEXT:
            return _csv_text(_written(value, column), value)
        case FieldType.JSON:
            return _csv_text(_json(value, column), value)
        case FieldType.BYTES:
            encoded = f"translate(encode({value}, 'base64'), E'\\n', '')"
            return f"CASE WHEN octet_length({value}) = 0 THEN '\"\"' ELSE {encoded} END"
        case FieldType.NUMBER if column.type_name in ("float4", "float8"):
            return f"trim(both '\"' from {_json_number(value, column.type_name)})"
        case FieldType.INTEGER | FieldType.BOOLEAN | FieldType.NUMBER:
            return f"{value}::text"
        case _:
            return _text(value, column)


def _csv_text(text: str, value: str) -> str:
    # By code points: where a collation takes different texts for equal, PostgreSQL neither searches nor replaces.
    text = f'({text}) COLLATE "C"'
    quoted = f"'\"' || replace({text}, '\"', '\"\"') || '\"'"
    return f"CASE WHEN {value} IS NULL THEN NULL WHEN {text} ~ E'^$|[\",\\r\\n]' THEN {quoted} ELSE {text} END"


def _text(value: str, column: BulkColumn) -> str:
    match column.type_name:
        case "timestamptz":
            return _moment(value, "Z")
        case "timestamp":
            return _moment(value, "")
        case "time":
            return f"to_char({value}::interval, 'HH24:MI:SS.US')"
        case "timetz":
            return _timetz(value)
        case _:
            return f"{value}::text"


def _moment(value: str, zone: str) -> str:
    pattern = 'YYYY-MM-DD"T"HH24:MI:SS.US' + (f'"{zone}"' if zone else "")
    era = f"CASE WHEN {value} < '0001-01-01' THEN ' BC' ELSE '' END"
    return f"CASE WHEN isfinite({value}) THEN to_char({value}, '{pattern}') || {era} ELSE {value}::text END"


def _timetz(value: str) -> str:
    zone = f"substring({value}::text from '[+-].*$')"
    minutes = f"CASE WHEN strpos({zone}, ':') = 0 THEN ':00' ELSE '' END"
    return f"to_char({value}::time::interval, 'HH24:MI:SS.US') || {zone} || {minutes}"


def _one_line(value: str) -> str:
    # In JSON a line break can only stand between tokens.
    return f"translate({value}::text, E'\\n\\r', '  ')"


def _json_number(value: str, name: str) -> str:
    """A float as the encoder of pages writes it. PostgreSQL's digits are the same, its exponents begin elsewhere."""
    if name not in ("float4", "float8"):
        return f"{value}::text"
    f = f"({value}::text::float8)" if name == "float4" else value
    size, text = f"abs({f})", f"{f}::text"
    whole = f"CASE WHEN {f} = trunc({f}) THEN '.0' ELSE '' END"
    return (
        f"CASE WHEN {f} = trunc({f}) AND {size} < 1e15 THEN {text} || '.0'"
        f" WHEN {size} >= 1e-4 AND {size} < 1e15 THEN {text}"
        f" WHEN {size} >= 1e-5 AND {size} < 1e16 THEN {text}::numeric::text || {whole}"
        f" WHEN {size} < 'Infinity' THEN replace(replace({text}, 'e+', 'e'), 'e-0', 'e-')"
        f" ELSE '\"' || {text} || '\"' END"
    )
