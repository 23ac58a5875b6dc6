"""Rows as Arrow: what pandas, Polars, DuckDB and pyarrow make of them, from memory and as they arrive."""

from __future__ import annotations

import decimal

import duckdb
import pyarrow
import pytest

import lensway
from lensway.client import ArrowRows

pytestmark = pytest.mark.acceptance
TOTAL = decimal.Decimal("15628125.00")


def test_both_clients_give_arrow_in_memory(client) -> None:
    rows = client.arrow("orders", order_by="id")
    assert isinstance(rows, ArrowRows)
    table = rows.to_pyarrow()
    assert (table.num_rows, table.column_names) == (5000, ["id", "customer", "total", "placed", "note"])
    assert table["id"].to_pylist() == list(range(1, 5001))
    assert pyarrow.types.is_timestamp(table.schema.field("placed").type)
    assert client.arrow("orders", limit=7, select=["id"]).to_pyarrow().num_rows == 7, "a page"
    assert client.arrow("orders", where={"id": 0}).to_pyarrow().num_rows == 0
    with client.export("orders", format="arrow", select=["id"]) as stream:
        assert stream.arrow().to_pyarrow().num_rows == 5000
    assert rows.nbytes == len(rows.tobytes()) > 100_000


def test_what_reads_arrow_reads_the_rows(server) -> None:
    with lensway.connect(server.url, server.admin_key) as client:
        rows = client.arrow("orders", order_by="id")
    frame = rows.to_pandas()
    assert (len(frame), frame["total"].sum(), frame["note"].isna().sum()) == (5000, TOTAL, 1666)
    polars = rows.to_polars()
    assert (polars.height, polars["total"].sum(), polars["note"].null_count()) == (5000, TOTAL, 1666)
    assert duckdb.sql("SELECT count(*), sum(total), count(note) FROM rows").fetchall() == [(5000, TOTAL, 3334)]
    assert rows.to_polars().equals(polars), "memory can be read again"


def test_a_stream_is_read_as_it_arrives(server) -> None:
    with lensway.connect(server.url, server.admin_key) as client:
        with client.export("orders", format="arrow") as stream:
            assert stream.to_polars().height == 5000
            assert stream.rows_received == 5000
        with client.export("orders", format="arrow") as stream:
            assert duckdb.sql("SELECT count(*) FROM stream").fetchall() == [(5000,)]
        with client.export("orders") as stream, pytest.raises(TypeError, match="not Arrow"):
            stream.to_polars()


def test_a_stream_is_read_once(client) -> None:
    with client.export("orders") as stream:
        assert len(stream.read()) > 100_000
        with pytest.raises(RuntimeError, match="read already"):
            list(stream.rows())
