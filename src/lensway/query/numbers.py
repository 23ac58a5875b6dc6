"""Numbers of requests as plans carry them, without a rounding that the database would not do.

Each field has a set of numbers: 64-bit integers, doubles, decimals. What a caller compares with is any number of up to a thousand
digits, and the comparison is that of the two numbers. `PlannedNumber` says in which form the value travels: as the field's own
type, or as an integer or a decimal where that type would round it.
"""

from __future__ import annotations

import decimal
import math
import re
from collections.abc import Sequence
from typing import Final, NamedTuple

from lensway import limits
from lensway.query.conditions import Operator
from lensway.query.fields import FieldType

INT64_MIN: Final = -(2**63)
INT64_MAX: Final = 2**63 - 1
FLOATS: Final = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}
"""The numbers that JSON has no literals for, as texts."""
_DOUBLE_INTEGERS_MAX: Final = 2**53
"""From here on several integers are the same double."""
_DIGITS: Final = limits.NUMBER_CHARACTERS_MAX
_EXPONENT_MAX: Final = 10 * _DIGITS - 1
_INTEGER_DIGITS_MAX: Final = 19
_BITS_PER_DIGIT: Final = 4
"""More than it takes: an integer with more bits has too many digits, which Python need not write to know."""
# ASCII: \d alone takes the digits of every script, which databases do not.
_DECIMAL: Final = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d{1,4})?", re.ASCII)


class NotANumberError(Exception):
    """The value does not have the field's type; the text says what would."""


class PlannedNumber(NamedTuple):
    """A value of a plan, and the type as which it is bound: None is the field's own."""

    value: object
    bound_as: FieldType | None = None


def number(value: object) -> float | int | str:
    """The value of a `number`: a float, or where that would mean another number to an integer column, a 64-bit integer or a
    decimal as text.

    Raises:
        NotANumberError: for what is no number, and for one that a double cannot hold.
    """
    if isinstance(value, str) and value in FLOATS:
        return FLOATS[value]
    if value.__class__ is int and -_DOUBLE_INTEGERS_MAX < value < _DOUBLE_INTEGERS_MAX:
        return float(value)
    if isinstance(value, float):
        return value
    exact = _exact(value, 'a number, "NaN", "Infinity" or "-Infinity"')
    nearest = float(exact)
    if math.isinf(nearest) or (nearest == 0.0 and exact):
        raise NotANumberError("a number that a double can hold")
    whole = _whole(exact)
    if whole is not None:
        return whole if abs(whole) >= _DOUBLE_INTEGERS_MAX else float(whole)
    # A float between two integers compares with both as the number does, and is what a column of floats is compared with.
    return format(exact, "f") if nearest.is_integer() else nearest


def decimal_text(value: object) -> str:
    """The value of a `decimal`, as text without an exponent.

    Raises:
        NotANumberError: for what is no decimal.
    """
    if isinstance(value, str):
        if value in FLOATS:
            return value
        if len(value) > 2 * _DIGITS or not _DECIMAL.fullmatch(value):
            raise NotANumberError("a decimal as text or number")
        exact = _exact(decimal.Decimal(value), "a decimal")
        return format(exact, "f") if "e" in value or "E" in value else value
    return format(_exact(value, "a decimal as text or number"), "f")


def whole_of(text: str) -> int | None:
    """The 64-bit integer that this text of a decimal is, if it is one: columns of integers and of decimals compare with it by
    their indexes."""
    return None if text in FLOATS else _whole(decimal.Decimal(text))


def form_of_number(value: object) -> FieldType | None:
    """As what a value of `number` is bound."""
    if isinstance(value, str):
        return FieldType.DECIMAL
    return FieldType.INTEGER if isinstance(value, int) else None


def listed(values: Sequence[object], type: FieldType) -> PlannedNumber:
    """Checked values of one list, all in one form. NULLs may be among them."""
    present = [value for value in values if value is not None]
    if type is FieldType.DECIMAL:
        wholes = [whole_of(str(value)) for value in present]
        if None in wholes or not wholes:
            return PlannedNumber(list(values))
        found = iter(wholes)
        return PlannedNumber([None if value is None else next(found) for value in values], FieldType.INTEGER)
    if all(isinstance(value, float) for value in present):
        return PlannedNumber(list(values))
    if all(isinstance(value, int) for value in present):
        return PlannedNumber(list(values), FieldType.INTEGER)
    return PlannedNumber([None if value is None else _written(value) for value in values], FieldType.DECIMAL)


class Whole(NamedTuple):
    """A number among the integers of 64 bits: the one that it is, or else the one below it, or the lowest of all."""

    value: int
    is_equal: bool = True
    is_below_all: bool = False


def among_integers(value: object) -> Whole:
    """Where the number stands among the integers of 64 bits.

    Raises:
        NotANumberError: for what is no number.
    """
    if value.__class__ is int and INT64_MIN <= value <= INT64_MAX:
        return Whole(value)
    exact = _exact(value, "an integer")
    whole = _whole(exact)
    if whole is not None:
        return Whole(whole)
    if exact < INT64_MIN:
        return Whole(INT64_MIN, is_equal=False, is_below_all=True)
    return Whole(INT64_MAX if exact > INT64_MAX else math.floor(exact), is_equal=False)


def without_equal(operator: Operator, number: Whole) -> tuple[Operator, int]:
    """The comparison of 64-bit integers that means the same as one with this number, which no such integer equals.

    Equality becomes one that no integer fulfils, so that it stays unknown for NULL.
    """
    match operator:
        case Operator.GT | Operator.GTE:
            return (Operator.GTE if number.is_below_all else Operator.GT), number.value
        case Operator.LT | Operator.LTE:
            return (Operator.LT if number.is_below_all else Operator.LTE), number.value
        case Operator.NE | Operator.NIN:
            return Operator.LTE, INT64_MAX
        case _:
            return Operator.GT, INT64_MAX


def _exact(value: object, expected: str) -> decimal.Decimal:
    """The number with all its digits, within bounds."""
    match value:
        case bool():
            raise NotANumberError(expected)
        case int() if value.bit_length() <= _BITS_PER_DIGIT * _DIGITS:
            exact = decimal.Decimal(value)
        case float() if math.isfinite(value):
            # The shortest spelling, which is what the caller has written.
            exact = decimal.Decimal(repr(value))
        case decimal.Decimal() if value.is_finite():
            exact = value
        case int() | float() | decimal.Decimal():
            raise NotANumberError(f"a number of at most {_DIGITS:,} digits")
        case _:
            raise NotANumberError(expected)
    _, digits, exponent = exact.as_tuple()
    assert isinstance(exponent, int), "it is finite"
    if len(digits) > _DIGITS or abs(exponent) > _EXPONENT_MAX:
        raise NotANumberError(f"a number of at most {_DIGITS:,} digits, and {_EXPONENT_MAX:,} as exponent")
    return exact


def _whole(exact: decimal.Decimal) -> int | None:
    if exact.adjusted() >= _INTEGER_DIGITS_MAX:
        return None
    whole = int(exact)
    return whole if whole == exact and INT64_MIN <= whole <= INT64_MAX else None


def _written(value: object) -> str:
    if isinstance(value, float):
        return next((text for text, each in FLOATS.items() if repr(each) == repr(value)), None) or format(
            decimal.Decimal(repr(value)), "f"
        )
    return str(value)
