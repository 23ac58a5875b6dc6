"""The blocking shell: performs what the operations of the core ask for, with blocking calls."""

from __future__ import annotations

import contextlib
import random
import time
from collections.abc import Callable, Generator, Iterator
from typing import Any, Concatenate, Final, ParamSpec, Protocol, TypeVar, cast

import httpx2

from lensway import limits
from lensway.client import core, core_operations, core_stream, profiles, saving, transport
from lensway.client.arrow import ArrowSource, PartsReader
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
    def _using(self) -> contextlib.AbstractContextManager[object]: ...
    def _perform(self, effect: Effect) -> Reply: ...


def method(operation: Callable[Concatenate[Any, P], core.Work[T]]) -> Method[P, T]:
    """An operation of the core as a method that blocks."""

    def call(self: _Performer, *args: P.args, **kwargs: P.kwargs) -> T:
        with self._using(), contextlib.closing(operation(self._subject(), *args, **kwargs)) as work:
            return run(work, self._perform)

    return cast("Method[P, T]", core.presented(call, operation))


def iterator(operation: Callable[Concatenate[Any, P], core.Steps[T]]) -> Method[P, Iterator[T]]:
    """An operation of the core as a method that gives an iterator."""

    def call(self: _Performer, *args: P.args, **kwargs: P.kwargs) -> Iterator[T]:
        with self._using(), contextlib.closing(operation(self._subject(), *args, **kwargs)) as steps:
            yield from iterate(steps, self._perform)

    return cast("Method[P, Iterator[T]]", core.presented(call, operation))


def opener(build: Callable[P, Request]) -> Method[P, Stream]:
    """A request of the core as a method that gives a stream."""

    def call(self: Client, *args: P.args, **kwargs: P.kwargs) -> Stream:
        return Stream(self, build(*args, **kwargs))

    return cast("Method[P, Stream]", core.presented(call, build, has_subject=False))


def run(work: core.Work[T], perform: Callable[[Effect], Reply]) -> T:
    """What the work returns."""
    reply: Reply = None
    while True:
        try:
            effect = work.send(reply)
        except StopIteration as stop:
            result: T = stop.value
            return result
        reply = perform(effect)


def iterate(steps: core.Steps[T], perform: Callable[[Effect], Reply]) -> Generator[T]:
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
            reply = perform(step)


_LEFT_OPEN: Final = contextlib.nullcontext()


class Client:
    """Asks one server with one key, blocking. A context manager, or `close` it. Threads may share it."""

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
            carrier = httpx2.HTTPTransport(**self._passage.transport_options())
        except ImportError as error:
            raise self._passage.check_library(error) from None
        self._http = httpx2.Client(transport=carrier, **transport.client_options(connection))

    def __repr__(self) -> str:
        return f"Client({self._connection.origin!r})"

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def _subject(self) -> Connection:
        return self._connection

    def _using(self) -> contextlib.AbstractContextManager[object]:
        return _LEFT_OPEN

    def _perform(self, effect: Effect) -> Reply:
        match effect:
            case Send():
                return self._send(effect)
            case Read(stream):
                assert isinstance(stream, _Body)
                return stream.read()
            case Pause(least, most):
                time.sleep(random.uniform(least, most))
            case Now():
                return time.monotonic()
            case Do(action):
                action()
        return None

    def _send(self, effect: Send) -> Answer | Lost:
        origin, watch = self._connection.origin, self._passage.watch()
        if self._http.is_closed:
            raise RuntimeError(transport.CLOSED)
        try:
            request = self._http.build_request(**transport.request_options(effect))
            if watch is not None:
                request.extensions["trace"] = watch.note
            response = self._http.send(request, stream=True)
            body = _Body(response, origin)
            cause = None
            if response.status_code >= 400 and "x-request-id" not in response.headers:
                cause = self._passage.foreign(response.status_code, response.headers)
            else:
                self._passage.answered()
            if effect.request.is_stream and response.status_code < 300:
                return transport.answer(response, origin, stream=body)
            with contextlib.closing(body):
                return transport.answer(response, origin, body=body.whole(), cause=cause)
        except httpx2.HTTPError as error:
            if watch is not None and watch.stream is not None:
                watch.stream.close()
            return self._passage.lost(error, watch)


class Stream(Incoming, ArrowSource):
    """Encoded rows as they arrive. Entering it sends the request; leaving it early tells the server to stop.

    Without `with`, the first method that reads sends the request and closes the stream at its end.
    """

    chunks = iterator(core_stream.chunks)
    rows = iterator(core_stream.rows)
    read = method(core_stream.read)
    arrow = method(core_stream.arrow)
    save = method(saving.save)

    def __init__(self, client: Client, request: Request) -> None:
        super().__init__(client._connection, request)
        self._client = client
        self._is_entered = False
        self._reader: PartsReader | None = None

    def __repr__(self) -> str:
        return f"Stream({self._request_text()})"

    def __enter__(self) -> Stream:
        self._open()
        self._is_entered = True
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def __iter__(self) -> Iterator[bytes]:
        return self.chunks()

    def close(self) -> None:
        """End the stream; nothing more is read."""
        self.closed()
        if isinstance(self.stream, _Body):
            self.stream.close()

    def _subject(self) -> Stream:
        return self

    @contextlib.contextmanager
    def _using(self) -> Iterator[None]:
        try:
            yield
        finally:
            if self.has_begun and not self._is_entered:
                self.close()

    def _perform(self, effect: Effect) -> Reply:
        return self._client._perform(effect)

    def _arrow_reader(self) -> PartsReader:
        if self._reader is not None:
            self._reader = self._reader.again()
            return self._reader
        self._open()
        if self.media != core_stream.ARROW and not self._is_entered:
            self.close()
        self.check_arrow()
        self._reader = PartsReader(self.chunks())
        return self._reader

    def _open(self) -> None:
        with contextlib.closing(core_stream.opened(self)) as work:
            run(work, self._perform)


class _Body:
    """What is still to come of a response."""

    def __init__(self, response: httpx2.Response, origin: str) -> None:
        self._response = response
        self._origin = origin
        self._chunks = response.iter_bytes()

    def read(self) -> bytes | Lost:
        """The next bytes; none at the end."""
        try:
            return next(filter(None, self._chunks), b"")
        except (httpx2.HTTPError, httpx2.StreamError) as error:
            return transport.lost(error, self._origin)

    def whole(self) -> bytes:
        """All of it, within the limit. Raises httpx2.HTTPError, LimitExceededError."""
        found = bytearray()
        for chunk in self._chunks:
            found += chunk
            transport.check_size(len(found))
        return bytes(found)

    def close(self) -> None:
        """Give the connection back, or up."""
        self._response.close()


def connect(
    url: str,
    key: str,
    *,
    environment: str | None = None,
    timeout: float = limits.CLIENT_TIMEOUT_SECONDS,
    repeats: bool = True,
    ca_file: str | None = None,
    compression: bool = False,
    insecure: bool = False,
) -> Client:
    """A blocking client for the server at ``url`` with this key. Nothing is sent yet.

    Args:
        url: The server's HTTP address, ``https://lensway.example.org`` for example.
        key: An API key. It is never shown.
        environment: For instance-wide keys; default: the key's own environment, or ``default``.
        timeout: Seconds that one call may take with all its repetitions.
        repeats: False sends everything once.
        ca_file: Certificates to trust instead of the system's.
        compression: Ask for compressed answers: less traffic for more work on both sides.
        insecure: Allow ``http://`` to another machine: the key is sent in clear text.

    Raises:
        InvalidRequestError: for an address, key or file that can never work.
    """
    connection = transport.connection(
        url, key, environment, timeout, repeats=repeats, ca_file=ca_file, compression=compression, insecure=insecure
    )
    return Client(connection)
