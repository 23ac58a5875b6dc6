"""The grammar of `where`: a JSON object becomes a tree of comparisons and a list of values, or a typed error with its path."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Final

from lensway import limits
from lensway.errors import ErrorCode, LenswayError
from lensway.query import numbers, unavailable, values
from lensway.query.capabilities import Capabilities
from lensway.query.conditions import PATTERN_OPERATORS, And, Compare, Constant, IsNull, Node, Not, Operator, Or
from lensway.query.fields import Field, FieldType, LensDefinition, PlanColumn
from lensway.query.suggestions import nearest

_OPERATORS: Final = {f"${operator.value}": operator for operator in Operator}
_EXISTS: Final = "$exists"
_EVERY_ROW: Final = And(())
# A tuple: members are compared by identity, where a set would hash an enum.
_NUMERIC: Final = (FieldType.INTEGER, FieldType.NUMBER, FieldType.DECIMAL)
_INTEGER: Final = FieldType.INTEGER
_TEXT: Final = FieldType.TEXT
_GROUPS: Final = ("$and", "$or", "$not")
_WITH_WILDCARDS: Final = (Operator.LIKE, Operator.ILIKE)


def parse(
    where: object, definition: LensDefinition, capabilities: Capabilities
) -> tuple[Node | None, tuple[object, ...]]:
    """The tree (None: every row) and its values.

    Raises:
        LenswayError: INVALID_REQUEST, UNKNOWN_FIELD or UNSUPPORTED_OPERATOR, naming the path of the offender.
    """
    if where is None:
        return None, ()
    reader = _Reader(definition, capabilities)
    node = reader.group(where, "where", 1)
    return (None if node == _EVERY_ROW else node), tuple(reader.params)


def unknown_field(name: str, definition: LensDefinition, path: str) -> LenswayError:
    """The error for a field that the lens does not have."""
    near = nearest(name, definition.fields)
    return LenswayError(
        ErrorCode.UNKNOWN_FIELD,
        f"{path}: lens {definition.name!r} has no field {_short(name)!r}",
        hint=f"did you mean {near!r}?" if near else f"fields: {', '.join(definition.fields)}"[:500],
        details={"path": path, "field": _short(name), **({"nearest": near} if near else {})},
    )


class _Reader:
    def __init__(self, definition: LensDefinition, capabilities: Capabilities) -> None:
        self._definition = definition
        self._capabilities = capabilities
        self._nodes = 0
        self._patterns = 0
        self._pattern_characters = 0
        self.params: list[object] = []

    def group(self, where: object, path: str, depth: int) -> Node:
        if not isinstance(where, dict):
            raise _invalid(path, 'expected an object such as {"total": {"$gt": 100}}')
        if depth > limits.REQUEST_NESTING_MAX:
            raise _invalid(path, f"nested deeper than {limits.REQUEST_NESTING_MAX} levels")
        if not where:
            self._count()
        return _all([self._item(key, value, f"{path}.{_short(key)}", depth) for key, value in where.items()])

    def _item(self, key: str, value: object, path: str, depth: int) -> Node:
        if key in ("$and", "$or"):
            if not isinstance(value, list):
                raise _invalid(path, "expected a list of conditions")
            items = [self.group(item, f"{path}[{number}]", depth + 1) for number, item in enumerate(value)]
            if not items:
                self._count()
                return Constant(key == "$and")
            return _all(items) if key == "$and" or len(items) == 1 else Or(tuple(items))
        if key == "$not":
            self._count()
            return Not(self.group(value, path, depth + 1))
        if key.startswith("$"):
            raise _unknown_operator(
                key, path, _GROUPS, f"operators belong under a field; allowed here: {', '.join(_GROUPS)}"
            )
        field = self._definition.fields.get(key)
        if field is None:
            raise unknown_field(key, self._definition, path)
        return self._conditions(field, value, path)

    def _conditions(self, field: Field, value: object, path: str) -> Node:
        if isinstance(value, list):
            return self._compare(field, Operator.IN, value, path)
        if not isinstance(value, dict):
            return self._compare(field, Operator.EQ, value, path)
        if not value:
            raise _invalid(path, 'expected a value or operators such as {"$gt": 100}')
        return _all([self._operation(field, key, item, f"{path}.{_short(key)}") for key, item in value.items()])

    def _operation(self, field: Field, key: str, value: object, path: str) -> Node:
        if key == _EXISTS:
            self._count()
            if not isinstance(value, bool):
                raise _invalid(path, "expected true or false")
            is_null = IsNull(field.plan_column)
            return Not(is_null) if value else is_null
        operator = _OPERATORS.get(key)
        if operator is None:
            if _has_members(field) and key not in unavailable.OPERATORS:
                raise _exists_only(field, path)
            known = operators_of(field, self._capabilities.operators)
            raise _unknown_operator(key, path, known, f"operators of field {field.name!r}: {', '.join(known)}")
        return self._compare(field, operator, value, path)

    def _compare(self, field: Field, operator: Operator, value: object, path: str) -> Node:
        self._count()
        column = field.plan_column
        if value is None and operator in (Operator.EQ, Operator.NE):
            is_null = IsNull(column)
            return is_null if operator is Operator.EQ else Not(is_null)
        self._check_operator(field, operator, path)
        if operator in (Operator.IN, Operator.NIN):
            return self._membership(column, operator, value, path)
        if value is None:
            return Constant(None)  # NULL under any other operator is unknown
        if column.type is not _TEXT and column.type in _NUMERIC:
            return self._number(operator, column, value, path)
        checked = self._value(value, column.type, path)
        if operator in PATTERN_OPERATORS:
            self._check_pattern(operator, checked, path)
        return Compare(operator, column, self._param(checked), _is_zoned(column, checked))

    def _membership(self, column: PlanColumn, operator: Operator, value: object, path: str) -> Node:
        if not isinstance(value, list):
            raise _invalid(path, "expected a list of values")
        if not value:
            return Constant(operator is Operator.NIN)
        if len(value) > limits.IN_VALUES_MAX:
            raise _invalid(path, f"{len(value):,} values; {limits.IN_VALUES_MAX:,} is the limit")
        if column.type is FieldType.INTEGER:
            return self._integers(column, operator, value, path)
        checked = [
            None if item is None else self._value(item, column.type, f"{path}[{number}]")
            for number, item in enumerate(value)
        ]
        if column.type in _NUMERIC:
            listed, bound_as = numbers.listed(checked, column.type)
            return Compare(operator, column, self._param(listed), bound_as=bound_as)
        zoned = any(_is_zoned(column, item) for item in checked)
        return Compare(operator, column, self._param(checked), zoned)

    def _number(self, operator: Operator, column: PlanColumn, value: object, path: str) -> Node:
        """A comparison of the column with a number that its type may not hold."""
        if column.type is _INTEGER:
            if value.__class__ is int and numbers.INT64_MIN <= value <= numbers.INT64_MAX:
                return Compare(operator, column, self._param(value))
            whole = self._whole(value, path)
            if whole.is_equal:
                return Compare(operator, column, self._param(whole.value))
            operator, bound = numbers.without_equal(operator, whole)
            return Compare(operator, column, self._param(bound))
        checked = self._value(value, column.type, path)
        if column.type is FieldType.NUMBER:
            return Compare(operator, column, self._param(checked), bound_as=numbers.form_of_number(checked))
        integer = numbers.whole_of(str(checked))
        if integer is None:
            return Compare(operator, column, self._param(checked))
        return Compare(operator, column, self._param(integer), bound_as=FieldType.INTEGER)

    def _integers(self, column: PlanColumn, operator: Operator, items: list[object], path: str) -> Node:
        """Membership in those of the numbers that are integers: the others equal none."""
        wholes = [None if item is None else self._whole(item, f"{path}[{at}]") for at, item in enumerate(items)]
        listed = [None if each is None else each.value for each in wholes if each is None or each.is_equal]
        if listed:
            return Compare(operator, column, self._param(listed))
        operator, bound = numbers.without_equal(operator, numbers.Whole(0, is_equal=False))
        return Compare(operator, column, self._param(bound))

    def _whole(self, value: object, path: str) -> numbers.Whole:
        try:
            return numbers.among_integers(value)
        except numbers.NotANumberError as error:
            raise values.unfit(value, str(error), path) from None

    def _value(self, value: object, type: FieldType, path: str) -> object:
        checked = values.check(value, type, path)
        if not self._capabilities.has_special_values and values.is_special(checked, type):
            raise _invalid(path, f"databases of bridge {self._capabilities.bridge!r} have no such {type.value}")
        return checked

    def _check_pattern(self, operator: Operator, pattern: object, path: str) -> None:
        self._patterns += 1
        if self._patterns > limits.PATTERNS_MAX:
            raise _beyond(path, f"more than {limits.PATTERNS_MAX} pattern conditions in one query", "patterns")
        if not isinstance(pattern, str):
            return
        if len(pattern) > limits.PATTERN_CHARACTERS_MAX:
            most = limits.PATTERN_CHARACTERS_MAX
            raise _beyond(path, f"a pattern of {len(pattern):,} characters; {most:,} is the limit", "patternCharacters")
        if operator in _WITH_WILDCARDS and pattern.count("%") > limits.PATTERN_WILDCARDS_MAX:
            most = limits.PATTERN_WILDCARDS_MAX
            raise _beyond(
                path, f"a pattern of {pattern.count('%'):,} wildcards; {most} is the limit", "patternWildcards"
            )
        self._pattern_characters += len(pattern)
        if self._pattern_characters > limits.PATTERNS_CHARACTERS_MAX:
            most = limits.PATTERNS_CHARACTERS_MAX
            raise _beyond(path, f"more than {most:,} characters in the patterns of one query", "patternsCharacters")

    def _check_operator(self, field: Field, operator: Operator, path: str) -> None:
        if operator not in self._capabilities.operators:
            raise _unsupported(path, f"bridge {self._capabilities.bridge!r} does not support ${operator.value}")
        if _has_members(field):
            raise _exists_only(field, path)
        if operator in PATTERN_OPERATORS and field.type is not FieldType.TEXT:
            raise _unsupported(path, f"${operator.value} is for text; field {field.name!r} is {field.type.value}")

    def _count(self) -> None:
        # What is counted is every leaf and every $not; the rest of the tree joins at least two of them.
        self._nodes += 1
        if self._nodes > limits.WHERE_NODES_MAX:
            raise _invalid("where", f"more than {limits.WHERE_NODES_MAX:,} conditions")

    def _param(self, value: object) -> int:
        self.params.append(value)
        return len(self.params) - 1


def operators_of(field: Field, available: Collection[Operator] = frozenset(Operator)) -> list[str]:
    """The operators that a condition on this field may use, where the bridge has ``available``."""
    if _has_members(field):
        return [_EXISTS]
    is_text = field.type is FieldType.TEXT
    return [
        name
        for name, operator in _OPERATORS.items()
        if operator in available and (is_text or operator not in PATTERN_OPERATORS)
    ] + [_EXISTS]


def _has_members(field: Field) -> bool:
    return field.type is FieldType.JSON or field.is_list


def _exists_only(field: Field, path: str) -> LenswayError:
    kind = "a list" if field.is_list else "json"
    return LenswayError(
        ErrorCode.UNSUPPORTED_OPERATOR,
        f"{path}: field {field.name!r} is {kind} and supports only $exists",
        hint=unavailable.MEMBERS_HINT,
        details={"path": path},
    )


def _unknown_operator(key: str, path: str, known: Iterable[str], hint: str) -> LenswayError:
    other = unavailable.OPERATORS.get(key)
    near = nearest(key, known) if other is None else None
    return LenswayError(
        ErrorCode.UNSUPPORTED_OPERATOR,
        f"{path}: unknown operator {_short(key)!r}",
        hint=other or (f"did you mean {near!r}?" if near else hint),
        details={"path": path, "operator": _short(key), **({"nearest": near} if near else {})},
    )


def _all(items: list[Node]) -> Node:
    return items[0] if len(items) == 1 else And(tuple(items))


def _is_zoned(column: PlanColumn, value: object) -> bool:
    return column.type is FieldType.TIME and values.has_zone(value)


def _short(name: str) -> str:
    return name if len(name) <= limits.NAME_CHARACTERS_MAX else name[: limits.NAME_CHARACTERS_MAX] + "…"


def _invalid(path: str, message: str) -> LenswayError:
    return LenswayError(ErrorCode.INVALID_REQUEST, f"{path}: {message}", details={"path": path})


def _beyond(path: str, message: str, bound: str) -> LenswayError:
    return LenswayError(
        ErrorCode.INVALID_REQUEST,
        f"{path}: {message}",
        hint="Search for a shorter text, or split the query.",
        details={"path": path, "bound": bound},
    )


def _unsupported(path: str, message: str) -> LenswayError:
    return LenswayError(ErrorCode.UNSUPPORTED_OPERATOR, f"{path}: {message}", details={"path": path})
