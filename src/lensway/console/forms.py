"""Small forms in the bodies of requests."""

from __future__ import annotations

import asyncio
import urllib.parse
from collections.abc import Coroutine, Iterable, Mapping, Sequence
from typing import Any, Final, TypeVar

from starlette.requests import ClientDisconnect, Request

from lensway.errors import ErrorCode, LenswayError

_FORM_BYTES_MAX: Final = 16 * 1024
_FORM_FIELDS_MAX: Final = 60
Result = TypeVar("Result")


class Form:
    """The fields of a small form; a field may come more than once."""

    def __init__(self, fields: Mapping[str, Sequence[str]]) -> None:
        self._fields = fields

    def one(self, name: str) -> str:
        """The field's first value, empty when it is absent."""
        return next(iter(self._fields.get(name, ())), "")

    def all(self, name: str) -> list[str]:
        """Every value of the field, each once."""
        return list(dict.fromkeys(self._fields.get(name, ())))

    def has(self, names: Iterable[str]) -> bool:
        """True when one of these fields is filled in."""
        return any(self.one(name) for name in names)


async def while_connected(request: Request, work: Coroutine[Any, Any, Result]) -> Result:
    """Await the work, once the body was read; cancel it when the browser goes away. Raises LenswayError CANCELLED."""
    task = asyncio.create_task(work, name="work for a page")
    gone = asyncio.create_task(_gone(request), name="the browser goes away")
    try:
        await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            return task.result()
        raise LenswayError(ErrorCode.CANCELLED, "The browser closed the connection")
    finally:
        for each in (task, gone):
            each.cancel()
        await asyncio.gather(task, gone, return_exceptions=True)


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def read_form(request: Request) -> Form:
    """The form in the body. Raises LenswayError PAYLOAD_TOO_LARGE, INVALID_REQUEST, CANCELLED."""
    body = bytearray()
    try:
        async for part in request.stream():
            body += part
            if len(body) > _FORM_BYTES_MAX:
                raise LenswayError(ErrorCode.PAYLOAD_TOO_LARGE, "The form is too large")
    except ClientDisconnect:
        raise LenswayError(ErrorCode.CANCELLED, "The browser closed the connection within the form") from None
    try:
        return Form(urllib.parse.parse_qs(body.decode(), keep_blank_values=True, max_num_fields=_FORM_FIELDS_MAX))
    except (UnicodeDecodeError, ValueError):
        raise LenswayError(ErrorCode.INVALID_REQUEST, "The form cannot be read") from None
