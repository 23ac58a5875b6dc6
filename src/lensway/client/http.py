"""A small synchronous client: one connection pool, typed errors, streams that fail visibly.

Every failure leaves as a `LenswayError` with the code of the contract, whether the server said it or the connection did.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any, Final
from urllib.parse import quote, urlsplit

import httpx2
import msgspec

from lensway.errors import ErrorCode, LenswayError

_CODES: Final = {code.value: code for code in ErrorCode}
_TIMEOUT: Final = httpx2.Timeout(connect=5.0, read=None, write=60.0, pool=5.0)
"""No read timeout: the server answers by the request's own deadline, or the connection breaks."""
_ACCEPT: Final[Mapping[str, str]] = {
    "json": "application/json",
    "ndjson": "application/x-ndjson",
    "csv": "text/csv",
    "arrow": "application/vnd.apache.arrow.stream",
    "parquet": "application/vnd.apache.parquet",
}


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Connection:
    """Where to call and as whom. The key is never shown."""

    url: str
    key: str = dataclasses.field(repr=False)
    environment: str | None = None
    ca_file: str | None = None


class StreamedRows:
    """Encoded rows as they arrive. Iterating raises `LenswayError` when the stream breaks before its end."""

    def __init__(self, response: httpx2.Response) -> None:
        self._response = response
        self.bytes_received = 0

    @property
    def content_type(self) -> str:
        """The media type that the server chose."""
        return str(self._response.headers.get("content-type", ""))

    @property
    def request_id(self) -> str:
        """The id to quote when something is wrong with this request."""
        return str(self._response.headers.get("x-request-id", ""))

    def __iter__(self) -> Iterator[bytes]:
        """Chunks of encoded rows, in order."""
        try:
            for chunk in self._response.iter_bytes():
                self.bytes_received += len(chunk)
                yield chunk
        except httpx2.HTTPError:
            raise LenswayError(
                ErrorCode.RUNNER_FAILED,
                f"the stream broke after {self.bytes_received} bytes, before its end; what arrived is incomplete",
                hint="repeat the request; reads are safe to repeat",
                details={"requestId": self.request_id},
            ) from None


class Client:
    """Calls one server with one key. Use it as a context manager, or call `close`."""

    def __init__(self, connection: Connection) -> None:
        headers = {"Authorization": f"Bearer {connection.key}"}
        if connection.environment:
            headers["X-Environment"] = connection.environment
        self._url = connection.url.rstrip("/")
        self._http = httpx2.Client(
            base_url=self._url, headers=headers, timeout=_TIMEOUT, verify=connection.ca_file or True, trust_env=False
        )

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def call(
        self,
        method: str,
        path: str,
        body: object = None,
        *,
        params: Mapping[str, str] | None = None,
    ) -> Any:
        """One request; the decoded JSON answer, or None for an empty one.

        Raises:
            LenswayError: whatever the server answered, or INTERNAL when it cannot be reached or does not speak the API.
        """
        response = self._send(method, path, body, params=params)
        if response.status_code >= 400:
            raise _error_of(response)
        if not response.content:
            return None
        try:
            return msgspec.json.decode(response.content)
        except msgspec.DecodeError:
            raise _not_lensway(self._url) from None

    @contextlib.contextmanager
    def stream(
        self, method: str, path: str, body: object = None, *, accept: str, params: Mapping[str, str] | None = None
    ) -> Iterator[StreamedRows]:
        """A streamed answer; ``accept`` is a format's name (``ndjson``, ``csv`` …) or a media type."""
        headers = {"Accept": _ACCEPT.get(accept, accept), "Content-Type": "application/json"}
        content = msgspec.json.encode(body) if body is not None else None
        try:
            with self._http.stream(method, path, content=content, params=params, headers=headers) as response:
                if response.status_code >= 400:
                    response.read()
                    raise _error_of(response)
                yield StreamedRows(response)
        except httpx2.HTTPError as error:
            raise self._unreachable(error) from None

    def query(self, lens: str, body: Mapping[str, object]) -> Any:
        """One page of rows: ``{"rows": […], "meta": {…}}``."""
        return self.call("POST", f"/v1/query/{segment(lens)}", body)

    def pages(self, lens: str, body: Mapping[str, object]) -> Iterator[Any]:
        """Every page from the first to the last, by cursor. Without a primary key there is one page only."""
        request = dict(body)
        while True:
            page = self.query(lens, request)
            yield page
            cursor = page["meta"].get("nextCursor")
            if not cursor:
                return
            request["cursor"] = cursor

    def _send(self, method: str, path: str, body: object, *, params: Mapping[str, str] | None) -> httpx2.Response:
        headers = {"Content-Type": "application/json"} if body is not None else {}
        content = msgspec.json.encode(body) if body is not None else None
        try:
            return self._http.request(method, path, content=content, params=params, headers=headers)
        except httpx2.HTTPError as error:
            raise self._unreachable(error) from None

    def _unreachable(self, error: httpx2.HTTPError) -> LenswayError:
        address = urlsplit(self._url)
        return LenswayError(
            ErrorCode.INTERNAL,
            f"no answer from {address.scheme}://{address.netloc} ({type(error).__name__})",
            hint="is the server running there, and is LENSWAY_URL right?",
        )


def segment(name: str) -> str:
    """The name as one segment of a path."""
    return quote(name, safe="")


def connect(url: str, key: str, *, environment: str | None = None) -> Client:
    """A client for the server at ``url`` with this key."""
    return Client(Connection(url=url, key=key, environment=environment))


def _error_of(response: httpx2.Response) -> LenswayError:
    try:
        body = msgspec.json.decode(response.content, type=dict[str, Any])["error"]
        code = _CODES[body["code"]]
    except (msgspec.DecodeError, KeyError, TypeError, ValueError):
        return _not_lensway(str(response.url.copy_with(path="/", query=None)))
    details = dict(body.get("details") or {})
    details.setdefault("requestId", body.get("requestId"))
    return LenswayError(code, str(body.get("message", code)), hint=body.get("hint"), details=details)


def _not_lensway(url: str) -> LenswayError:
    return LenswayError(
        ErrorCode.INTERNAL,
        f"the answer from {url} is not Lensway's",
        hint="does LENSWAY_URL point at the server's HTTP port, and not at the gateway or at another program?",
    )
