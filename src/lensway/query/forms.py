"""What a SQLite bridge registers as functions: each brings what is stored into one form that compares as the type does.

SQLite has no decimals, days or times: the same moment may stand as text in several spellings, as seconds since 1970 or as a
Julian day, and a decimal as a float or as text of any length. Columns and values go through the same function, so that a filter,
an order and a cursor agree with each other and with what a caller is shown. What cannot be understood stays as it is.
"""

from __future__ import annotations

import datetime
import decimal
import re
from collections.abc import Callable, Mapping
from typing import Final, TypeAlias

Stored: TypeAlias = int | float | str | bytes | None
"""What SQLite can store."""

_DAY: Final = r"(\d{4}-\d\d-\d\d)"
_CLOCK: Final = r"(\d\d:\d\d)(?::(\d\d)(?:\.(\d+))?)?"
_ZONE: Final = r"\s*([Zz]|[+-]\d\d(?::?\d\d)?)?"
_TIMESTAMP: Final = re.compile(rf"{_DAY}(?:[Tt ]{_CLOCK}{_ZONE})?", re.ASCII)
_TIME: Final = re.compile(_CLOCK, re.ASCII)
_DECIMAL: Final = re.compile(r"\s*[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d{1,4})?\s*", re.ASCII)
_EPOCH: Final = datetime.datetime(1970, 1, 1)  # noqa: DTZ001 - every form is in UTC and says no zone
_JULIAN_EPOCH_DAYS: Final = 2_440_587.5
_DAY_SECONDS: Final = 86_400
_EXPONENT_OFFSET: Final = 500_000
_COMPLEMENT: Final = str.maketrans("0123456789", "9876543210")
_INFINITE_KEYS: Final[Mapping[object, str]] = {"Infinity": "4", "-Infinity": "0"}
"""As callers are shown an infinite float, which has the same keys."""
# An exact context: nothing of what is stored is rounded away.
_EXACT: Final = decimal.Context(prec=decimal.MAX_PREC, Emax=decimal.MAX_EMAX, Emin=decimal.MIN_EMIN)


def timestamp(value: Stored) -> Stored:
    """``2013-01-31T17:05:00.123456`` in UTC. Text without a zone is UTC, integers are seconds since 1970, floats Julian days."""
    match value:
        case str():
            match = _TIMESTAMP.fullmatch(value)
            if match is None:
                return value
            day, clock, seconds, fraction, zone = match.groups()
            text = f"{day}T{clock or '00:00'}:{seconds or '00'}.{(fraction or '')[:6]:0<6}"
            return text if zone is None or zone in "Zz" else _shifted(text, zone, value)
        case int():
            return _moment(value, value)
        case float():
            return _moment((value - _JULIAN_EPOCH_DAYS) * _DAY_SECONDS, value)
        case _:
            return value


def date(value: Stored) -> Stored:
    """``2013-01-31``: the day of what `timestamp` understands."""
    moment = timestamp(value)
    return moment[:10] if isinstance(moment, str) and moment is not value else value


def time(value: Stored) -> Stored:
    """``17:05:00.123456``; a time of day has no zone here."""
    match = _TIME.fullmatch(value) if isinstance(value, str) else None
    return value if match is None else f"{match[1]}:{match[2] or '00'}.{(match[3] or '')[:6]:0<6}"


def decimal_key(value: Stored) -> Stored:
    """A text that sorts as the decimal does, and is the same for every spelling of the same number: sign, exponent, digits."""
    if value in _INFINITE_KEYS:
        return _INFINITE_KEYS[value]
    number = _decimal(value)
    if number is None:
        return value
    if number.is_infinite():
        return "4" if number > 0 else "0"
    sign, digits, exponent = number.as_tuple()
    assert isinstance(exponent, int)
    significant = "".join(map(str, digits)).lstrip("0")
    if not significant:
        return "2"
    key = f"{len(significant) + exponent + _EXPONENT_OFFSET:07d}{significant.rstrip('0')}"
    # Of two negative numbers the one with more digits is the smaller; the tilde stands behind every digit.
    return "1" + key.translate(_COMPLEMENT) + "~" if sign else "3" + key


def number(value: Stored) -> Stored:
    """The float that a text is the shortest spelling of; for the values of a list, which travel as JSON."""
    try:
        return float(value) if isinstance(value, str) else value
    except ValueError:
        return value


FUNCTIONS: Final[Mapping[str, Callable[[Stored], Stored]]] = {
    "lensway_timestamp": timestamp,
    "lensway_date": date,
    "lensway_time": time,
    "lensway_decimal": decimal_key,
    "lensway_number": number,
}
"""Name in SQL, and the function of one argument. Deterministic; none of them raises."""


def _shifted(text: str, zone: str, value: str) -> Stored:
    hours, minutes = int(zone[1:3]), int(zone[-2:]) if len(zone) > 3 else 0
    offset = datetime.timedelta(hours=hours, minutes=minutes)
    try:
        moment = datetime.datetime.fromisoformat(text)
        moment = moment + offset if zone[0] == "-" else moment - offset
    except (ValueError, OverflowError):
        return value
    return moment.isoformat(timespec="microseconds")


def _moment(seconds: float, value: Stored) -> Stored:
    try:
        return (_EPOCH + datetime.timedelta(seconds=seconds)).isoformat(timespec="microseconds")
    except (ValueError, OverflowError):
        return value


def _decimal(value: Stored) -> decimal.Decimal | None:
    match value:
        case int():
            return decimal.Decimal(value)
        case float():
            # The shortest spelling, which is what a caller is shown.
            return decimal.Decimal(repr(value))
        case str() if _DECIMAL.fullmatch(value):
            return _EXACT.create_decimal(value)
        case _:
            return None
