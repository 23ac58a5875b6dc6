"""A stream that ends early is never taken for complete: every format, every client, directly and through nginx."""

from __future__ import annotations

import http.client
import io
import json
import shutil
import socket
import subprocess
import threading
from collections.abc import Iterator

import httpx2
import pyarrow
import pyarrow.parquet
import pytest
from playwright.sync_api import sync_playwright

from lensway.service.streaming import BetweenBoundaries
from lensway.testing.deployment import wait_until
from lensway.testing.http_caller import Answer, Caller, judged
from lensway.testing.nginx import nginx_before

pytestmark = pytest.mark.acceptance
ARROW = "application/vnd.apache.arrow.stream"
PARQUET = "application/vnd.apache.parquet"
FORMATS = ("application/json", "application/x-ndjson", "application/x-ndjson; end=record", "text/csv", ARROW, PARQUET)
CODINGS = ("identity", "gzip", "zstd")


@pytest.fixture(scope="module")
def proxied(site, tmp_path_factory) -> Iterator[int]:
    """The port of an nginx before the server."""
    with nginx_before(site.deployment.http_port, tmp_path_factory.mktemp("nginx")) as port:
        yield port


class Replay:
    """A server that answers every request with the first ``length`` bytes of a recorded answer, and ends the connection."""

    def __init__(self, recorded: bytes) -> None:
        self.recorded = recorded
        self.length = len(recorded)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            with connection:
                asked = b""
                while b"\r\n\r\n" not in asked:
                    asked += connection.recv(65536)
                connection.sendall(self.recorded[: self.length])


def export(port: int, site, lens: str, accept: str, coding: str = "identity") -> Answer:
    with Caller(port, key=site.deployment.admin_key) as caller:
        caller.post(f"/v1/query/{lens}/export", {}, headers={"Accept": accept, "Accept-Encoding": coding})
        return caller.answer()


def recorded(site, accept: str, coding: str) -> bytes:
    """The raw bytes of a complete answer."""
    with Caller(site.deployment.http_port, key=site.deployment.admin_key) as caller:
        headers = {"Accept": accept, "Accept-Encoding": coding, "Connection": "close"}
        caller.post("/v1/query/near-items/export", {"where": {"id": {"$lte": 20}}}, headers=headers)
        data = caller.rest()
    assert judged(data).is_complete
    return data


@pytest.mark.parametrize("coding", CODINGS)
@pytest.mark.parametrize("accept", FORMATS)
def test_an_answer_that_ends_at_any_byte_is_incomplete(site, accept: str, coding: str) -> None:
    data = recorded(site, accept, coding)
    whole = judged(data)
    for length in range(len(data)):
        cut = judged(data[:length])
        assert not cut.is_complete or cut.body == whole.body, length
    assert judged(data[: data.rindex(b"0\r\nLensway-Rows")]).body == whole.body
    assert not judged(data[: data.rindex(b"0\r\nLensway-Rows")]).is_complete


@pytest.mark.parametrize("accept", FORMATS)
def test_an_answer_that_ends_at_any_byte_is_incomplete_behind_nginx_too(site, accept: str, tmp_path) -> None:
    replay = Replay(recorded(site, accept, "identity"))
    whole = judged(replay.recorded)
    body_at = replay.recorded.index(b"\r\n\r\n") + 4
    end_at = replay.recorded.rindex(b"0\r\nLensway-Rows") + 1
    lengths = [*range(body_at, end_at, max(1, (end_at - body_at) // 60)), *range(end_at - 8, end_at + 1)]
    try:
        with nginx_before(replay.port, tmp_path) as port:
            for length in (*lengths, len(replay.recorded)):
                replay.length = length
                with Caller(port) as caller:
                    caller.post("/")
                    answer = caller.answer()
                if length == len(replay.recorded):
                    assert answer.is_complete
                    assert answer.body == whole.body
                else:
                    assert not answer.is_complete or answer.status == 502, length
    finally:
        replay.close()


@pytest.mark.parametrize("accept", FORMATS[:-1])
def test_a_failure_on_the_way_cuts_the_stream(site, proxied: int, accept: str) -> None:
    for place, port, coding in (
        *(("near", site.deployment.http_port, coding) for coding in CODINGS),
        ("far", site.deployment.http_port, "identity"),
        ("near", proxied, "identity"),
        ("far", proxied, "identity"),
    ):
        answer = export(port, site, f"{place}-failing", accept, coding)
        assert answer.status == 200, answer.body
        assert answer.body
        assert not answer.is_complete
        assert answer.trailers == {}
        assert b"$end" not in answer.body
        if coding == "identity":
            assert_unreadable(answer.body, accept)
    assert site.last_request()["outcome"] == "SOURCE_QUERY_FAILED"
    assert not site.deployment.server.output.text().count("Traceback")


@pytest.mark.parametrize("accept", ["application/x-ndjson", ARROW])
def test_a_cut_is_an_error_to_every_client(site, proxied: int, accept: str) -> None:
    for port in (site.deployment.http_port, proxied):
        url = f"http://127.0.0.1:{port}/v1/query/far-failing/export"
        headers = {"Accept": accept, "Authorization": f"Bearer {site.deployment.admin_key}"}
        options = [part for name, value in headers.items() for part in ("-H", f"{name}: {value}")]
        done = subprocess.run(["curl", "-sS", "-X", "POST", *options, "-o", "/dev/null", url], check=False)
        assert done.returncode in (18, 56)
        with pytest.raises(httpx2.HTTPError):
            httpx2.post(url, headers=headers, trust_env=False)
        plain = http.client.HTTPConnection("127.0.0.1", port)
        plain.request("POST", "/v1/query/far-failing/export", headers=headers)
        with pytest.raises((http.client.IncompleteRead, ConnectionError)):
            plain.getresponse().read()
        plain.close()


def assert_unreadable(body: bytes, accept: str) -> None:
    """Readers of self-contained formats fail on the bytes alone."""
    if accept == ARROW:
        with pytest.raises((pyarrow.ArrowInvalid, OSError)):
            pyarrow.ipc.open_stream(body).read_all()
    elif accept == PARQUET:
        with pytest.raises(pyarrow.ArrowInvalid):
            pyarrow.parquet.read_table(io.BytesIO(body))
    elif accept == "application/json":
        with pytest.raises(json.JSONDecodeError):
            json.loads(body)


@pytest.mark.browser
def test_fetch_in_a_browser_rejects_a_cut_stream(site) -> None:
    program = next(found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name)))
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        try:
            page = browser.new_page()
            page.goto(f"{site.deployment.url}/healthz")
            for lens, expected in (("near-items", "complete"), ("near-failing", "TypeError")):
                found = page.evaluate(
                    "async ([path, key]) => { try {"
                    " const answer = await fetch(path, {method: 'POST', headers: {Authorization: 'Bearer ' + key}});"
                    " await answer.text(); return 'complete'; } catch (error) { return error.name; } }",
                    [f"/v1/query/{lens}/export", site.deployment.admin_key],
                )
                assert found == expected
        finally:
            browser.close()


def test_an_arrow_stream_is_never_given_up_to_the_end_of_a_message(site) -> None:
    whole = export(site.deployment.http_port, site, "near-items", ARROW).body
    for size in (1, 3, 4, 5, 8, 64, 1000, 65536):
        guard = BetweenBoundaries()
        given = b""
        for start in range(0, len(whole), size):
            given += guard.feed(whole[start : start + size])
            assert len(given) < len(whole)
            if start // size < 400 or start + 400 * size > len(whole):
                with pytest.raises((pyarrow.ArrowInvalid, OSError)):
                    pyarrow.ipc.open_stream(given).read_all()
        assert given + guard.rest() == whole


def test_a_killed_server_leaves_every_stream_visibly_incomplete(site, proxied: int) -> None:
    streams = []
    for number, accept in enumerate([*FORMATS[2:], *FORMATS[2:]]):
        caller = Caller((site.deployment.http_port, proxied)[number % 2], key=site.deployment.admin_key)
        place = ("near", "far")[number // 4]
        caller.post(f"/v1/query/{place}-endless/export", {}, headers={"Accept": accept})
        taken = b""
        while len(taken) < 1000 + number * 40_001:
            taken += caller.read()
        streams.append((caller, taken, accept))
    site.deployment.server.kill()
    try:
        for caller, taken, accept in streams:
            with caller:
                answer = judged(taken + caller.rest())
            assert answer.status == 200
            assert not answer.is_complete
            if accept == PARQUET:
                assert_unreadable(answer.body, accept)
    finally:
        site.deployment.start_server()
        wait_until(site.is_served_by_runner, seconds=15, what="the runner to be back")


@pytest.mark.parametrize(("accept", "taken_bytes"), [(ARROW, 300_000), ("text/csv", 3_000_000)])
def test_a_killed_runner_leaves_its_stream_visibly_incomplete(site, accept: str, taken_bytes: int) -> None:
    with Caller(site.deployment.http_port, key=site.deployment.admin_key) as caller:
        caller.post("/v1/query/far-endless/export", {}, headers={"Accept": accept})
        taken = b""
        while len(taken) < taken_bytes:
            taken += caller.read()
        site.runner.kill()
        answer = judged(taken + caller.rest())
    assert (answer.status, answer.is_complete) == (200, False)
    if accept == ARROW:
        assert_unreadable(answer.body, accept)
    ended = site.last_request()
    assert ended["outcome"] == "runner_failed"
    assert ended["bytes"] >= taken_bytes, "what the caller was given before the cut counts"
    site.start_runner()


def counted(site, code: str) -> float:
    """Requests that ended so, as the metrics say."""
    name = f'lensway_requests_total{{code="{code}"}} '
    lines = site.client.get("/metrics").text.splitlines()
    return next((float(line.removeprefix(name)) for line in lines if line.startswith(name)), 0.0)


def test_a_stream_counts_as_what_became_of_it(site) -> None:
    good, failed, left = (counted(site, code) for code in ("ok", "SOURCE_QUERY_FAILED", "cancelled"))
    assert not export(site.deployment.http_port, site, "near-failing", "text/csv").is_complete
    assert counted(site, "SOURCE_QUERY_FAILED") == failed + 1
    with Caller(site.deployment.http_port, key=site.deployment.admin_key, receive_buffer_bytes=32_768) as caller:
        caller.post("/v1/query/near-endless/export", {}, headers={"Accept": "text/csv"})
        assert caller.read(100)
    wait_until(lambda: counted(site, "cancelled") == left + 1, seconds=5, what="the caller that left to be counted")
    # The looks at the metrics are requests too, and good ones; the streams are none of these.
    seen = counted(site, "ok")
    assert export(site.deployment.http_port, site, "near-items", "text/csv").is_complete
    assert counted(site, "ok") == seen + 2
    assert good < seen
