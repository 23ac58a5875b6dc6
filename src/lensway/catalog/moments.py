"""Moments as the catalog keeps them: RFC 3339 in UTC with milliseconds. Texts of this one form compare as their moments do."""

from __future__ import annotations

import datetime

from lensway.catalog.names import invalid, shown

_HINT = "Use a date (2030-01-31, which means 00:00 UTC) or a moment with its zone (2030-01-31T12:00:00Z)."


def moment_text(moment: datetime.datetime) -> str:
    """The text of a moment that has a zone."""
    return moment.astimezone(datetime.UTC).isoformat(timespec="milliseconds")


def read_moment(value: object, path: str) -> str:
    """A moment that a caller wrote, in the catalog's form. Raises LenswayError INVALID_REQUEST."""
    if not isinstance(value, str):
        raise invalid(path, "must be a date or a moment, as text", hint=_HINT)
    try:
        found = datetime.datetime.fromisoformat(value)
        if found.tzinfo is None:
            # A moment without its zone means another one on every machine; a date alone is read as UTC.
            found = datetime.datetime.combine(datetime.date.fromisoformat(value), datetime.time(), datetime.UTC)
        return moment_text(found)
    except (ValueError, OverflowError):
        raise invalid(path, f"{shown(value)} is not a date or a moment with its zone", hint=_HINT) from None
