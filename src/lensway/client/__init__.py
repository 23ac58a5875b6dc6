"""The Python client of the HTTP API."""

from lensway.client.arrow import ArrowRows
from lensway.client.awaiting import AsyncClient, AsyncStream, connect_async
from lensway.client.blocking import Client, Stream, connect
from lensway.client.core import Connection
from lensway.client.core_operations import Format, Page, segment
from lensway.client.exceptions import IncompleteStreamError, UnreachableError
from lensway.errors import LenswayError

__all__ = [
    "ArrowRows",
    "AsyncClient",
    "AsyncStream",
    "Client",
    "Connection",
    "Format",
    "IncompleteStreamError",
    "LenswayError",
    "Page",
    "Stream",
    "UnreachableError",
    "connect",
    "connect_async",
    "segment",
]
