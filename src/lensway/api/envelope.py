"""Errors as HTTP answers them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from lensway.errors import CODES, Failure

_NAMING: Final = frozenset({"runners", "runner", "attempts", "instance", "sessions"})
"""Details that name runners; publishable keys do not get them."""


def error_body(failure: Failure, request_id: str, *, is_public: bool = False) -> dict[str, Any]:
    """The envelope. ``is_public``: for a publishable key, so without the names of runners."""
    details: Mapping[str, object] = failure.details
    message, hint = failure.message, failure.hint
    if is_public and not _NAMING.isdisjoint(details):
        details = {key: value for key, value in details.items() if key not in _NAMING}
        message, hint = CODES[failure.code].meaning, None
    elif is_public and details.get("class") == "undefined_table":
        hint = None  # it names other tables
    error: dict[str, Any] = {
        "code": failure.code.value,
        "message": message,
        "requestId": request_id,
        "details": details,
    }
    if hint is not None:
        error["hint"] = hint
    return {"error": error}
