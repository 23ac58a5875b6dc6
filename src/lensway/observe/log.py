"""Logging: constant event names with fields, one JSON object per line for programs, readable lines on a terminal."""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import MutableMapping
from typing import Any, Final

import structlog

_TOKEN: Final = re.compile(r"\b(ak|sk|pk|rk)_[A-Za-z0-9_-]{16,}")
_URL_LOGIN: Final = re.compile(r"://[^/@\s]+@")
_SECRET_KEYS: Final = frozenset({"token", "password", "authorization", "config", "secret", "key"})


def configure(*, level: str = "info") -> None:
    """Send the log to standard error; once per process."""
    renderer: Any
    if sys.stderr.isatty():
        renderer = structlog.dev.ConsoleRenderer()
    else:
        renderer = structlog.processors.JSONRenderer()
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.dict_tracebacks,
            redact,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level.upper()]),
        logger_factory=structlog.WriteLoggerFactory(file=sys.stderr),
        cache_logger_on_first_use=False,
    )


def redact(_logger: object, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """The last belt: whatever looks like a credential does not reach the log."""
    for name, value in event.items():
        if name in _SECRET_KEYS:
            event[name] = "redacted"
        else:
            event[name] = _clean(value)
    return event


def _clean(value: Any) -> Any:
    match value:
        case str():
            return _URL_LOGIN.sub("://redacted@", _TOKEN.sub(r"\1_redacted", value))
        case dict():
            return {key: _clean(member) for key, member in value.items()}
        case list() | tuple():
            return [_clean(member) for member in value]
        case _:
            return value
