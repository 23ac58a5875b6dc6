"""Logging: constant event names with fields, one JSON object per line for programs, readable lines on a terminal.

What others say (texts of exceptions, values of variables, messages of libraries) may hold anything: a password that a driver
repeats, a line break that forges a line. Of a defect the log has classes and places, of a library's message its constant part.
"""

from __future__ import annotations

import logging
import re
import sys
import traceback
from collections.abc import Iterator, MutableMapping
from typing import Any, Final

import structlog

from lensway.observe.lines import Lines

_TOKEN: Final = re.compile(r"\b(ak|sk|pk|rk)_[A-Za-z0-9_-]{16,}")
_URL_LOGIN: Final = re.compile(r"://[^/@\s]+@")
_TEXT_CHARACTERS_MAX: Final = 200
_CHAIN_MAX: Final = 5
_FRAMES_MAX: Final = 20
_SECRET_KEYS: Final = frozenset({"token", "password", "authorization", "config", "secret", "key"})


def configure(*, level: str = "info") -> None:
    """Send the log to standard error; once per process."""
    renderer: Any
    lines = Lines(sys.stderr)
    if lines.isatty():
        renderer = structlog.dev.ConsoleRenderer()
    else:
        renderer = structlog.processors.JSONRenderer()
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            defects,
            redact,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level.upper()]),
        logger_factory=structlog.WriteLoggerFactory(file=lines),  # type: ignore[arg-type]  # a text file as far as it is used
        cache_logger_on_first_use=False,
    )
    logging.basicConfig(level=logging.WARNING, handlers=[_Libraries()], force=True)
    # Every port scan fails a handshake; the listener logs what concerns runners itself.
    logging.getLogger("websockets").setLevel(logging.CRITICAL)


class _Libraries(logging.Handler):
    """What libraries log, as events of ours."""

    def emit(self, record: logging.LogRecord) -> None:
        """Pass it on, without the values in it."""
        # asyncio composes its text from the exception itself: nothing of it is constant.
        text = "a task failed" if record.name == "asyncio" else str(record.msg)
        structlog.get_logger(record.name).log(
            record.levelno,
            text[:_TEXT_CHARACTERS_MAX],
            library=record.name,
            place=f"{record.module}:{record.lineno}",
            exc_info=record.exc_info,
        )


def defects(_logger: object, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """An exception as its classes and the places that it passed, outermost last; never its text or its variables."""
    info = event.pop("exc_info", None)
    if info is True:
        info = sys.exc_info()
    error = info[1] if isinstance(info, tuple) else info
    if isinstance(error, BaseException):
        event["defect"] = list(_chain(error))
    return event


def _chain(error: BaseException | None) -> Iterator[dict[str, Any]]:
    for _ in range(_CHAIN_MAX):
        if error is None:
            return
        frames = traceback.extract_tb(error.__traceback__)[-_FRAMES_MAX:]
        yield {
            "type": type(error).__name__,
            "places": [f"{frame.filename}:{frame.lineno} {frame.name}" for frame in reversed(frames)],
        }
        error = error.__cause__ or error.__context__


def redact(_logger: object, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """The last safeguard: text that looks like a credential does not reach the log."""
    for name, value in event.items():
        if name in _SECRET_KEYS:
            event[name] = "redacted"
        else:
            event[name] = _clean(value)
    return event


def _clean(value: Any) -> Any:
    match value:
        case str():
            # A runner logs a line for each job, and few texts hold either.
            cleaned = _TOKEN.sub(r"\1_redacted", value) if "k_" in value else value
            cleaned = _URL_LOGIN.sub("://redacted@", cleaned) if "://" in cleaned else cleaned
            if cleaned.isprintable():
                return cleaned
            # A line break would forge a line, an escape sequence drive the terminal that shows the log.
            return "".join(each if each.isprintable() else repr(each)[1:-1] for each in cleaned)
        case dict():
            return {key: _clean(member) for key, member in value.items()}
        case list() | tuple():
            return [_clean(member) for member in value]
        case _:
            return value
