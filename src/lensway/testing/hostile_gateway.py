"""A gateway that is not ours: speaks the protocol, and says what it likes to a real runner process."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable
from typing import Any, Self

from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.typing import Subprotocol

from lensway.protocol.codec import Decoder, encode
from lensway.protocol.frames import AnyFrame, Heartbeat, Hello, Welcome
from lensway.protocol.version import SUBPROTOCOL

WELCOME = Welcome(
    version=1, session=1, runner_name="x", environment="env", heartbeat_ms=2000, fence_ms=8000, nonce=b"n"
)


class HostileGateway:
    """Listens on a thread of its own; the script decides what a runner that says hello is told. Given several, each has one
    connection, in their order, and the runner has to dial again for the next."""

    def __init__(self, *scripts: Callable[[Conversation], Any], welcome: Welcome = WELCOME) -> None:
        self._scripts = list(scripts)
        self._welcome = welcome
        self._started = threading.Event()
        self._finished = threading.Event()
        self.error: BaseException | None = None
        self.port = 0
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._started.wait(10)
        return self

    def __exit__(self, *exc: object) -> None:
        self._finished.set()
        self._thread.join(10)

    @property
    def url(self) -> str:
        """What a runner dials."""
        return f"ws://127.0.0.1:{self.port}/connect"

    def wait(self, seconds: float = 20) -> None:
        """Return when the last script is over; raises what one raised."""
        assert self._finished.wait(seconds), "the script did not end"
        if self.error is not None:
            raise self.error

    async def _run(self) -> None:
        async with serve(
            self._serve, "127.0.0.1", 0, subprotocols=[Subprotocol(SUBPROTOCOL)], compression=None
        ) as server:
            self.port = server.sockets[0].getsockname()[1]
            self._started.set()
            while not self._finished.is_set():
                await asyncio.sleep(0.02)

    async def _serve(self, connection: ServerConnection) -> None:
        script = self._scripts.pop(0) if self._scripts else None
        if script is None:
            return
        try:
            conversation = Conversation(connection)
            conversation.hello = await conversation.next(Hello)
            await conversation.say(self._welcome)
            await conversation.say(Heartbeat(sequence=1, ack=0, revision=1))
            await script(conversation)
        except BaseException as error:  # noqa: BLE001 - reported to the waiting test
            self.error = error
        finally:
            if self.error is not None or not self._scripts:
                self._finished.set()


class Conversation:
    """One connection: frames out, frames in."""

    def __init__(self, connection: ServerConnection) -> None:
        self._connection = connection
        self._decoder = Decoder()
        self._arrived: list[AnyFrame] = []
        self.hello: Hello | None = None

    async def say(self, *frames: AnyFrame) -> None:
        """Send frames."""
        await self._connection.send(encode(frames))

    async def say_bytes(self, message: bytes) -> None:
        """Send a message as it is."""
        await self._connection.send(message)

    async def closed(self) -> None:
        """Return when the runner has ended the connection; what it says until then is dropped."""
        async with asyncio.timeout(15):
            with contextlib.suppress(ConnectionClosed):
                while True:
                    await self._connection.recv(decode=False)

    async def next(self, kind: type) -> Any:
        """The next frame of this kind; others are skipped."""
        async with asyncio.timeout(10):
            while True:
                for index, frame in enumerate(self._arrived):
                    if isinstance(frame, kind):
                        del self._arrived[: index + 1]
                        return frame
                self._arrived.clear()
                self._arrived += self._decoder.feed(await self._connection.recv(decode=False))
