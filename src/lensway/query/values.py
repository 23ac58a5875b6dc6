"""Values of requests, checked against the type of their field and brought into the form that plans carry.

That form is plain: text, 64-bit integers, floats, booleans, bytes; decimals, dates, times, timestamps and uuids as canonical
text. The bridge binds it; nothing of it is ever part of a statement.
"""

from __future__ import annotations

import base64
import binascii
import datetime
import decimal
import math
import re
import uuid
from collections.abc import Callable, Mapping
from typing import Final

from lensway import limits
from lensway.errors import ErrorCode, LenswayError
from lensway.query.fields import FieldType

_INT64: Final = range(-(2**63), 2**63)
_DECIMAL_CHARACTERS_MAX: Final = 1_000
_DECIMAL: Final = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d{1,4})?|NaN")
_TIMESTAMP: Final = re.compile(
    r"(?P<day>\d{4,6}-\d\d-\d\d)(?:[T ](?P<time>\d\d:\d\d:\d\d(?:\.\d{1,6})?))?(?P<zone>[Zz]|[+-]\d\d:\d\d)?(?P<era> BC)?"
)
_DATE: Final = re.compile(r"\d{4,6}-\d\d-\d\d( BC)?")
_TIME: Final = re.compile(r"\d\d:\d\d:\d\d(\.\d{1,6})?([Zz]|[+-]\d\d:\d\d)?")
_FLOATS: Final = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}


class WrongValueError(Exception):
    """The value does not fit; the text says what would."""


def check(value: object, type: FieldType, path: str) -> object:
    """The value in the form of plans.

    Raises:
        LenswayError: INVALID_REQUEST naming the path and what was expected; the value itself is not repeated.
    """
    try:
        return _CHECKS[type](value)
    except WrongValueError as error:
        raise LenswayError(
            ErrorCode.INVALID_REQUEST, f"{path}: expected {error}, got {_kind(value)}", details={"path": path}
        ) from None


def _kind(value: object) -> str:
    if value is None:
        return "null"
    names = {bool: "a boolean", int: "an integer", float: "a number", str: "a text", list: "a list", dict: "an object"}
    return names.get(type(value), "something else") + (
        " that does not fit" if isinstance(value, (str, int, float)) else ""
    )


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
        raise WrongValueError(f"a text of at most {limits.TEXT_VALUE_BYTES_MAX} bytes")
    return value


def _integer(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        if isinstance(value, float) and value.is_integer() and int(value) in _INT64:
            return int(value)
        raise WrongValueError("an integer")
    if value not in _INT64:
        raise WrongValueError("an integer of 64 bits")
    return value


def _number(value: object) -> float:
    if isinstance(value, str) and value in _FLOATS:
        return _FLOATS[value]
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise WrongValueError('a number, "NaN", "Infinity" or "-Infinity"')
    try:
        return float(value)
    except OverflowError:
        raise WrongValueError("a number that a double can hold") from None


def _decimal(value: object) -> str:
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        raise WrongValueError("a decimal as text or number")
    text = str(value) if not isinstance(value, float) else repr(value)
    if len(text) > _DECIMAL_CHARACTERS_MAX or not _DECIMAL.fullmatch(text):
        raise WrongValueError("a decimal as text or number")
    if text == "NaN":
        return text
    return format(decimal.Decimal(text), "f") if "e" in text or "E" in text else text


def _boolean(value: object) -> bool:
    if not isinstance(value, bool):
        raise WrongValueError("true or false")
    return value


def _date(value: object) -> str:
    text = _text(value)
    if not _DATE.fullmatch(text) and text not in ("infinity", "-infinity"):
        raise WrongValueError("a date such as 2013-01-31")
    _check_day(text)
    return text


def _time(value: object) -> str:
    text = _text(value)
    if not _TIME.fullmatch(text):
        raise WrongValueError("a time such as 17:05:00")
    _check_time(text)
    return text


def _timestamp(value: object) -> str:
    text = _text(value)
    if text in ("infinity", "-infinity"):
        return text
    match = _TIMESTAMP.fullmatch(text)
    if match is None:
        raise WrongValueError("a timestamp such as 2013-01-31T17:05:00Z")
    _check_day(match["day"] + (match["era"] or ""))
    time = match["time"] or "00:00:00"
    _check_time(time)
    seconds, _, fraction = time.partition(".")
    zone = (match["zone"] or "").upper()
    return f"{match['day']}T{seconds}.{fraction:0<6}{zone}{match['era'] or ''}"


def _check_day(text: str) -> None:
    if text.endswith("infinity"):
        return
    year, month, day = text.removesuffix(" BC").split("-")
    try:
        # Years that Python cannot hold are checked by a leap year of theirs: the database knows better.
        datetime.date(
            int(year) if len(year) == 4 and int(year) > 0 and not text.endswith("BC") else 2000, int(month), int(day)
        )
    except ValueError:
        raise WrongValueError("a day that exists") from None


def _check_time(text: str) -> None:
    hours, minutes, seconds = (float(part) for part in re.split(r"[Zz+-]", text)[0].split(":"))
    if hours > 24 or minutes > 59 or seconds >= 60 or (hours == 24 and (minutes or seconds)):
        raise WrongValueError("a time that exists")


def _uuid(value: object) -> str:
    try:
        return str(uuid.UUID(_text(value)))
    except ValueError:
        raise WrongValueError("a uuid") from None


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
