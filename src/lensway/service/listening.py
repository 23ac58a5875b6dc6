"""HTTP servers of this process: their sockets, with one helpful line when a port is in use, and the listener of metrics."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable, Iterator

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from lensway import limits
from lensway.auth.shares import Shares
from lensway.errors import ErrorCode, LenswayError
from lensway.observe.metrics import CONTENT_TYPE, Metrics
from lensway.service.connection import Connection, Door

Accept = Callable[[Callable[[], asyncio.BaseProtocol], socket.socket], asyncio.AbstractServer]
"""Accepts connections on a socket that listens; the first argument makes the protocol of each."""


class HttpServer(uvicorn.Server):
    """Leaves signals to the program, which decides the order in which things stop. ``accept`` replaces the event loop's way of
    accepting connections."""

    def __init__(self, config: uvicorn.Config, accept: Accept | None = None) -> None:
        super().__init__(config)
        self._accept = accept

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to accept connections."""
        if self._accept is None or sockets is None:
            await super().startup(sockets)
            return
        await self.lifespan.startup()
        self.servers = [self._accept(self._protocol, sock) for sock in sockets]  # type: ignore[misc]  # closed, and waited for
        self.started = True

    def _protocol(self) -> asyncio.BaseProtocol:
        made: asyncio.BaseProtocol = self.config.http_protocol_class(  # type: ignore[call-arg]
            config=self.config, server_state=self.server_state, app_state=self.lifespan.state
        )
        return made

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leaves them alone."""
        yield


def http_server(
    app: object,
    host: str,
    port: int,
    *,
    shares: Shares,
    door: Door | None,
    is_tls: bool,
    stall_seconds: float,
    drain_seconds: float,
    accept: Accept | None = None,
) -> HttpServer:
    """The server of the API and the Console; it serves on the sockets that it is given.

    Args:
        app: The ASGI application.
        host: Where it listens, for its own records.
        port: The same.
        shares: The places of connections without a known key.
        door: Makes the protocol that shakes hands before a connection begins; None without TLS.
        is_tls: Whether callers use TLS, here or at a proxy.
        stall_seconds: After that time, a caller that takes nothing is disconnected.
        drain_seconds: Time for requests to finish once the server ends.
        accept: Accepts connections; None leaves it to the event loop.
    """
    return HttpServer(
        uvicorn.Config(
            app,  # type: ignore[arg-type]
            host=host,
            port=port,
            http=Connection.stalling_after(  # type: ignore[arg-type]
                stall_seconds + limits.STALL_GRACE_SECONDS, shares=shares, door=door
            ),
            log_config=None,
            access_log=False,
            server_header=False,
            headers=security_headers(is_tls=is_tls),
            # `--trusted-proxies` alone decides who asks; the library would trust every peer on this machine.
            proxy_headers=False,
            date_header=True,
            lifespan="off",
            ws="none",
            timeout_keep_alive=limits.HTTP_IDLE_SECONDS,
            timeout_graceful_shutdown=int(drain_seconds),
            h11_max_incomplete_event_size=64 * limits.KIB,
        ),
        accept,
    )


def bound(host: str, port: int, option: str) -> socket.socket:
    """A socket at this address; ``::`` takes IPv4 too. Raises LenswayError INVALID_REQUEST naming the option otherwise."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        found = socket.socket(family, socket.SOCK_STREAM)
    except OSError as error:
        # A system without IPv6.
        raise port_error(host, port, option, error) from None
    found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        if family is socket.AF_INET6:
            # Every listener of this process behaves alike, on every system.
            found.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        found.bind((host, port))
        # At once: until it listens, another process can bind the same address.
        found.listen(limits.BACKLOG)
    except OSError as error:
        found.close()
        raise port_error(host, port, option, error) from None
    found.set_inheritable(True)
    return found


def port_error(host: str, port: int, option: str, error: OSError) -> LenswayError:
    """The error for an address that cannot be bound."""
    return LenswayError(
        ErrorCode.INVALID_REQUEST,
        f"cannot listen on {host}:{port} ({(error.strerror or 'address').lower()})",
        hint=f"Another server may use this address. Choose another one with {option} HOST:PORT.",
    )


def security_headers(*, is_tls: bool) -> list[tuple[str, str]]:
    """What every response says to browsers: its type is what it says, and, where callers use TLS, that they always should."""
    headers = [("x-content-type-options", "nosniff")]
    if is_tls:
        headers.append(("strict-transport-security", f"max-age={limits.HSTS_SECONDS}"))
    return headers


class MetricsListener:
    """`/metrics` without a key, on a socket of its own: every peer that reaches it may read it."""

    def __init__(self, sock: socket.socket, metrics: Metrics) -> None:
        self._sockets = [sock]

        async def show(request: Request) -> Response:
            return Response(metrics.text(), headers={"Content-Type": CONTENT_TYPE})

        app = Starlette(routes=[Route("/metrics", show)])
        self._http = HttpServer(
            uvicorn.Config(
                app,
                http=Connection.stalling_after(limits.STALL_TIMEOUT_SECONDS),  # type: ignore[arg-type]
                log_config=None,
                access_log=False,
                server_header=False,
                proxy_headers=False,
                lifespan="off",
                ws="none",
            )
        )
        self._serving: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Answer what arrives at the socket."""
        self._serving = asyncio.create_task(self._http.serve(sockets=self._sockets), name="metrics")

    async def close(self) -> None:
        """Stop listening."""
        self._http.should_exit = True
        if self._serving is not None:
            await asyncio.wait({self._serving})
