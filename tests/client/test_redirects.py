"""Keys stay with the server they were meant for: redirects are not followed, and no key travels in clear unless asked to."""

from __future__ import annotations

import asyncio
import pathlib
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

import lensway
from lensway.client import exceptions
from lensway.testing.deployment import clean_environment

LOCATIONS = {
    "http://other.example:81/v1/x?token=secret#part": "http://other.example:81/v1/x",
    "https://user:secret@other.example/v1/x": "https://other.example/v1/x",
    "//other.example/login": "http://other.example/login",
    "/moved": "",
    "": "",
    "http://[": "",
    "https://other.example/\x1b[2Jx": "https://other.example",
    "https://other.example/" + "x" * 5000: "https://other.example",
}


@pytest.fixture
def redirecting() -> Iterator[tuple[str, dict]]:
    """A server that redirects everything, to a place and with a status that the test chooses."""
    chosen: dict = {"location": "http://other.example/", "status": 307}

    class Handler(BaseHTTPRequestHandler):
        def answer(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            self.send_response(chosen["status"])
            if chosen["location"] is not None:
                self.send_header("Location", chosen["location"])
            self.send_header("Content-Length", "0")
            self.end_headers()

        do_GET = do_POST = do_DELETE = do_PUT = answer  # noqa: N815 - the library's names

        def log_message(self, *_arguments: object) -> None:
            """Print nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", chosen
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def command(url: str, *arguments: str, cwd: pathlib.Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "lensway.cli.main", *arguments],
        env=clean_environment() | {"LENSWAY_URL": url, "LENSWAY_API_KEY": "sk_" + "x" * 43, **environment},
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


@pytest.mark.parametrize("location", [*LOCATIONS, None], ids=lambda text: repr(text)[:40])
def test_a_redirect_is_an_error_that_names_its_target(redirecting, location: str | None) -> None:
    url, chosen = redirecting
    chosen["location"] = location
    target = LOCATIONS.get(location or "", "")
    with lensway.connect(url, key="sk_x", timeout=5) as client:
        for ask in (
            lambda: client.query("orders"),
            lambda: client.call("DELETE", "/v1/keys/x"),
            lambda: list(client.rows("orders")),
            lambda: client.export("orders").__enter__(),
        ):
            with pytest.raises(exceptions.UnreachableError, match="redirects") as error:
                ask()
            text = f"{error.value} {error.value.hint}"
            assert target in text
            assert "secret" not in text
            assert text.isprintable()
            assert len(text) < 500


@pytest.mark.parametrize("status", [300, 301, 302, 303, 304, 308, 399])
def test_every_redirect_is_one(redirecting, status: int) -> None:
    url, chosen = redirecting
    chosen["status"] = status

    async def ask() -> None:
        async with lensway.connect_async(url, key="sk_x", timeout=5) as client:
            with pytest.raises(exceptions.UnreachableError, match="redirects"):
                await client.query("orders")
            with pytest.raises(exceptions.UnreachableError, match="redirects"):
                async with client.export("orders"):
                    pass

    asyncio.run(ask())


def test_commands_say_so_in_one_line(redirecting, tmp_path: pathlib.Path) -> None:
    url, _ = redirecting
    for arguments in (["query", "orders"], ["export", "orders", "-o", "x.csv"], ["sources", "list"], ["events"]):
        done = command(url, *arguments, cwd=tmp_path)
        assert done.returncode == 1, done.stderr
        assert "http://other.example/" in done.stderr
        assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "url",
    ["http://lensway.example:1", "http://192.0.2.1:1", "http://[2001:db8::1]:1", "http://0x7f000001.example:1"],
)
def test_no_key_goes_in_clear_to_another_machine(url: str, tmp_path: pathlib.Path) -> None:
    done = command(url, "sources", "list", cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    assert "--insecure" in done.stderr
    assert "x" * 43 not in done.stderr


def test_unless_asked_to(redirecting, tmp_path: pathlib.Path) -> None:
    # The name resolves to this machine, but its name does not say so.
    url = redirecting[0].replace("127.0.0.1", "0.0.0.0")
    assert command(url, "sources", "list", cwd=tmp_path).returncode == 2
    assert "redirects" in command(url, "sources", "list", "--insecure", cwd=tmp_path).stderr
    assert "redirects" in command(url, "sources", "list", cwd=tmp_path, LENSWAY_INSECURE="1").stderr


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::1]", "127.9.9.9"])
def test_this_machine_needs_no_leave(host: str, tmp_path: pathlib.Path) -> None:
    done = command(f"http://{host}:1", "sources", "list", cwd=tmp_path)
    assert done.returncode == 1
    assert "--insecure" not in done.stderr


OTHERS = [
    "http://lensway.example:1",
    "HTTP://192.0.2.1:1",
    "http://[2001:db8::1]:1",
    "http://0.0.0.0:1",
    "http://127.0.0.1.example",
]


@pytest.mark.parametrize("url", OTHERS)
def test_the_clients_send_no_key_in_clear_either(face, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LENSWAY_INSECURE", "1")  # of the commands; a program says it in its own words
    with pytest.raises(exceptions.InvalidRequestError, match="another machine") as error:
        face.at(url, "sk_" + "x" * 43)
    assert "insecure=True" in error.value.hint
    assert "x" * 43 not in f"{error.value} {error.value.hint}"
    face.at(url, "sk_" + "x" * 43, insecure=True).close()
    face.at(url.lower().replace("http:", "https:"), "sk_" + "x" * 43).close()


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "LOCALHOST", "[::1]", "127.9.9.9", "[::ffff:127.0.0.1]"])
def test_the_clients_need_no_leave_for_this_machine(face, host: str) -> None:
    face.at(f"http://{host}:1").close()
