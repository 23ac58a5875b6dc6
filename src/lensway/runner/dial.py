"""Dialling the gateway: one WebSocket, upgraded with the runner's token. Says which failures dialling again cannot cure."""

from __future__ import annotations

import asyncio
import pathlib
import socket
import ssl
from collections.abc import Awaitable, Callable
from typing import Any, Final

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import InvalidHandshake, InvalidStatus, InvalidURI, ProxyError
from websockets.proxy import get_proxy
from websockets.typing import Subprotocol
from websockets.uri import parse_uri

from lensway import limits
from lensway.errors import ErrorCode, LenswayError
from lensway.protocol.transport import Transport
from lensway.protocol.version import SUBPROTOCOL
from lensway.runner.settings import RunnerSettings

Dial = Callable[[], Awaitable[Transport]]

_FINAL_STATUS: Final = frozenset({401, 403})


class DialError(Exception):
    """The gateway could not be reached or refused us. ``cause`` is a short class, ``hint`` what to do."""

    def __init__(self, cause: str, hint: str, *, is_final: bool = False, retry_after: float = 0.0) -> None:
        super().__init__(cause)
        self.cause = cause
        self.hint = hint
        self.is_final = is_final
        self.retry_after = retry_after


def tls_context(url: str, ca_file: pathlib.Path | None) -> ssl.SSLContext | None:
    """How the gateway's certificate is checked; None for ws://. Raises LenswayError for a CA file that is none."""
    if not url.startswith("wss://"):
        return None
    try:
        return ssl.create_default_context(cafile=None if ca_file is None else str(ca_file))
    except (ssl.SSLError, OSError):
        raise LenswayError(ErrorCode.INVALID_REQUEST, f"LENSWAY_CA_FILE {ca_file} holds no certificates") from None


async def addresses_of(host: str, port: int) -> list[str]:
    """Every address that the name stands for now. Raises OSError."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


class Dialer:
    """Opens connections with these settings."""

    def __init__(
        self,
        settings: RunnerSettings,
        transport_of: Callable[[Any], Transport],
        resolve: Callable[[str, int], Awaitable[list[str]]] = addresses_of,
    ) -> None:
        self._settings = settings
        self._resolve = resolve
        self._known: list[str] = []
        self._transport_of = transport_of
        self._tls = tls_context(settings.gateway_url, settings.ca_file)

    async def __call__(self) -> Transport:
        """A connection that the gateway has upgraded. Raises DialError."""
        try:
            connection = await self._connect()
        except InvalidStatus as error:
            raise _of_status(error.response.status_code, error.response.headers.get("Retry-After")) from None
        except ssl.SSLCertVerificationError:
            raise DialError(
                "certificate",
                "The gateway's certificate is not trusted here; set LENSWAY_CA_FILE to the CA that signed it.",
            ) from None
        except ssl.SSLError:
            raise DialError("tls", "The TLS handshake failed; is the port one that speaks TLS?") from None
        except TimeoutError:
            raise DialError("timeout", "The gateway does not answer; look at the address and at firewalls.") from None
        except ConnectionRefusedError:
            raise DialError(
                "refused", "Nothing listens there; is the server up, and is this its gateway port?"
            ) from None
        except LenswayError as error:
            # The token's file is being written, or is gone for now.
            raise DialError("token", str(error)) from None
        except (OSError, UnicodeError) as error:
            cause = "unknown_host" if isinstance(error, (socket.gaierror, UnicodeError)) else "unreachable"
            raise DialError(cause, "Look at LENSWAY_GATEWAY_URL, DNS and the network.") from None
        except (InvalidHandshake, InvalidURI, ProxyError, ValueError):  # ValueError: it sends us to another host
            raise DialError(
                "handshake", "What answers there is not a Lensway gateway (or a proxy is in between)."
            ) from None
        return self._transport_of(connection)

    async def _connect(self) -> ClientConnection:
        uri = parse_uri(self._settings.gateway_url)
        if get_proxy(uri) is not None:
            return await self._connect_to(None, limits.HANDSHAKE_TIMEOUT_SECONDS)
        *others, last = await self._addresses(uri.host, uri.port)
        for address in others:
            try:
                return await self._connect_to(address, limits.HANDSHAKE_TIMEOUT_SECONDS / 2)
            except ssl.SSLError:
                raise
            except OSError:
                continue  # the name has other addresses
        return await self._connect_to(last, limits.HANDSHAKE_TIMEOUT_SECONDS)

    async def _addresses(self, host: str, port: int) -> list[str]:
        """What the name stands for now; while it cannot be looked up, what it stood for last."""
        try:
            async with asyncio.timeout(limits.HANDSHAKE_TIMEOUT_SECONDS):
                self._known = await self._resolve(host, port) or self._known
        except (OSError, UnicodeError):
            if not self._known:
                raise
        return self._known

    async def _connect_to(self, address: str | None, seconds: float) -> ClientConnection:
        where: dict[str, Any] = {} if address is None else {"host": address}
        return await connect(
            self._settings.gateway_url,
            additional_headers={"Authorization": f"Bearer {self._settings.fresh_token().reveal()}"},
            subprotocols=[Subprotocol(SUBPROTOCOL)],
            compression=None,
            max_size=limits.MESSAGE_BYTES_MAX,
            max_queue=8,
            ping_interval=None,
            open_timeout=seconds,
            close_timeout=limits.CLOSE_TIMEOUT_SECONDS,
            user_agent_header=None,
            ssl=self._tls,
            **where,
        )


def _of_status(status: int, retry_after: str | None) -> DialError:
    if status == 401:
        return DialError(
            "unauthenticated", "The token is not (or no longer) valid: rotate it and start again.", is_final=True
        )
    if status in _FINAL_STATUS:
        return DialError("forbidden", "The runner is revoked, or something in between refuses it.", is_final=True)
    wait = float(retry_after) if retry_after and retry_after.isdecimal() else 0.0
    if status in (429, 503):
        return DialError("busy", "The server is busy or starting.", retry_after=wait)
    return DialError(f"status_{status}", "What answers there is not a Lensway gateway; look at LENSWAY_GATEWAY_URL.")
