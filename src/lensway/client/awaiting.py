"""The awaiting shell: performs what the operations of the core ask for, on asyncio."""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Coroutine
from typing import Any, Concatenate, Final, ParamSpec, Protocol, TypeVar, cast

import httpx2

from lensway import limits
from lensway.client import core, core_operations, core_stream, profiles, saving, transport
from lensway.client.core import Answer, Connection, Do, Effect, Emit, Lost, Now, Pause, Read, Reply, Request, Send
from lensway.client.core_stream import Incoming
from lensway.client.passage import Passage

P = ParamSpec("P")
T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


class Method(Protocol[P, T_co]):
    """A method with the parameters of its operation."""

    def __get__(self, instance: object, owner: type | None = None) -> Callable[P, T_co]: ...


class _Performer(Protocol):
    def _subject(self) -> Any: ...
    def _using(self) -> contextlib.AbstractAsyncContextManager[object]: ...
    async def _perform(self, effect: Effect) -> Reply: ...


def method(operation: Callable[Concatenate[Any, P], core.Work[T]]) -> Method[P, Coroutine[Any, Any, T]]:
    """An operation of the core as a coroutine method."""

    async def call(self: _Performer, *args: P.args, **kwargs: P.kwargs) -> T:
        async with self._using():
            with contextlib.closing(operation(self._subject(), *args, **kwargs)) as work:
                return await run(work, self._perform)

    return cast("Method[P, Coroutine[Any, Any, T]]", core.presented(call, operation))


def iterator(operation: Callable[Concatenate[Any, P], core.Steps[T]]) -> Method[P, AsyncIterator[T]]:
    """An operation of the core as a method that gives an asynchronous iterator."""

    async def call(self: _Performer, *args: P.args, **kwargs: P.kwargs) -> AsyncIterator[T]:
        async with self._using():
            with contextlib.closing(operation(self._subject(), *args, **kwargs)) as steps:
                async with contextlib.aclosing(iterate(steps, self._perform)) as items:
                    async for item in items:
                        yield item

    return cast("Method[P, AsyncIterator[T]]", core.presented(call, operation))


def opener(build: Callable[P, Request]) -> Method[P, AsyncStream]:
    """A request of the core as a method that gives a stream."""

    def call(self: AsyncClient, *args: P.args, **kwargs: P.kwargs) -> AsyncStream:
        return AsyncStream(self, build(*args, **kwargs))

    return cast("Method[P, AsyncStream]", core.presented(call, build, has_subject=False))


async def run(work: core.Work[T], perform: Callable[[Effect], Awaitable[Reply]]) -> T:
    """What the work returns."""
    reply: Reply = None
    while True:
        try:
            effect = work.send(reply)
        except StopIteration as stop:
            result: T = stop.value
            return result
        reply = await perform(effect)


async def iterate(steps: core.Steps[T], perform: Callable[[Effect], Awaitable[Reply]]) -> AsyncGenerator[T]:
    """What the steps emit."""
    reply: Reply = None
    while True:
        try:
            step = steps.send(reply)
        except StopIteration:
            return
        if isinstance(step, Emit):
            yield step.item
            reply = None
        else:
            reply = await perform(step)


_LEFT_OPEN: Final = contextlib.nullcontext()


class AsyncClient:
    """Asks one server with one key, on asyncio. An asynchronous context manager, or `close` it. Tasks may share it."""

    query = method(core_operations.query)
    pages = iterator(core_operations.pages)
    rows = iterator(core_operations.rows)
    count = method(core_operations.count)
    arrow = method(core_operations.arrow)
    export = opener(core_operations.export_request)
    encoded = opener(core_operations.encoded_request)
    explain = method(core_operations.explain)
    lenses = method(core_operations.lenses)
    lens = method(core_operations.lens)
    request = method(core_operations.request)
    call = method(core_operations.call)
    stream = opener(core_operations.any_stream_request)

    def __init__(self, connection: Connection | None = None, *, profile: str | None = None) -> None:
        connection = profiles.connection(profile) if connection is None else connection
        connection.check()
        self._connection = connection
        self._passage = Passage(connection)
        try:
            carrier = httpx2.AsyncHTTPTransport(**self._passage.transport_options())
        except ImportError as error:
            raise self._passage.check_library(error) from None
        self._http = httpx2.AsyncClient(transport=carrier, **transport.client_options(connection))

    def __repr__(self) -> str:
        return f"AsyncClient({self._connection.origin!r})"

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    def _subject(self) -> Connection:
        return self._connection

    def _using(self) -> contextlib.AbstractAsyncContextManager[object]:
        return _LEFT_OPEN

    async def _perform(self, effect: Effect) -> Reply:
        match effect:
            case Send():
                return await self._send(effect)
            case Read(stream):
                assert isinstance(stream, _Body)
                return await stream.read()
            case Pause(least, most):
                await asyncio.sleep(random.uniform(least, most))
            case Now():
                return time.monotonic()
            case Do(action):
                await asyncio.to_thread(action)
        return None

    async def _send(self, effect: Send) -> Answer | Lost:
        origin, watch = self._connection.origin, self._passage.watch()
        if self._http.is_closed:
            raise RuntimeError(transport.CLOSED)
        try:
            request = self._http.build_request(**transport.request_options(effect))
            if watch is not None:
                request.extensions["trace"] = watch.note_async
            response = await self._http.send(request, stream=True)
            body = _Body(response, origin)
            cause = None
            if response.status_code >= 400 and "x-request-id" not in response.headers:
                cause = await asyncio.to_thread(self._passage.foreign, response.status_code, response.headers)
            else:
                self._passage.answered()
            if effect.request.is_stream and response.status_code < 300:
                return transport.answer(response, origin, stream=body)
            try:
                return transport.answer(response, origin, body=await body.whole(), cause=cause)
            finally:
                await body.close()
        except httpx2.HTTPError as error:
            if watch is not None and watch.stream is not None:
                await watch.stream.aclose()
            return await asyncio.to_thread(self._passage.lost, error, watch)


class AsyncStream(Incoming):
    """Encoded rows as they arrive. Entering it sends the request; leaving it early tells the server to stop.

    Without `async with`, the first method that reads sends the request and closes the stream at its end.
    """

    chunks = iterator(core_stream.chunks)
    rows = iterator(core_stream.rows)
    read = method(core_stream.read)
    arrow = method(core_stream.arrow)
    save = method(saving.save)

    def __init__(self, client: AsyncClient, request: Request) -> None:
        super().__init__(client._connection, request)
        self._client = client
        self._is_entered = False

    def __repr__(self) -> str:
        return f"AsyncStream({self._request_text()})"

    async def __aenter__(self) -> AsyncStream:
        with contextlib.closing(core_stream.opened(self)) as work:
            await run(work, self._perform)
        self._is_entered = True
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.close()

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self.chunks()

    async def close(self) -> None:
        """End the stream; nothing more is read."""
        self.closed()
        if isinstance(self.stream, _Body):
            await self.stream.close()

    def _subject(self) -> AsyncStream:
        return self

    @contextlib.asynccontextmanager
    async def _using(self) -> AsyncIterator[None]:
        try:
            yield
        finally:
            if self.has_begun and not self._is_entered:
                await self.close()

    async def _perform(self, effect: Effect) -> Reply:
        return await self._client._perform(effect)


class _Body:
    """What is still to come of a response."""

    def __init__(self, response: httpx2.Response, origin: str) -> None:
        self._response = response
        self._origin = origin
        self._chunks = response.aiter_bytes()

    async def read(self) -> bytes | Lost:
        """The next bytes; none at the end."""
        try:
            async for chunk in self._chunks:
                if chunk:
                    return chunk
        except (httpx2.HTTPError, httpx2.StreamError) as error:
            return transport.lost(error, self._origin)
        return b""

    async def whole(self) -> bytes:
        """All of it, within the limit. Raises httpx2.HTTPError, LimitExceededError."""
        found = bytearray()
        async for chunk in self._chunks:
            found += chunk
            transport.check_size(len(found))
        return bytes(found)

    async def close(self) -> None:
        """Give the connection back, or up."""
        await self._response.aclose()


def connect_async(
    url: str,
    key: str,
    *,
    environment: str | None = None,
    timeout: float = limits.CLIENT_TIMEOUT_SECONDS,
    repeats: bool = True,
    ca_file: str | None = None,
    compression: bool = False,
    insecure: bool = False,
) -> AsyncClient:
    """A client for asyncio, for the server at ``url`` with this key. Not a coroutine: nothing is sent yet.

    The arguments are those of `connect`.

    Raises:
        InvalidRequestError: for an address, key or file that can never work.
    """
    connection = transport.connection(
        url, key, environment, timeout, repeats=repeats, ca_file=ca_file, compression=compression, insecure=insecure
    )
    return AsyncClient(connection)
