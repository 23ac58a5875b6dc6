"""What the client can, against a real server with a real database; every test on the blocking and the awaiting one."""

from __future__ import annotations

import asyncio
import concurrent.futures
import datetime
import decimal
import pathlib

import pytest

import lensway
from lensway import LenswayError
from lensway.client import exceptions
from lensway.testing.deployment import wait_until

pytestmark = pytest.mark.acceptance


def test_a_page_and_what_is_known_of_it(client) -> None:
    page = client.query("orders", where={"id": {"$lte": 3}}, order_by="id:desc", select=["id", "total"], total=True)
    assert page.rows == [{"id": 3, "total": "3.75"}, {"id": 2, "total": "2.50"}, {"id": 1, "total": "1.25"}]
    assert (len(page), page.has_more, page.next_cursor, page.total) == (3, False, None, 3)
    assert list(page) == page.rows
    assert (page.meta.lens, page.meta.route.via, page.meta.request_id[:4]) == ("orders", "inline", "req_")


def test_values_of_a_filter_may_be_pythons_own(client) -> None:
    where = {
        "total": {"$gte": decimal.Decimal("1248.75")},
        "placed": {"$lt": datetime.datetime(2024, 1, 1, 16, 40, tzinfo=datetime.UTC)},
    }
    assert [row["id"] for row in client.query("orders", where=where)] == [999]


@pytest.mark.parametrize(
    "order",
    ["total:desc", ["total:desc"], {"field": "total", "dir": "desc"}, [{"field": "total", "dir": "desc"}, "id"]],
)
def test_an_order_can_be_said_in_every_form(client, order) -> None:
    assert client.query("orders", order_by=order, limit=1, select=["id"]).rows == [{"id": 5000}]


def test_pages_follow_the_cursor_to_the_end(client) -> None:
    pages = list(client.pages("orders", where={"id": {"$gt": 2500}}, limit=1000, select=["id"]))
    assert [len(page) for page in pages] == [1000, 1000, 500]
    assert [row["id"] for page in pages for row in page] == list(range(2501, 5001))
    assert [row["id"] for row in client.rows("orders", limit=1900, select=["id"])] == list(range(1, 5001))
    assert list(client.pages("orders", where={"id": 0})) != [], "an empty result is one empty page"
    middle = client.pages("orders", cursor=pages[0].next_cursor, where={"id": {"$gt": 2500}}, limit=10, select=["id"])
    assert next(middle).rows[0] == {"id": 3501}


def test_pages_that_cannot_be_followed_say_so_instead_of_ending_early(client) -> None:
    pages = client.pages("keyless", limit=10)
    assert len(next(pages)) == 10
    with pytest.raises(exceptions.InvalidCursorError, match="no primary key"):
        next(pages)
    assert len(list(client.rows("keyless", where={"id": {"$lte": 10}}, limit=10))) == 10


def test_counts_explanations_lenses_and_requests(client) -> None:
    assert client.count("orders", where={"id": {"$in": [1, 2, 9999]}}) == 2
    explained = client.explain("orders", where={"total": {"$gt": 1}}, limit=5)
    assert (explained.source, explained.route.via) == ("shop", "inline")
    assert "SELECT" in explained.statement.upper()
    assert {"orders", "keyless"} <= {lens.name for lens in client.lenses()}
    lens = client.lens("orders")
    assert (lens.primary_key, lens.fields[2].type) == (["id"], "decimal")
    page = client.query("orders", limit=1)
    assert client.request(page.meta.request_id)["outcome"] == "completed"
    assert client.call("GET", "/v1/assignments")["assignments"] == []


def test_every_failure_is_the_class_of_its_code_with_all_that_the_server_said(client, face, server) -> None:
    with pytest.raises(exceptions.UnknownFieldError) as caught:
        client.query("orders", where={"totl": 1})
    error = caught.value
    assert (error.code.value, error.is_answer, error.request_id[:4]) == ("unknown_field", True, "req_")
    assert "totl" in error.message
    assert "total" in (error.hint or "") + error.message
    for wrong, expected in (
        (lambda: client.query("nope"), exceptions.NotFoundError),
        (lambda: client.query("orders", limit=100_000), exceptions.InvalidRequestError),
        (lambda: client.query("orders", cursor="forged"), exceptions.InvalidCursorError),
        (lambda: client.query("slow", timeout_ms=50), exceptions.QueryTimeoutError),
    ):
        with pytest.raises(expected) as caught:
            wrong()
        assert isinstance(caught.value, LenswayError)
    with face.at(server.url, "ak_" + "x" * 40) as stranger, pytest.raises(exceptions.UnauthenticatedError):
        stranger.lenses()
    with face.connect(server, environment="nowhere") as elsewhere, pytest.raises(exceptions.NotFoundError):
        elsewhere.lenses()


def test_an_export_gives_rows_lines_or_a_file(client, tmp_path: pathlib.Path) -> None:
    with client.export("orders", where={"id": {"$lte": 4000}}, order_by="id", select=["id", "note"]) as stream:
        rows = list(stream.rows())
        assert (len(rows), rows[0], rows[-1]["id"], stream.rows_received) == (
            4000,
            {"id": 1, "note": "note 1"},
            4000,
            4000,
        )
    with client.export("orders", order_by="id", select=["id"]) as stream:
        lines = b"".join(stream.chunks())
    assert lines == b"".join(b'{"id":%d}\n' % number for number in range(1, 5001)), "the end record is not a row"
    target = tmp_path / "orders.csv"
    seen: list[int] = []
    with client.export("orders", format="csv", select=["id", "customer"]) as stream:
        written = stream.save(target, progress=seen.append)
    assert target.stat().st_size == written == seen[-1]
    assert target.read_bytes().count(b"\n") == 5001
    assert [path.name for path in tmp_path.iterdir()] == ["orders.csv"]
    with client.export("orders", where={"id": 0}) as stream:
        assert stream.read() == b""
    with client.export("orders", format="csv") as stream, pytest.raises(TypeError, match="ndjson"):
        list(stream.rows())


def test_answers_are_compressed_where_that_is_asked_for(face, server) -> None:
    with face.connect(server, compression=True) as squeezed, face.connect(server) as plain:
        received = []
        for client in (squeezed, plain):
            page = client.query("orders", limit=2000)
            with client.export("orders", order_by="id") as stream:
                received.append((len(page), stream.it.stream._response.headers.get("content-encoding"), stream.read()))
    assert received[0][1] in ("zstd", "gzip")
    assert received[1][1] is None
    assert received[0][2] == received[1][2]
    assert len(received[0][2]) > 300_000


def test_an_open_file_or_a_device_is_written_to_and_never_replaced(client, tmp_path: pathlib.Path) -> None:
    with (tmp_path / "open").open("wb") as file, client.export("orders", select=["id"], where={"id": 7}) as stream:
        stream.save(file)
    assert (tmp_path / "open").read_bytes() == b'{"id":7}\n'
    (tmp_path / "null").symlink_to("/dev/null")
    with client.export("orders") as stream:
        stream.save(tmp_path / "null")
    assert (tmp_path / "null").is_char_device()
    (tmp_path / "link").symlink_to(tmp_path / "open")
    with client.export("orders", select=["id"], where={"id": 8}) as stream:
        stream.save(tmp_path / "link")
    assert (tmp_path / "open").read_bytes() == b'{"id":8}\n'


def busy(shop) -> int:
    """How many of the reader's connections are in a statement or between two fetches of one."""
    asked = "SELECT count(*) FROM pg_stat_activity WHERE usename = 'shop_reader' AND state <> 'idle'"
    return int(asyncio.run(shop.fetch(asked))[0][0])


def test_a_stream_that_is_left_early_ends_its_statement(client, shop) -> None:
    with client.export("endless") as stream:
        assert next(iter(stream.rows()))["id"] == 1
        assert busy(shop) == 1
    wait_until(lambda: busy(shop) == 0, seconds=10, what="the statement's end")
    assert client.query("orders", limit=1).rows, "and the client goes on"


def test_a_cancelled_task_ends_its_statement(server, shop) -> None:
    async def ask() -> None:
        async with lensway.connect_async(server.url, server.admin_key) as client:
            asking = asyncio.create_task(client.query("slow"))
            while not await asyncio.to_thread(busy, shop):
                assert not asking.done()
            asking.cancel()
            with pytest.raises(asyncio.CancelledError):
                await asking
            await asyncio.to_thread(wait_until, lambda: busy(shop) == 0, seconds=2.5, what="the statement's end")
            assert await client.count("orders") == 5000

    asyncio.run(ask())


def test_many_may_share_a_client(server) -> None:
    async def ask() -> list[int]:
        async with lensway.connect_async(server.url, server.admin_key) as client:
            return await asyncio.gather(*(client.count("orders", where={"id": {"$lte": n}}) for n in range(150)))

    assert asyncio.run(ask()) == list(range(150))
    with lensway.connect(server.url, server.admin_key) as client, concurrent.futures.ThreadPoolExecutor(16) as pool:
        counts = pool.map(lambda n: client.count("orders", where={"id": {"$lte": n}}), range(50))
        assert list(counts) == list(range(50))
