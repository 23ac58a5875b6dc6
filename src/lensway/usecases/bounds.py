"""What one request may cost: the bounds of the deployment, the lens and the key, and the caller's wish; the strictest holds."""

from __future__ import annotations

import msgspec

from lensway import limits
from lensway.catalog.names import invalid
from lensway.catalog.records import KeyLimits, LensLimits


class Bounds(msgspec.Struct, frozen=True):
    """Meeting one fails the request, it never shortens the result."""

    rows_max: int
    bytes_max: int
    row_bytes_max: int
    timeout_ms: int


def bounds_of(
    lens: LensLimits, key: KeyLimits, page_rows: int | None, timeout_ms: object, *, is_stream: bool, is_held: bool
) -> Bounds:
    """The bounds of a request; ``page_rows`` None is every row. What ``is_held`` until its end is a page at most.

    Raises:
        LenswayError: INVALID_REQUEST for a bad time-out.
    """
    is_export = page_rows is None and is_stream
    default_ms = limits.EXPORT_TIMEOUT_MS_DEFAULT if is_export else limits.QUERY_TIMEOUT_MS_DEFAULT
    return Bounds(
        rows_max=_strictest(page_rows, key.max_rows, lens.max_rows or limits.EXPORT_ROWS_DEFAULT),
        bytes_max=_strictest(
            limits.PAGE_BYTES_MAX if is_held else None,
            key.max_bytes,
            lens.max_bytes or limits.EXPORT_BYTES_DEFAULT,
        ),
        row_bytes_max=_strictest(None, key.max_row_bytes, lens.max_row_bytes or limits.ROW_BYTES_DEFAULT),
        timeout_ms=_strictest(lens.timeout_ms, key.timeout_ms, _timeout(timeout_ms, default_ms)),
    )


def default_page_rows(lens: LensLimits, key: KeyLimits) -> int:
    """Rows of a page whose size was not said: one that the bounds allow."""
    return _strictest(lens.max_rows, key.max_rows, limits.ROWS_PER_PAGE_DEFAULT)


def _strictest(first: int | None, second: int | None, known: int) -> int:
    if first is not None and first < known:
        known = first
    return known if second is None or known < second else second


def _timeout(value: object, default: int) -> int:
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= limits.QUERY_TIMEOUT_MS_MAX:
        raise invalid("timeoutMs", f"must be a whole number from 1 to {limits.QUERY_TIMEOUT_MS_MAX:,}")
    return value
