"""The reference of the hot path: what one would write by hand, and nothing else.

    python -m benchmarks.bare PORT DSN [stripped]

Raw ASGI under uvicorn (uvloop, httptools), asyncpg with a pool of the same size, prepared statements, rows to JSON with msgspec.
No keys, no checks, no log, no deadline. ``stripped`` goes further than one would by hand: the driver's pool does not reset a
connection between two uses, so that every query is one round trip.
"""

from __future__ import annotations

import sys
from typing import Any

import asyncpg
import msgspec
import uvicorn

from lensway import limits

_POINT = "SELECT id, customer, note, total, placed FROM orders WHERE id = $1 ORDER BY id LIMIT $2"
_PAGE = "SELECT id, customer, note, total, placed FROM orders WHERE id >= $1 ORDER BY id LIMIT $2"
_encode = msgspec.json.Encoder().encode
_HEADERS = (b"content-type", b"application/json")


class Bare:
    """The application."""

    def __init__(self, dsn: str, *, is_stripped: bool) -> None:
        self._dsn = dsn
        self._options = {"reset": _no_reset} if is_stripped else {}
        self._pool: Any = None

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            await self._live(receive, send)
            return
        message = await receive()
        body = message["body"]
        while message.get("more_body"):
            message = await receive()
            body += message["body"]
        asked = msgspec.json.decode(body)
        statement = _POINT if scope["path"] == "/point" else _PAGE
        async with self._pool.acquire() as connection:
            rows = await connection.fetch(statement, asked["id"], asked["limit"])
        answer = b'{"rows":' + _encode([dict(row) for row in rows]) + b"}"
        headers = [_HEADERS, (b"content-length", b"%d" % len(answer))]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": answer})

    async def _live(self, receive: Any, send: Any) -> None:
        while (message := await receive())["type"] != "lifespan.shutdown":
            if message["type"] == "lifespan.startup":
                size = limits.CONNECTIONS_PER_SOURCE_MAX
                self._pool = await asyncpg.create_pool(self._dsn, min_size=size, max_size=size, **self._options)
                await send({"type": "lifespan.startup.complete"})
        await self._pool.close()
        await send({"type": "lifespan.shutdown.complete"})


async def _no_reset(connection: Any) -> None:
    """Nothing here changes a session."""


if __name__ == "__main__":
    uvicorn.run(
        Bare(sys.argv[2], is_stripped="stripped" in sys.argv[3:]),
        host="127.0.0.1",
        port=int(sys.argv[1]),
        loop="uvloop",
        http="httptools",
        access_log=False,
        log_level="warning",
    )
