"""Between effects and the HTTP library: what the blocking and the awaiting shell have in common."""

from __future__ import annotations

import importlib
import socket
import sys
from typing import Any, Final

import httpx2

from lensway import limits
from lensway.client import exceptions
from lensway.client.core import Answer, Connection, Loss, Lost, Send
from lensway.errors import ErrorCode
from lensway.ways.causes import Cause

_WRITE_SECONDS: Final = 60.0

CLOSED: Final = "the client is closed; connect again, or keep it open until the last row is read"


def connection(
    url: str,
    key: str,
    environment: str | None,
    timeout: float,
    *,
    repeats: bool,
    ca_file: str | None,
    compression: bool,
    insecure: bool,
) -> Connection:
    """What `connect` was told."""
    return Connection(
        url=url,
        key=key,
        environment=environment,
        timeout_seconds=timeout,
        attempts_max=limits.CLIENT_ATTEMPTS_MAX if repeats else 1,
        ca_file=ca_file,
        is_compressing=compression,
        is_insecure=insecure,
    )


def client_options(connection: Connection) -> dict[str, Any]:
    """What both clients of the library are made with. Raises InvalidRequestError for certificates that cannot be read."""
    headers = {"Authorization": f"Bearer {connection.key}"}
    if not connection.is_compressing:
        # Work on both sides, which only a slow way between them is worth.
        headers["Accept-Encoding"] = "identity"
    if connection.environment:
        headers["X-Environment"] = connection.environment
    return {"base_url": connection.url.rstrip("/"), "headers": headers, "trust_env": False}


def request_options(effect: Send) -> dict[str, Any]:
    """The request of an effect."""
    request = effect.request
    content = request.content(effect.remaining_seconds)
    headers = {"Accept": request.accept, **trace_headers()}
    if content is not None:
        headers["Content-Type"] = "application/json"
    timeout = httpx2.Timeout(
        connect=max(0.001, min(limits.CLIENT_CONNECT_SECONDS, effect.remaining_seconds)),
        read=request.patience_seconds(effect.remaining_seconds),
        write=_WRITE_SECONDS,
        pool=None,
    )
    return {
        "method": request.method,
        "url": request.path,
        "params": request.params,
        "content": content,
        "headers": headers,
        "timeout": timeout,
    }


def trace_headers() -> dict[str, str]:
    """The headers that join a request to the application's own trace; none where it has none."""
    headers: dict[str, str] = {}
    # Who has a span has imported this; who has none does not pay for it.
    if "opentelemetry.trace" in sys.modules:
        importlib.import_module("opentelemetry.propagate").inject(headers)
    return headers


def lost(error: Exception, origin: str) -> Lost:
    """What an error of the library means for an answer that had begun."""
    if isinstance(error, httpx2.TimeoutException):
        return Lost(Loss.SILENT, type(error).__name__, origin)
    return Lost(Loss.CUT, type(error).__name__, origin)


def answer(
    response: httpx2.Response, origin: str, *, body: bytes = b"", stream: object = None, cause: Cause | None = None
) -> Answer:
    """The library's response as a value."""
    headers = {name.lower(): value for name, value in response.headers.items()}
    return Answer(response.status_code, headers, body, origin, stream, cause)


def check_size(size: int) -> None:
    """Raises LimitExceededError for an answer that is too large to be read as a whole."""
    if size > limits.CLIENT_ANSWER_BYTES_MAX:
        raise exceptions.LimitExceededError(
            ErrorCode.LIMIT_EXCEEDED,
            f"the answer is larger than {limits.CLIENT_ANSWER_BYTES_MAX:,} bytes",
            hint="Request a smaller page, or use `encoded` or `export`, which stream.",
        )


def keepalive() -> list[tuple[int, int, int]]:
    """A server whose host vanished is noticed although nothing arrives that would say so."""
    known = [getattr(socket, name) for name in ("TCP_KEEPIDLE", "TCP_KEEPINTVL") if hasattr(socket, name)]
    return [
        (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
        (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1),
        *((socket.IPPROTO_TCP, option, limits.CLIENT_KEEPALIVE_SECONDS) for option in known),
    ]
