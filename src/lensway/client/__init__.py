"""The Python client of the HTTP API."""

from lensway.client.http import Client, Connection, StreamedRows, connect

__all__ = ["Client", "Connection", "StreamedRows", "connect"]
