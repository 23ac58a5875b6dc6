"""What a SQLite bridge registers as functions: each brings what is stored into one form that compares as the type does.

SQLite has no decimals, days or times: the same moment may stand as text in several spellings, as seconds since 1970 or as a
Julian day, and a decimal as a float or as text of any length. Columns and values go through the same function, so that a filter,
an order and a cursor agree with each other and with what a caller is shown. What
is not a value of the type is refused where it would be shown; see `FUNCTIONS` for what orders and filters make of it.
"""

from __future__ import annotations

import datetime
import decimal
import math
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
_UUID: Final = re.compile(
    r"([0-9a-f]{8})-?([0-9a-f]{4})-?([0-9a-f]{4})-?([0-9a-f]{4})-?([0-9a-f]{12})", re.ASCII | re.IGNORECASE
)
_MIDNIGHT: Final = "24:00:00.000000"
_ZONE_HOURS_MAX: Final = 15
_EPOCH: Final = datetime.datetime(1970, 1, 1)  # noqa: DTZ001 - every form is in UTC and says no zone
_JULIAN_EPOCH_DAYS: Final = 2_440_587.5
_DAY_SECONDS: Final = 86_400
_EXPONENT_OFFSET: Final = 500_000
_COMPLEMENT: Final = str.maketrans("0123456789", "9876543210")
_INFINITE_KEYS: Final[Mapping[object, str]] = {"Infinity": "4", "-Infinity": "0"}
"""As callers are shown an infinite float, which has the same keys."""
# An exact context: nothing of what is stored is rounded away.
_EXACT: Final = decimal.Context(prec=decimal.MAX_PREC, Emax=decimal.MAX_EMAX, Emin=decimal.MIN_EMIN)


def timestamp(value: Stored) -> str | None:
    """``2013-01-31T17:05:00.123456`` in UTC. Text without a zone is UTC, integers are seconds since 1970, floats Julian days."""
    match value:
        case str():
            match = _TIMESTAMP.fullmatch(value)
            return None if match is None else _read(match)
        case int():
            return _moment(value)
        case float():
            return _moment((value - _JULIAN_EPOCH_DAYS) * _DAY_SECONDS)
        case _:
            return None


def date(value: Stored) -> str | None:
    """``2013-01-31``: the day of what `timestamp` understands."""
    moment = timestamp(value)
    return None if moment is None else moment[:10]


def time(value: Stored) -> str | None:
    """``17:05:00.123456``, up to ``24:00:00``; a time of day has no zone here."""
    match = _TIME.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        return None
    text = f"{match[1]}:{match[2] or '00'}.{(match[3] or '')[:6]:0<6}"
    return text if text <= _MIDNIGHT and text[3:8] <= "59:59" and text[6:8] <= "59" else None


def decimal_key(value: Stored) -> str | None:
    """A text that sorts as the decimal does, and is the same for every spelling of the same number: sign, exponent, digits."""
    if value in _INFINITE_KEYS:
        return _INFINITE_KEYS[value]
    number = _decimal(value)
    if number is None:
        return None
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


def finite_decimal_key(value: Stored) -> str | None:
    """As `decimal_key`; None for infinities, which no decimal here is."""
    return None if isinstance(value, float) and math.isinf(value) else decimal_key(value)


def decimal_text(value: Stored) -> str | None:
    """The decimal as callers are shown it: as it is spelled, or the shortest spelling of a float."""
    if isinstance(value, str):
        return value.strip() if _DECIMAL.fullmatch(value) else None
    if isinstance(value, float):
        return repr(value) if math.isfinite(value) else None
    return str(value) if isinstance(value, int) else None


def is_uuid(value: Stored) -> bool:
    """Whether this is a UUID in some spelling."""
    return isinstance(value, str) and _UUID.fullmatch(value) is not None


def uuid(value: Stored) -> str | None:
    """The UUID in lower case with hyphens."""
    match = _UUID.fullmatch(value) if isinstance(value, str) else None
    return None if match is None else "-".join(match.groups()).lower()


def spellings(uuid: str) -> tuple[str, ...]:
    """How the UUID is stored when it is stored as people do, so that an index finds it."""
    plain = uuid.replace("-", "")
    return uuid, uuid.upper(), plain, plain.upper()


def number(value: Stored) -> Stored:
    """The float that a text is the shortest spelling of; for numbers that travel as text."""
    try:
        return float(value) if isinstance(value, str) else value
    except ValueError:
        return value


def _or_itself(form: Callable[[Stored], Stored]) -> Callable[[Stored], Stored]:
    def formed(value: Stored) -> Stored:
        found = form(value)
        return value if found is None else found

    return formed


FUNCTIONS: Final[Mapping[str, Callable[[Stored], Stored]]] = {
    "lensway_timestamp": _or_itself(timestamp),
    "lensway_date": _or_itself(date),
    "lensway_time": _or_itself(time),
    "lensway_decimal": _or_itself(decimal_key),
    "lensway_number": number,
    "lensway_timestamp_only": timestamp,
    "lensway_date_only": date,
    "lensway_time_only": time,
    "lensway_decimal_only": finite_decimal_key,
    "lensway_uuid_only": uuid,
}
"""Name in SQL, and the function of one argument. Deterministic; they never raise.

Orders and cursors keep what cannot be understood as it is, so that it has a place and no page steps over it. Filters use the
functions named ``only``: there it is unknown, as NULL is.
"""


def _read(match: re.Match[str]) -> str | None:
    day, clock, seconds, fraction, zone = match.groups()
    text = f"{day}T{clock or '00:00'}:{seconds or '00'}.{(fraction or '')[:6]:0<6}"
    try:
        moment = datetime.datetime.fromisoformat(text)
        if zone is None or zone in "Zz":
            return text
        hours, minutes = int(zone[1:3]), int(zone[-2:]) if len(zone) > 3 else 0
        if hours > _ZONE_HOURS_MAX or minutes > 59:
            return None
        offset = datetime.timedelta(hours=hours, minutes=minutes)
        return (moment + offset if zone[0] == "-" else moment - offset).isoformat(timespec="microseconds")
    except (ValueError, OverflowError):
        return None


def _moment(seconds: float) -> str | None:
    try:
        return (_EPOCH + datetime.timedelta(seconds=seconds)).isoformat(timespec="microseconds")
    except (ValueError, OverflowError):
        return None


def _decimal(value: Stored) -> decimal.Decimal | None:
    match value:
        case int():
            return decimal.Decimal(value)
        case float():
            # The shortest spelling, which is what a caller is shown.
            return decimal.Decimal(repr(value))
        case str() if _DECIMAL.fullmatch(value):
            return _EXACT.create_decimal(value.strip())
        case _:
            return None
