"""What type checkers see of the client: never run, only checked. A method that lost its types would fail `make check` here."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Any, assert_type

from lensway.api import shapes
from lensway.client import ArrowRows, AsyncClient, AsyncStream, Client, Page, Stream


def blocking(client: Client) -> None:
    """The blocking client."""
    assert_type(client.query("orders", where={"id": 1}, order_by=["id:desc"], limit=1), Page)
    assert_type(client.pages("orders"), Iterator[Page])
    assert_type(client.rows("orders"), Iterator[dict[str, Any]])
    assert_type(client.count("orders"), int)
    assert_type(client.arrow("orders"), ArrowRows)
    assert_type(client.lens("orders"), shapes.LensSummary)
    assert_type(client.explain("orders").route, shapes.ExplainRoute)
    with client.export("orders", format="csv") as stream:
        assert_type(stream, Stream)
        assert_type(stream.chunks(), Iterator[bytes])
        assert_type(stream.save("orders.csv"), int)
    client.query("orders", limt=1)  # type: ignore[call-arg]  # a wrong name is an error to the checker
    client.export("orders", format="xls")  # type: ignore[arg-type]  # and so is a wrong format


async def awaiting(client: AsyncClient) -> None:
    """The asynchronous client."""
    assert_type(await client.query("orders", where={"id": 1}, order_by=["id:desc"], limit=1), Page)
    assert_type(client.pages("orders"), AsyncIterator[Page])
    assert_type(client.rows("orders"), AsyncIterator[dict[str, Any]])
    assert_type(await client.count("orders"), int)
    assert_type(await client.arrow("orders"), ArrowRows)
    async with client.export("orders", format="csv") as stream:
        assert_type(stream, AsyncStream)
        assert_type(stream.chunks(), AsyncIterator[bytes])
        assert_type(await stream.save("orders.csv"), int)
    await client.query("orders", limt=1)  # type: ignore[call-arg]  # a wrong name is an error to the checker
