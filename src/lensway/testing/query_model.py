"""What a query means, written down naively: rows in memory, three-valued logic, sorting. Bridges are compared with it."""

from __future__ import annotations

import base64
import dataclasses
import datetime
import decimal
import random
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final, TypeAlias

from hypothesis import strategies

from lensway.query.fields import Field, FieldType, LensDefinition

Row: TypeAlias = Mapping[str, object]
"""Field name to the value as a caller would write it, or None."""
Truth: TypeAlias = bool | None

_EARLIEST: Final = -(10**18)
_LATEST: Final = 10**18
_FLOATS: Final = {"NaN": (1, 0.0), "Infinity": (0, float("inf")), "-Infinity": (0, float("-inf"))}
_TEXTS: Final = [
    "", "a", "A", "ab", "aB", "AB", "b%", "b_c", "bxc", "b\\%", "c\\", "\\", "*", "a*", "[x]", "?", "^", "é", "zz",
    "a'b;--\"", "$1", "?1", "a\nb",
]  # fmt: skip
_MOMENTS: Final = [
    "2013-01-31T17:05:00Z", "2013-01-31T18:05:00+01:00", "2013-01-31T17:05:00.000001Z", "2012-02-29", "0001-01-01T00:00:00",
    "9999-12-31T23:59:59.999999", "2013-01-31 17:05:00.1", "1970-01-01T00:00:00Z",
]  # fmt: skip

VALUES: Final[Mapping[FieldType, Sequence[object]]] = {
    FieldType.TEXT: _TEXTS,
    FieldType.INTEGER: [-(2**63), -1, 0, 1, 2, 3.0, 2**53, 2**53 + 1, 2**63 - 1],
    FieldType.NUMBER: [
        -1.5,
        0,
        0.1,
        5e-324,
        0.30000000000000004,
        1.7976931348623157e308,
        123456789.12345679,
        "Infinity",
        "-Infinity",
    ],
    FieldType.DECIMAL: [
        "0",
        "-0.0",
        "0.10",
        "0.1",
        0.1,
        "-1.5",
        "-1.50",
        "-1.49",
        "12345678901234567890.123456789",
        "1e3",
        1000,
        "-1e-7",
        "12345678901234567890.123456788",
        "9.99",
    ],
    FieldType.BOOLEAN: [True, False],
    FieldType.DATE: ["0001-01-01", "2012-02-29", "2013-01-31", "9999-12-31"],
    FieldType.TIME: ["00:00:00", "17:05:00", "17:05:00.000001", "17:05:00.1", "23:59:59.999999", "24:00:00"],
    FieldType.TIMESTAMP: _MOMENTS,
    FieldType.UUID: [
        "00000000-0000-0000-0000-000000000000",
        "6ba7b810-9dad-11d1-80b4-00c04fd430c8",
        "6BA7B8109DAD11D180B400C04FD430C8",
        "ffffffff-ffff-ffff-ffff-ffffffffffff",
    ],
    FieldType.BYTES: ["", "AA==", "AAE=", "/w==", "YQ=="],
}
"""Few values, so that there are matches and ties; odd ones, so that they are worth it. As callers write them."""

SPECIAL_VALUES: Final[Mapping[FieldType, Sequence[object]]] = {
    FieldType.NUMBER: ["NaN"],
    FieldType.DECIMAL: ["NaN"],
    FieldType.DATE: ["infinity", "-infinity", "10000-01-01", "0044-03-15 BC"],
    FieldType.TIMESTAMP: ["infinity", "-infinity", "10000-01-01T00:00:00Z", "0044-03-15T12:00:00Z BC"],
}
"""The values that only some databases have."""

ORDERED_TYPES: Final = tuple(VALUES)


def make_definition(*, name: str = "things", table: str = "things") -> LensDefinition:
    """A lens with a composite key and a nullable and a not nullable field of every type.

    The columns are named to be mistaken: for keywords, for other fields, for pieces of SQL.
    """
    fields = [
        Field(name="key_a", column="order", type=FieldType.INTEGER, primary_key=True),
        Field(name="key_b", column='we"ird; --', type=FieldType.TEXT, primary_key=True),
    ]
    for type in ORDERED_TYPES:
        # Each column has the name of the other field, and so ORDER BY of a bare name would be that of the wrong one.
        fields.append(Field(name=type.value, column=f"{type.value}_x", type=type))
        fields.append(Field(name=f"{type.value}_x", column=type.value, type=type, nullable=False))
    fields.append(Field(name="doc", column="döc", type=FieldType.JSON))
    fields.append(Field(name="tags", column="tags", type=FieldType.TEXT, is_list=True))
    return LensDefinition(name=name, table=table, fields={field.name: field for field in fields})


def make_rows(definition: LensDefinition, *, count: int, has_special_values: bool, seed: int = 1) -> list[Row]:
    """Rows with NULLs, ties and odd values; json and list fields hold NULL or a text."""
    chance = random.Random(seed)
    rows: list[Row] = []
    for number in range(count):
        row: dict[str, object] = {}
        for field in definition.fields.values():
            if field.type is FieldType.JSON or field.is_list:
                row[field.name] = chance.choice([None, "[]"])
                continue
            known = values_of(field.type, has_special_values=has_special_values)
            row[field.name] = None if field.nullable and chance.random() < 0.3 else chance.choice(known)
        # Half of the keys differ in their second column only.
        row["key_a"], row["key_b"] = number // 2, "bA"[number % 2]
        rows.append(row)
    chance.shuffle(rows)
    return rows


def values_of(type: FieldType, *, has_special_values: bool) -> Sequence[object]:
    """What a field of this type is tested with."""
    return [*VALUES[type], *(SPECIAL_VALUES.get(type, ()) if has_special_values else ())]


# --- meaning --------------------------------------------------------------------------------------------------------------


def matches(where: object, row: Row, definition: LensDefinition) -> bool:
    """Whether the filter holds for the row: unknown is no."""
    return where is None or _group(where, row, definition) is True


def expected(
    rows: Sequence[Row], definition: LensDefinition, where: object, order_by: Sequence[Mapping[str, str]]
) -> list[Row]:
    """The matching rows in the order asked for, then in that of the primary key."""
    found = [row for row in rows if matches(where, row, definition)]
    terms = [(item["field"], item.get("dir") == "desc") for item in order_by]
    terms += [(field.name, False) for field in definition.primary_key]
    for name, descending in reversed(terms):
        found.sort(key=_key(definition.fields[name]), reverse=descending)
    return found


def comparable(value: object, type: FieldType) -> object:
    """The value as something that Python compares as databases do."""
    match type:
        case FieldType.NUMBER | FieldType.DECIMAL:
            # NaN equals itself and is larger than everything, as in PostgreSQL.
            if isinstance(value, str) and value in _FLOATS:
                return _FLOATS[value]
            return (0, float(str(value)) if type is FieldType.NUMBER else decimal.Decimal(str(value)))
        case FieldType.TIMESTAMP | FieldType.DATE:
            return _moment(str(value))
        case FieldType.TIME:
            text = str(value)
            return f"{text}.000000" if "." not in text else f"{text:0<15}"
        case FieldType.UUID:
            return str(value).replace("-", "").lower()
        case FieldType.BYTES:
            return base64.b64decode(str(value))
        case _:
            return value


def _key(field: Field) -> Callable[[Row], tuple[bool, Any]]:
    return lambda row: _place(row[field.name], field.type)


def _place(value: object, type: FieldType) -> tuple[bool, Any]:
    # Reversed for descending, so that NULLs are last when ascending and first when descending.
    return (True, 0) if value is None else (False, comparable(value, type))


def _moment(text: str) -> int:
    if text.endswith("infinity"):
        return _EARLIEST if text.startswith("-") else _LATEST
    before_christ = text.endswith(" BC")
    year, rest = text.removesuffix(" BC").split("-", 1)
    shown = 1 - int(year) if before_christ else int(year)
    # The calendar repeats itself every 400 years, which are 146,097 days.
    cycles = (shown - 1600) // 400
    moment = datetime.datetime.fromisoformat(f"{shown - 400 * cycles:04d}-{rest}")
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=datetime.UTC)
    since = moment - datetime.datetime(1600, 1, 1, tzinfo=datetime.UTC)
    return since // datetime.timedelta(microseconds=1) + cycles * 146_097 * 86_400 * 10**6


def _group(where: object, row: Row, definition: LensDefinition) -> Truth:
    assert isinstance(where, Mapping)
    return _all([_item(key, value, row, definition) for key, value in where.items()])


def _item(key: str, value: object, row: Row, definition: LensDefinition) -> Truth:
    if key in ("$and", "$or"):
        assert isinstance(value, list)
        truths = [_group(item, row, definition) for item in value]
        return _all(truths) if key == "$and" else _any(truths)
    if key == "$not":
        return _not(_group(value, row, definition))
    type, stored = definition.fields[key].type, row[key]
    if isinstance(value, list):
        return _operation("$in", value, stored, type)
    if isinstance(value, Mapping):
        return _all([_operation(operator, item, stored, type) for operator, item in value.items()])
    return _operation("$eq", value, stored, type)


def _operation(operator: str, value: object, stored: object, type: FieldType) -> Truth:
    if operator == "$exists":
        return (stored is not None) is value
    if value is None and operator in ("$eq", "$ne"):
        return (stored is None) is (operator == "$eq")
    if operator == "$nin":
        return _not(_operation("$in", value, stored, type))
    if operator == "$in":
        assert isinstance(value, list)
        # A NULL in the list is a comparison with NULL: unknown.
        return _any([_operation("$eq", item, stored, type) if item is not None else None for item in value])
    if value is None or stored is None:
        return None
    if operator in _PATTERNS:
        return _PATTERNS[operator](str(value), str(stored))
    return _COMPARISONS[operator](comparable(stored, type), comparable(value, type))


def _all(truths: Sequence[Truth]) -> Truth:
    return False if False in truths else None if None in truths else True


def _any(truths: Sequence[Truth]) -> Truth:
    return True if True in truths else None if None in truths else False


def _not(truth: Truth) -> Truth:
    return None if truth is None else not truth


_COMPARISONS: Final[Mapping[str, Callable[..., bool]]] = {
    "$eq": lambda stored, value: stored == value,
    "$ne": lambda stored, value: stored != value,
    "$gt": lambda stored, value: stored > value,
    "$gte": lambda stored, value: stored >= value,
    "$lt": lambda stored, value: stored < value,
    "$lte": lambda stored, value: stored <= value,
}


def _like(pattern: str, text: str) -> bool:
    regex = "".join({"%": ".*", "_": "."}.get(character, re.escape(character)) for character in pattern)
    return re.fullmatch(regex, text, re.DOTALL) is not None


def _folded(text: str) -> str:
    return "".join(character.lower() if character.isascii() else character for character in text)


_PATTERNS: Final[Mapping[str, Callable[[str, str], bool]]] = {
    "$like": _like,
    "$ilike": lambda pattern, text: _like(_folded(pattern), _folded(text)),
    "$contains": lambda value, text: _folded(value) in _folded(text),
    "$startsWith": lambda value, text: _folded(text).startswith(_folded(value)),
    "$endsWith": lambda value, text: _folded(text).endswith(_folded(value)),
}


# --- strategies -----------------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A filter, an order and a page size."""

    where: object
    order_by: list[dict[str, str]]
    limit: int


def questions(definition: LensDefinition, *, has_special_values: bool) -> strategies.SearchStrategy[Asked]:
    """Queries on the lens, every operator and type among them."""
    fields = [field for field in definition.fields.values() if field.type is not FieldType.JSON and not field.is_list]
    term = strategies.builds(
        lambda field, direction: {"field": field.name, "dir": direction},
        strategies.sampled_from(fields),
        strategies.sampled_from(["asc", "desc"]),
    )
    return strategies.builds(
        Asked,
        where=strategies.none() | wheres(definition, has_special_values=has_special_values),
        order_by=strategies.lists(term, max_size=3, unique_by=lambda each: each["field"]),
        limit=strategies.integers(1, 12),
    )


def conditions(definition: LensDefinition, *, has_special_values: bool) -> Iterator[Mapping[str, object]]:
    """Every operator of every field with every value, one condition each."""
    for field in definition.fields.values():
        if field.type is FieldType.JSON or field.is_list:
            continue
        known = values_of(field.type, has_special_values=has_special_values)
        for operator in (*_COMPARISONS, *(_PATTERNS if field.type is FieldType.TEXT else ())):
            yield from ({field.name: {operator: value}} for value in known)
        for value in known:
            for operator in ("$in", "$nin"):
                yield from ({field.name: {operator: listed}} for listed in ([value], [value, None]))


def wheres(definition: LensDefinition, *, has_special_values: bool) -> strategies.SearchStrategy[object]:
    """Filters on the lens."""
    condition = strategies.sampled_from(list(definition.fields.values())).flatmap(
        lambda field: strategies.tuples(strategies.just(field.name), _conditions(field, has_special_values))
    )
    leaf = strategies.lists(condition, min_size=1, max_size=2).map(dict)
    return strategies.recursive(
        leaf,
        lambda inner: strategies.one_of(
            strategies.lists(inner, max_size=3).map(lambda items: {"$and": items}),
            strategies.lists(inner, max_size=3).map(lambda items: {"$or": items}),
            inner.map(lambda item: {"$not": item}),
        ),
        max_leaves=5,
    )


def _conditions(field: Field, has_special_values: bool) -> strategies.SearchStrategy[object]:
    exists: strategies.SearchStrategy[object] = strategies.booleans().map(lambda value: {"$exists": value})
    if field.type is FieldType.JSON or field.is_list:
        return exists
    value = strategies.sampled_from(values_of(field.type, has_special_values=has_special_values)) | strategies.none()
    listed = strategies.lists(value, max_size=4)
    operations: list[strategies.SearchStrategy[object]] = [
        exists,
        value,
        listed,
        *(value.map(lambda item, name=name: {name: item}) for name in _COMPARISONS),  # type: ignore[misc]
        *(listed.map(lambda item, name=name: {name: item}) for name in ("$in", "$nin")),  # type: ignore[misc]
    ]
    if field.type is FieldType.TEXT:
        pattern = value | strategies.text("abAB%_\\*?[]^'", max_size=4)
        operations += [pattern.map(lambda item, name=name: {name: item}) for name in _PATTERNS]  # type: ignore[misc]
    return strategies.one_of(operations)
