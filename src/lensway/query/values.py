"""Values of requests, checked against the type of their field and brought into the form that plans carry.

That form is plain: text, 64-bit integers, floats, booleans, bytes; decimals, dates, times, timestamps and uuids as canonical
text. The bridge binds it; nothing of it is ever part of a statement. Cursors and last keys carry the same form.
"""

from __future__ import annotations

import base64
import binascii
import calendar
import decimal
import math
import re
from collections.abc import Callable, Mapping
from typing import Final

from lensway import limits
from lensway.errors import ErrorCode, LenswayError
from lensway.query import numbers
from lensway.query.fields import FieldType

_INT64: Final = range(-(2**63), 2**63)
_DAY: Final = r"(?P<year>\d{4,7})-(?P<month>\d\d)-(?P<day>\d\d)"
_CLOCK: Final = r"(?P<hour>\d\d):(?P<minute>\d\d):(?P<second>\d\d)(?:\.(?P<fraction>\d{1,6}))?"
_ZONE: Final = r"(?P<zone>[Zz]|[+-](?P<zone_hour>\d\d):(?P<zone_minute>\d\d))?"
_DATE: Final = re.compile(rf"{_DAY}(?P<era> BC)?", re.ASCII)
_TIME: Final = re.compile(rf"{_CLOCK}{_ZONE}", re.ASCII)
_TIMESTAMP: Final = re.compile(rf"{_DAY}(?:[Tt ]{_CLOCK})?{_ZONE}(?P<era> BC)?", re.ASCII)
_UUID: Final = re.compile(r"([0-9a-f]{8})-?([0-9a-f]{4})-?([0-9a-f]{4})-?([0-9a-f]{4})-?([0-9a-f]{12})")
_INFINITE_DAYS: Final = frozenset({"infinity", "-infinity"})
# PostgreSQL's ranges, the widest of any bridge.
_DATE_YEAR_MAX: Final = 5_874_896
_TIMESTAMP_YEAR_MAX: Final = 294_275
_YEARS_BC_MAX: Final = 4_713
_ZONE_HOURS_MAX: Final = 15


class WrongValueError(Exception):
    """The value does not fit; the text says what would."""


def check(value: object, type: FieldType, path: str) -> object:
    """The value in the form of plans.

    Raises:
        LenswayError: INVALID_REQUEST naming the path and what was expected; the value itself is not repeated.
    """
    try:
        return _CHECKS[type](value)
    except (WrongValueError, numbers.NotANumberError) as error:
        raise unfit(value, str(error), path) from None


def unfit(value: object, expected: str, path: str) -> LenswayError:
    """The error for a value that its field cannot be compared with."""
    return LenswayError(
        ErrorCode.INVALID_REQUEST,
        f"{path}: expected {expected}, got {_kind(value, expected)}",
        details={"path": path},
    )


def fits(value: object, type: FieldType) -> bool:
    """Whether this is a value in the form of plans, for what comes from a peer instead of from `check`. NULL is not one.

    A text may hold a NUL character, as those of some databases do; a cursor brings it back to where it came from.
    """
    match type:
        case FieldType.INTEGER:
            return value.__class__ is int and value in _INT64
        case FieldType.NUMBER:
            return value.__class__ is float or (value.__class__ is int and value in _INT64)
        case FieldType.BOOLEAN:
            return value.__class__ is bool
        case FieldType.BYTES:
            return value.__class__ is bytes
        case FieldType.JSON:
            return False
        case _:
            return isinstance(value, str)


def fits_integer(value: int) -> bool:
    """Whether the integer has 64 bits."""
    return value in _INT64


def is_special(value: object, type: FieldType) -> bool:
    """Whether this checked value is one that only some databases know: not a number, an infinite decimal or day, a year
    before 1 or after 9999, a time of day with a zone. Infinite floats are known everywhere."""
    match type:
        case FieldType.NUMBER:
            return isinstance(value, float) and math.isnan(value)
        case FieldType.DECIMAL:
            return value in numbers.FLOATS
        case FieldType.DATE | FieldType.TIMESTAMP:
            return isinstance(value, str) and (value in _INFINITE_DAYS or value[4] != "-" or value.endswith(" BC"))
        case FieldType.TIME:
            return has_zone(value)
        case _:
            return False


_NEVER_TEXTS: Final = ("true or false", "$exists")


def has_zone(value: object) -> bool:
    """Whether this text of a time of day says its zone."""
    return isinstance(value, str) and any(sign in value for sign in "Z+-")


def _kind(value: object, expected: str) -> str:
    if value is None:
        return "null"
    names = {bool: "a boolean", int: "an integer", float: "a number", decimal.Decimal: "a number"}
    names |= {str: "a text", list: "a list", dict: "an object"}
    kind = names.get(type(value), "something else")
    # Only of a kind that could have fitted: a text can be a date, and a number too large an integer.
    could_fit = expected.startswith("an integer") if type(value) is not str else not expected.startswith(_NEVER_TEXTS)
    is_scalar = isinstance(value, (str, int, float, decimal.Decimal)) and not isinstance(value, bool)
    return f"{kind} that does not fit" if is_scalar and could_fit else kind


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise WrongValueError("a text")
    if "\0" in value:
        raise WrongValueError("a text without NUL characters")
    try:
        size = len(value.encode())
    except UnicodeEncodeError:
        raise WrongValueError("a text of valid Unicode") from None
    if size > limits.TEXT_VALUE_BYTES_MAX:
        raise WrongValueError(f"a text of at most {limits.TEXT_VALUE_BYTES_MAX:,} bytes")
    return value


def _integer(value: object) -> int:
    whole = numbers.among_integers(value)
    if not whole.is_equal:
        raise WrongValueError("an integer of 64 bits")
    return whole.value


def _number(value: object) -> object:
    return numbers.number(value)


def _decimal(value: object) -> str:
    return numbers.decimal_text(value)


def _boolean(value: object) -> bool:
    if not isinstance(value, bool):
        raise WrongValueError("true or false")
    return value


def _date(value: object) -> str:
    expected = "a date such as 2013-01-31"
    text = _text(value)
    if text in _INFINITE_DAYS:
        return text
    match = _DATE.fullmatch(text)
    if match is None:
        raise WrongValueError(expected)
    _check_day(match, _DATE_YEAR_MAX)
    return text


def _time(value: object) -> str:
    match = _TIME.fullmatch(_text(value))
    if match is None:
        raise WrongValueError("a time such as 17:05:00 or 17:05:00.123456")
    _check_clock(match, hours=24)
    _check_zone(match)
    return match[0].upper()


def _timestamp(value: object) -> str:
    text = _text(value)
    if text in _INFINITE_DAYS:
        return text
    match = _TIMESTAMP.fullmatch(text)
    if match is None:
        raise WrongValueError("a timestamp such as 2013-01-31T17:05:00Z or 2013-01-31T17:05:00.123456")
    _check_day(match, _TIMESTAMP_YEAR_MAX)
    if match["hour"]:
        _check_clock(match, hours=23)
    _check_zone(match)
    day = f"{match['year']}-{match['month']}-{match['day']}"
    clock = f"{match['hour'] or '00'}:{match['minute'] or '00'}:{match['second'] or '00'}.{match['fraction'] or '':0<6}"
    return f"{day}T{clock}{(match['zone'] or '').upper()}{match['era'] or ''}"


def _check_day(match: re.Match[str], year_max: int) -> None:
    year, month, day = int(match["year"]), int(match["month"]), int(match["day"])
    # Only 4 digits unless needed: so a year has one spelling.
    if not 1 <= year <= (_YEARS_BC_MAX if match["era"] else year_max) or (len(match["year"]) > 4) != (year > 9999):
        raise WrongValueError("a year that databases support")
    # The year before 1 is 1 BC, and the calendar repeats itself every 400 years.
    proleptic = (1 - year if match["era"] else year) % 400 + 2000
    if not 1 <= month <= 12 or not 1 <= day <= calendar.monthrange(proleptic, month)[1]:
        raise WrongValueError("a day that exists")


def _check_clock(match: re.Match[str], *, hours: int) -> None:
    hour, minute, second = int(match["hour"]), int(match["minute"]), int(match["second"])
    beyond = hour == 24 and (minute or second or int(match["fraction"] or "0"))
    if hour > hours or minute > 59 or second > 59 or beyond:
        raise WrongValueError("a time that exists")


def _check_zone(match: re.Match[str]) -> None:
    if match["zone_hour"] and (int(match["zone_hour"]) > _ZONE_HOURS_MAX or int(match["zone_minute"]) > 59):
        raise WrongValueError("a zone that exists")


def _uuid(value: object) -> str:
    match = _UUID.fullmatch(_text(value).lower())
    if match is None:
        raise WrongValueError("a uuid")
    return "-".join(match.groups())


def _bytes(value: object) -> bytes:
    try:
        return base64.b64decode(_text(value), validate=True)
    except (binascii.Error, ValueError):
        raise WrongValueError("bytes as base64") from None


def _json(value: object) -> object:
    raise WrongValueError("$exists only")


_CHECKS: Final[Mapping[FieldType, Callable[[object], object]]] = {
    FieldType.TEXT: _text,
    FieldType.INTEGER: _integer,
    FieldType.NUMBER: _number,
    FieldType.DECIMAL: _decimal,
    FieldType.BOOLEAN: _boolean,
    FieldType.DATE: _date,
    FieldType.TIME: _time,
    FieldType.TIMESTAMP: _timestamp,
    FieldType.UUID: _uuid,
    FieldType.JSON: _json,
    FieldType.BYTES: _bytes,
}
