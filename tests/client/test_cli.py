"""`lensway query` and `export` as a user has them: files that are whole or not there, pipes, progress, interruptions."""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import pty
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator

import pyarrow.ipc
import pyarrow.parquet
import pytest

from lensway.cli import main
from lensway.testing.deployment import clean_environment, wait_until

pytestmark = pytest.mark.acceptance
PROGRAM = (sys.executable, "-m", "lensway.cli.main")
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/x-ndjson\r\nTransfer-Encoding: chunked\r\n\r\n"
SOME_ROWS = b"24\r\n" + b'{"id":1}\n{"id":2}\n{"id":3}\n{"id":4}\n' + b"\r\n"


@contextlib.contextmanager
def endless() -> Iterator[tuple[str, threading.Event]]:
    """A server that streams four rows for each beat and never ends; setting the event cuts what it streams."""
    cut = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            with contextlib.suppress(OSError):
                connection, _ = listener.accept()
                with connection:
                    connection.recv(65536)
                    connection.sendall(HEAD + SOME_ROWS)
                    while not cut.wait(0.05):
                        connection.sendall(SOME_ROWS)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}", cut
        finally:
            cut.set()
            with contextlib.suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)
            thread.join()


class AtTerminal:
    """A command whose standard error is a terminal."""

    def __init__(self, url: str, cwd: pathlib.Path, *arguments: str) -> None:
        self._master, slave = pty.openpty()
        environment = clean_environment() | {"LENSWAY_URL": url, "LENSWAY_API_KEY": "sk_x", "TERM": "xterm"}
        self.process = subprocess.Popen([*PROGRAM, *arguments], env=environment, cwd=cwd, stderr=slave)
        os.close(slave)
        self.shown = b""
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        with contextlib.suppress(OSError):
            while data := os.read(self._master, 4096):
                self.shown += data

    def end(self) -> int:
        code = self.process.wait(30)
        self._reader.join(30)
        os.close(self._master)
        return code


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_export_leaves_nothing_behind(tmp_path: pathlib.Path, number: int) -> None:
    with endless() as (url, _):
        command = AtTerminal(url, tmp_path, "export", "orders", "-o", "orders.ndjson")
        wait_until(lambda: b"rows," in command.shown, seconds=30, what="progress")
        assert [path.suffix for path in tmp_path.iterdir()] == [".partial"]
        command.process.send_signal(number)
        assert command.end() == 130
    shown = command.shown.decode()
    assert "B/s" in shown
    assert "interrupted" in shown
    assert "Traceback" not in shown
    assert list(tmp_path.iterdir()) == []


def test_a_cut_export_exits_1_and_leaves_no_file(tmp_path: pathlib.Path) -> None:
    (tmp_path / "orders.ndjson").write_text("what was there before\n")
    with endless() as (url, cut):
        command = AtTerminal(url, tmp_path, "export", "orders", "-o", "orders.ndjson")
        wait_until(lambda: b"rows," in command.shown, seconds=30, what="progress")
        cut.set()
        assert command.end() == 1
    assert b"lensway: the stream broke" in command.shown
    assert [path.name for path in tmp_path.iterdir()] == ["orders.ndjson"]
    assert (tmp_path / "orders.ndjson").read_text() == "what was there before\n"


def test_an_export_takes_its_format_from_the_ending(server, tmp_path: pathlib.Path) -> None:
    for name in ("orders.csv", "orders.ndjson", "orders.arrow", "orders.parquet"):
        done = server.cli("export", "orders", "-o", str(tmp_path / name))
        assert (done.returncode, done.stdout) == (0, ""), done.stderr
        assert name in done.stderr
    assert len((tmp_path / "orders.csv").read_text().splitlines()) == 5001
    assert len((tmp_path / "orders.ndjson").read_text().splitlines()) == 5000
    assert "5,000 rows" in server.cli("export", "orders", "-o", str(tmp_path / "again.csv")).stderr
    with pyarrow.ipc.open_stream(str(tmp_path / "orders.arrow")) as reader:
        assert reader.read_all().num_rows == 5000
    assert pyarrow.parquet.read_table(tmp_path / "orders.parquet").num_rows == 5000
    piped = server.cli("export", "orders", "-o", "-", "--where", '{"id": {"$lte": 2}}', "--select", "id")
    assert (piped.stdout, piped.stderr) == ('{"id":1}\n{"id":2}\n', "")


def test_a_query_is_json_when_piped_page_by_page_to_the_end(server) -> None:
    done = server.cli(
        "query", "orders", "--all", "--select", "id", "--where", '{"id": {"$lte": 2500}}', "--limit", "1000"
    )
    found = json.loads(done.stdout)
    assert [row["id"] for row in found["rows"]] == list(range(1, 2501))
    assert (found["meta"]["count"], found["meta"]["hasMore"]) == (2500, False)
    assert json.loads(server.cli("query", "orders", "--where", '{"id": 0}').stdout)["rows"] == []
    csv = server.cli("query", "orders", "--format", "csv", "--limit", "2", "--select", "id", "--order-by", "id:desc")
    assert csv.stdout.splitlines() == ["id", "5000", "4999"]
    table = server.cli("query", "orders", "--format", "table", "--limit", "1")
    assert table.stdout.splitlines()[0].split() == ["id", "customer", "total", "placed", "note"]
    assert table.stdout.splitlines()[1].startswith("1   customer 1  1.25   2024-01-01T00:01:00.000000Z  note 1")
    assert "1 row via inline" in table.stderr
    wide = server.cli("query", "big", "--format", "table", "--limit", "1")
    assert wide.stdout.splitlines()[2].startswith("total     1"), "what does not fit is a line for each value"


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("query", "orders", "--where", "[1]"), 2, "--where must be a JSON object"),
        (("query", "orders", "--where", "{"), 2, "--where is not JSON"),
        (("query", "orders", "--where", '{"totl": 1}'), 2, "total"),
        (("query", "nothing"), 1, "not_found"),
        (("query", "keyless", "--all", "--limit", "9"), 2, "no primary key"),
        (("export", "orders", "-o", "orders.xls"), 2, "--format"),
        (("export", "orders", "-o", "nowhere/orders.csv"), 2, "cannot write nowhere/orders.csv"),
        (("export", "orders", "-o", "--json"), 2, "--output needs a file"),
        (("export", "orders", "--frmat", "csv"), 2, "--format"),
    ],
)
def test_what_is_wrong_is_said_in_one_helpful_line(
    server, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture, arguments, code: int, said: str
) -> None:
    monkeypatch.setenv("LENSWAY_URL", server.url)
    monkeypatch.setenv("LENSWAY_API_KEY", server.admin_key)
    monkeypatch.setattr(sys, "argv", ["lensway", *arguments])
    with pytest.raises(SystemExit) as ended:
        main.main()
    shown = capsys.readouterr().err
    assert (ended.value.code, said in shown) == (code, True), shown
    assert shown.startswith("lensway: ")


def test_a_server_that_is_away_is_said_to_be_and_not_waited_for(tmp_path: pathlib.Path) -> None:
    environment = clean_environment() | {"LENSWAY_URL": "http://127.0.0.1:1", "LENSWAY_API_KEY": "sk_x"}
    done = subprocess.run(
        [*PROGRAM, "query", "orders"], env=environment, cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr.splitlines()[0]) == (
        1,
        "lensway: No program listens at 127.0.0.1:1, the address of the server",
    )


def test_what_pull_prints_can_be_pushed(server, tmp_path: pathlib.Path) -> None:
    file = tmp_path / "declaration"
    file.write_text(server.cli("pull").stdout)
    pushed = server.cli("push", str(file))
    assert {change["action"] for change in json.loads(pushed.stdout)["changes"]} == {"unchanged"}, pushed.stderr
    file.write_text('{"sources": ')
    assert server.cli("push", str(file)).returncode == 2
