"""Rows over HTTP in every format: what surrounds them, compression, flow control, and that a cut is seen by every client."""

from __future__ import annotations

import csv
import gzip
import io
import json
import os
import pathlib
import re
import subprocess
import sys

import pytest

from lensway.testing.http_caller import Answer, Caller

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

pytestmark = pytest.mark.acceptance
FORMATS = ("application/json", "application/x-ndjson", "application/x-ndjson; end=record", "text/csv")
PLACES = ("near", "far")


def rows_of(answer: Answer, accept: str) -> list[dict]:
    """The rows of a complete answer."""
    text = answer.body.decode()
    if accept == "application/json":
        return json.loads(text)["rows"]
    if accept == "text/csv":
        return [{"id": int(row["id"]), "name": row["name"] or None} for row in csv.DictReader(io.StringIO(text))]
    lines = [json.loads(line) for line in text.splitlines()]
    return lines[:-1] if "end=record" in accept else lines


@pytest.mark.parametrize("place", PLACES)
def test_every_format_has_the_same_rows_with_its_route_before_and_its_count_behind(site, place: str) -> None:
    expected = site.client.post(f"/v1/query/{place}-items", json={"limit": 3000}).json()
    route = expected["meta"]["route"]
    assert route["via"] == ("inline" if place == "near" else "runner")
    for accept in FORMATS:
        page = site.ask(
            f"/v1/query/{place}-items", {"where": {"id": {"$gt": 10}}, "limit": 7, "total": True}, accept=accept
        )
        whole = site.ask(f"/v1/query/{place}-items/export", accept=accept)
        as_found = site.ask(f"/v1/query/{place}-items/export", {"orderBy": []}, accept=accept)
        assert rows_of(as_found, accept) == expected["rows"][::-1], "this table lies in another order"
        assert (page.status, whole.status) == (200, 200)
        assert rows_of(page, accept) == expected["rows"][10:17], accept
        assert rows_of(whole, accept) == expected["rows"], accept
        if "end=record" in accept:
            assert whole.body.endswith(b'\n{"$end":{"rows":3000}}\n')
            end = json.loads(page.body.splitlines()[-1])["$end"]
            assert end == {"rows": 7, "total": 2990, "nextCursor": page.trailers["lensway-next-cursor"]}
        for answer in (page, whole) if accept != "application/json" else (whole,):
            assert json.loads(answer.headers["lensway-route"]) == route
            assert answer.headers["transfer-encoding"] == "chunked"
            assert answer.headers["vary"] == "Accept, Accept-Encoding"
            announced = {name.strip().lower() for name in answer.headers["trailer"].split(",")}
            assert set(answer.trailers) <= announced
        assert whole.trailers["lensway-rows"] == "3000"
        assert whole.trailers["lensway-has-more"] == "false"
        assert "lensway-next-cursor" not in whole.trailers
        if accept != "application/json":
            assert page.trailers["lensway-rows"] == "7"
            assert page.trailers["lensway-total"] == "2990"
            cursor = page.trailers["lensway-next-cursor"]
            following = site.ask(
                f"/v1/query/{place}-items", {"where": {"id": {"$gt": 10}}, "cursor": cursor, "limit": 3}, accept=accept
            )
            assert rows_of(following, accept) == expected["rows"][17:20]


def test_the_connection_serves_on_behind_a_stream(site) -> None:
    with Caller(site.deployment.http_port, key=site.deployment.admin_key) as caller:
        for _ in range(3):
            caller.post("/v1/query/near-items", {"limit": 2}, headers={"Accept": "text/csv"})
            assert caller.answer().trailers["lensway-rows"] == "2"


def test_what_is_not_available_is_refused_before_anything_runs(site) -> None:
    parquet = site.ask("/v1/query/near-items", accept="application/vnd.apache.parquet")
    image = site.ask("/v1/query/near-items/export", accept="image/png")
    old = [
        site.ask("/v1/query/near-items/export", accept="text/csv", version="1.0"),
        site.ask("/v1/query/near-items", accept="text/csv", version="1.0"),
    ]
    for answer in (parquet, image, *old):
        assert (answer.status, json.loads(answer.body)["error"]["code"]) == (406, "not_acceptable")
    assert "export" in json.loads(parquet.body)["error"]["hint"]
    assert site.ask("/v1/query/near-items", {"limit": 1}, version="1.0").status == 200, "a page has its length"
    packed = site.ask("/v1/query/near-items", {}, Content_Encoding="gzip")
    assert (packed.status, json.loads(packed.body)["error"]["code"]) == (415, "unsupported_media_type")


@pytest.mark.parametrize("place", PLACES)
def test_compression_is_for_those_who_ask_and_for_what_is_worth_it(site, place: str) -> None:
    opened = {"gzip": gzip.decompress, "zstd": zstd.decompress}
    for path in (f"/v1/query/{place}-items", f"/v1/query/{place}-items/export"):
        body = {"where": {"id": {"$gt": 0}}} | ({"limit": 3000} if path.endswith("items") else {})
        for accept in FORMATS:
            plain = site.ask(path, body, accept=accept)
            assert "content-encoding" not in plain.headers
            for coding, decompress in opened.items():
                packed = site.ask(path, body, accept=accept, Accept_Encoding=coding)
                assert packed.headers["content-encoding"] == coding
                assert packed.headers["vary"] == "Accept, Accept-Encoding"
                assert len(packed.body) < len(plain.body) / 3
                found, expected = decompress(packed.body), plain.body
                if accept == "application/json":
                    found, expected = (json.loads(each)["rows"] for each in (found, expected))
                assert found == expected
                assert packed.trailers == plain.trailers
    tiny = site.ask(f"/v1/query/{place}-items", {"limit": 3}, Accept_Encoding="gzip, zstd")
    assert "content-encoding" not in tiny.headers
    assert len(json.loads(tiny.body)["rows"]) == 3


def test_the_examples_of_the_reference_work_as_they_stand(site, tmp_path: pathlib.Path) -> None:
    fields = {
        "id": {"type": "integer", "primaryKey": True},
        "customer": {"type": "text"},
        "total": {"type": "decimal", "column": "total_amount"},
        "placed": {"type": "timestamp", "column": "created_at"},
    }
    lens = {"source": "far", "table": "public.orders", "fields": fields}
    assert site.client.put("/v1/lenses/orders", json=lens).status_code == 200
    text = pathlib.Path("docs/reference/http.md").read_text(encoding="utf-8")
    examples = [block for block in re.findall(r"```sh\n(.*?)```", text, re.DOTALL) if "curl" in block]
    assert len(examples) == 2
    outputs = []
    for example in examples:
        here = example.replace("http://127.0.0.1:8080", site.deployment.url)
        done = subprocess.run(
            ["bash", "-ec", here],
            cwd=tmp_path,
            env={**os.environ, "KEY": site.deployment.admin_key},
            capture_output=True,
            text=True,
            check=True,
        )
        outputs.append(done.stdout)
    assert json.loads(outputs[0])["meta"]["lens"] == "orders"
    table = (tmp_path / "orders.csv").read_text().splitlines()
    assert table[0] == "id,customer,total,placed"
    assert len(table) == 1 + 5000 - 80
