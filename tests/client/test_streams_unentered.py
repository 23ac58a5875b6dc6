"""A stream that is read without `with`, twice, after its end or after its client: it works, or the error says what to do."""

from __future__ import annotations

import asyncio
import pathlib
from collections.abc import Callable

import pytest

import lensway
from lensway.client import exceptions
from lensway.testing.deployment import wait_until

pytestmark = pytest.mark.acceptance

THREE = {"id": {"$lte": 3}}


@pytest.fixture
def statements(shop) -> Callable[[], int]:
    """How many of the reader's connections are in a statement or between two fetches of one."""
    asked = "SELECT count(*) FROM pg_stat_activity WHERE usename = 'shop_reader' AND state <> 'idle'"
    return lambda: int(asyncio.run(shop.fetch(asked))[0][0])


@pytest.mark.parametrize("maker", ["export", "encoded"])
def test_a_stream_works_without_with(client, tmp_path: pathlib.Path, maker: str) -> None:
    make = getattr(client, maker)
    rows = make("orders", where=THREE, select=["id"]).rows()
    assert list(rows) == [{"id": 1}, {"id": 2}, {"id": 3}]
    assert make("orders", where=THREE, select=["id"], format="csv").read() == b"id\r\n1\r\n2\r\n3\r\n"
    assert b"".join(make("orders", where=THREE, select=["id"], format="csv").chunks()).count(b"\n") == 4
    assert make("orders", where=THREE, format="arrow").arrow().to_pyarrow().num_rows == 3
    file = tmp_path / "orders.csv"
    stream = make("orders", where=THREE, select=["id"], format="csv")
    assert stream.save(file) == file.stat().st_size == 13
    assert (stream.rows_received, stream.request_id[:4], stream.route.via) == (3, "req_", "inline")


def test_libraries_take_a_stream_that_was_not_entered(server) -> None:
    with lensway.connect(server.url, server.admin_key) as client:
        assert client.export("orders", format="arrow", where=THREE).to_pyarrow().num_rows == 3
        with pytest.raises(TypeError, match=r'text/csv.*format="arrow"'):
            client.export("orders", format="csv", where=THREE).to_pyarrow()
        assert [chunk.count(b"\n") for chunk in client.export("orders", format="csv", where=THREE)] == [4]


def test_a_failure_without_with_is_the_class_of_its_code(client, tmp_path: pathlib.Path) -> None:
    with pytest.raises(exceptions.NotFoundError, match="ordres"):
        client.export("ordres").read()
    with pytest.raises(exceptions.UnknownFieldError, match="totl"):
        list(client.export("orders", where={"totl": 1}).rows())
    with pytest.raises(exceptions.UnknownFieldError):
        client.export("orders", where={"totl": 1}, format="csv").save(tmp_path / "orders.csv")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("again", ["read", "rows", "chunks", "save", "enter"])
def test_a_stream_gives_its_rows_once(client, tmp_path: pathlib.Path, again: str) -> None:
    stream = client.export("orders", where=THREE)
    assert len(list(stream.rows())) == 3
    with pytest.raises(RuntimeError, match="read already; ask for it again"):
        _use(stream, again, tmp_path)


@pytest.mark.parametrize("late", ["read", "rows", "chunks", "save", "enter"])
def test_a_closed_stream_says_so(client, tmp_path: pathlib.Path, late: str) -> None:
    with client.export("orders", where=THREE) as stream:
        pass
    with pytest.raises(RuntimeError, match="closed; ask for it again"):
        _use(stream, late, tmp_path)
    never = client.export("orders", where=THREE)
    never.close()
    with pytest.raises(RuntimeError, match="closed; ask for it again"):
        _use(never, late, tmp_path)


def test_a_closed_client_says_so(face, server) -> None:
    with face.connect(server) as client:
        unread = client.export("orders", where=THREE)
        iterator = client.rows("orders", where=THREE)
    for ask in (
        lambda: client.query("orders"),
        lambda: client.count("orders"),
        unread.read,
        lambda: list(iterator),
        lambda: client.export("orders").read(),
    ):
        with pytest.raises(RuntimeError, match="the client is closed; connect again"):
            ask()


def test_a_stream_left_early_without_with_ends_the_statement(server, statements) -> None:
    with lensway.connect(server.url, server.admin_key) as client:
        for _row in client.export("endless").rows():
            assert statements() > 0
            break
        wait_until(lambda: statements() == 0, seconds=5, what="the end of the statement")
        with pytest.raises(ZeroDivisionError):
            client.export("endless").save(_Failing())
        wait_until(lambda: statements() == 0, seconds=5, what="the end of the statement")


def test_an_asynchronous_stream_left_early_without_with_ends_the_statement(server, statements) -> None:
    async def ask() -> None:
        async with lensway.connect_async(server.url, server.admin_key) as client:
            async for _row in client.export("endless").rows():
                assert await asyncio.to_thread(statements) > 0
                break
            with pytest.raises(ZeroDivisionError):
                await client.export("endless").save(_Failing())
            # While the client is open: closing it would end everything.
            await asyncio.to_thread(wait_until, lambda: statements() == 0, seconds=5, what="the end of the statement")

    asyncio.run(ask())


class _Failing:
    def write(self, data: bytes) -> int:
        return len(data) // 0


def _use(stream, how: str, directory: pathlib.Path) -> None:
    if how == "enter":
        with stream:
            pass
    elif how == "save":
        stream.save(directory / "rows")
    else:
        list(getattr(stream, how)())
