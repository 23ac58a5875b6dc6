"""What every `list` and `show` prints: tables that fit the terminal, four forms for programs, nothing that drives a terminal."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import csv
import fcntl
import io
import json
import os
import pty
import signal
import struct
import subprocess
import sys
import termios
import threading

import pytest

from lensway.testing.deployment import clean_environment, wait_until

pytestmark = pytest.mark.acceptance


SEVERAL = """
import json, sys
from lensway.cli.main import run
for arguments in json.loads(sys.argv[1]):
    run(arguments)
    print("=====", flush=True)
"""
"""Runs several commands in one process, because most of the time of a short command is its start."""


class AtTerminal:
    """A command at a terminal of this width."""

    def __init__(self, deployment, width: int, *arguments: str, **environment: str) -> None:
        self._start(deployment, width, [sys.executable, "-m", "lensway.cli.main", *arguments], environment)

    def _start(self, deployment, width: int, program: list[str], environment: dict[str, str]) -> None:
        self._ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 2_000, width, 0, 0))
        settings = {"LENSWAY_URL": deployment.url, "LENSWAY_API_KEY": deployment.admin_key, "TERM": "xterm-256color"}
        inherited = {name: value for name, value in clean_environment().items() if name not in ("COLUMNS", "NO_COLOR")}
        self.process = subprocess.Popen(
            program,
            env=inherited | settings | environment,
            stdin=subprocess.DEVNULL,
            stdout=theirs,
            stderr=theirs,
        )
        os.close(theirs)
        self._output = b""
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        with contextlib.suppress(OSError):  # how the output of a terminal ends
            while data := os.read(self._ours, 65536):
                self._output += data

    @property
    def shown(self) -> str:
        return self._output.decode(errors="replace").replace("\r\n", "\n")

    def end(self) -> str:
        self.process.wait(60)
        self._reader.join(30)
        os.close(self._ours)
        return self.shown


class SeveralAtTerminal(AtTerminal):
    """Several commands at one terminal, one after the other."""

    def __init__(self, deployment, width: int, commands, **environment: str) -> None:
        self._start(deployment, width, [sys.executable, "-c", SEVERAL, json.dumps(commands)], environment)


def all_at_terminal(deployment, width: int, commands, **environment: str) -> list[str]:
    shown = SeveralAtTerminal(deployment, width, commands, **environment).end().split("=====\n")
    assert len(shown) == len(commands) + 1, shown
    return shown[:-1]


def all_piped(deployment, commands) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-c", SEVERAL, json.dumps(commands)],
        env=clean_environment() | {"LENSWAY_URL": deployment.url, "LENSWAY_API_KEY": deployment.admin_key},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return done.stdout.split("=====\n")[:-1]


def at_terminal(deployment, width: int, *arguments: str, **environment: str) -> str:
    return AtTerminal(deployment, width, *arguments, **environment).end()


@pytest.fixture(scope="module")
def furnished(module_stage):
    """A stage with one runner that is there, one that never was, keys with long names, and requests."""
    stage = module_stage
    stage.runner("alpha")
    stage.runner("beta", start=False)
    for runner in ("alpha", "beta"):
        stage.assign(runner)
    name = "the storefront of the web shop in Frankfurt"
    created = stage.client.post(
        "/v1/keys",
        json={"kind": "pk", "name": name, "origins": ["https://shop.example.org", "https://www.example.org"]},
    )
    assert created.status_code == 201, created.text
    assert stage.query().status_code == 200
    return stage


def listings(stage) -> list[tuple[str, ...]]:
    request = stage.client.get("/v1/requests").json()["requests"][0]["id"]
    return [
        ("sources", "list"),
        ("sources", "show", stage.source),
        ("sources", "tables", stage.source),
        ("sources", "tables", stage.source, "public.orders"),
        ("lenses", "list"),
        ("lenses", "show", stage.lens),
        ("runners", "list"),
        ("runners", "show", stage.name("alpha")),
        ("keys", "list"),
        ("audit",),
        ("requests",),
        ("requests", request),
        ("environments", "list"),
    ]


@pytest.mark.parametrize("width", [60, 80, 200])
def test_every_listing_is_a_table_that_fits_and_breaks_no_word(furnished, width: int) -> None:
    commands = listings(furnished)
    whole = json.dumps([furnished.client.get(f"/v1/{kind}").json() for kind in ("keys", "requests", "runners")])
    shown = all_at_terminal(furnished.deployment, width, commands, NO_COLOR="1")
    for command, text in zip(commands, shown, strict=True):
        assert "\x1b" not in text, (command, text)
        assert '{"' not in text.replace('{"$', ""), (command, text)
        # Hints and warnings are sentences that the terminal wraps; a table ends before them.
        table = [line for line in text.splitlines() if "  " in line]
        assert table, (command, text)
        assert max(map(len, table)) <= width, (command, text)
    keys = shown[commands.index(("keys", "list"))]
    ids = [line.split()[0] for line in keys.splitlines() if line.startswith("key_")]
    assert len(ids) > 1, keys
    assert all(f'"{id}"' in whole for id in ids), "an id is whole, so that it can be copied"
    assert ("ORIGINS" in keys.splitlines()[0]) is (width == 200)
    assert "storefront" in keys
    if width < 200:
        assert "not shown at this width: " in keys


def test_states_have_an_icon_and_a_word_and_a_colour_unless_that_is_not_wanted(furnished) -> None:
    command = ("runners", "list")
    coloured = at_terminal(furnished.deployment, 120, *command)
    assert "\x1b[32m✓ healthy\x1b[0m" in coloured
    assert "\x1b[36m○ never connected\x1b[0m" in coloured
    for environment in ({"NO_COLOR": "1"}, {"TERM": "dumb"}):
        plain = at_terminal(furnished.deployment, 120, *command, **environment)
        assert "✓ healthy" in plain
        assert "\x1b" not in plain
    ascii_only = at_terminal(furnished.deployment, 120, *command, NO_COLOR="1", PYTHONIOENCODING="ascii")
    assert "  healthy" in ascii_only
    assert "\x1b" not in furnished.deployment.cli(*command, "--format", "table").stdout, "what is piped is plain"


def test_four_forms_of_the_same_records(furnished) -> None:
    cli = furnished.deployment.cli
    commands = (("runners", "list"), ("sources", "list"), ("keys", "list"), ("requests",), ("audit", "--limit", "3"))
    forms = ("json", "ndjson", "csv")
    printed = iter(
        all_piped(furnished.deployment, [(*command, "--format", form) for command in commands for form in forms])
    )
    for command in commands:
        records = json.loads(next(printed))
        lines = next(printed).splitlines()
        table = list(csv.DictReader(io.StringIO(next(printed))))
        assert len(lines) == len(table) >= len(records) > 0
        assert json.loads(lines[-1]).keys() == records[-1].keys()
        assert set(records[-1]) <= set(table[-1]), command
    empty = cli("sign-ins", "list", "--format", "csv").stdout
    assert empty == "id,key,keyName,role,address,createdAt,lastUsedAt,expiresAt\n", "columns are there without a row"
    one = cli("runners", "show", furnished.name("alpha"), "--format", "ndjson").stdout
    assert json.loads(one)["name"] == furnished.name("alpha")
    both = cli("runners", "list", "--json", "--format", "csv")
    assert (both.returncode, "exclude each other" in both.stderr) == (2, True)


def test_sources_have_a_health_and_requests_a_time(furnished) -> None:
    sources = {source["name"]: source for source in json.loads(furnished.deployment.cli("sources", "list").stdout)}
    mine = sources[furnished.source]
    assert mine["health"] == "degraded", "one of its two runners never connected"
    assert {place["runner"]: place["health"] for place in mine["places"]} == {
        furnished.name("alpha"): "ready",
        furnished.name("beta"): "never_connected",
    }
    shown = at_terminal(furnished.deployment, 200, "sources", "list", NO_COLOR="1")
    assert f"{furnished.name('beta')} ○ never connected" in shown
    requests = at_terminal(furnished.deployment, 80, "requests", NO_COLOR="1").splitlines()
    assert requests[0].split()[:2] == ["REQUEST", "AT"]
    problems = json.loads(furnished.deployment.cli("runners", "list", "--problems").stdout)
    names = {runner["name"] for runner in problems}
    assert furnished.name("beta") in names
    assert furnished.name("alpha") not in names


def test_an_assignment_to_a_runner_that_never_connected_says_so(furnished) -> None:
    done = furnished.deployment.cli("runners", "assign", furnished.name("beta"), furnished.source)
    assert done.returncode == 0
    assert f"runner {furnished.name('beta')} has never connected" in done.stderr
    there = furnished.deployment.cli("runners", "assign", furnished.name("alpha"), furnished.source)
    assert "never connected:" not in there.stderr.replace(furnished.name("beta"), "")


def test_names_and_values_of_a_database_do_not_drive_the_terminal(furnished) -> None:
    hostile = "evil\x1b[2J\nname\x9b31m\u202e"
    asyncio.run(
        furnished.database.execute(
            f'CREATE TABLE "{hostile}" (id bigint PRIMARY KEY, "{hostile}" text)',
            f'CREATE TABLE plain (id bigint PRIMARY KEY, value text, "{hostile}" text)',
            "INSERT INTO plain VALUES (1, E'\\x1b]0;title\\x07\\n\\x1b[2J', '')",
            f'GRANT SELECT ON "{hostile}", plain TO orders_reader',
        )
    )
    lens = f"{furnished.lens}-hostile"
    declared = {
        "source": furnished.source,
        "table": "public.plain",
        "fields": {"id": {"type": "integer", "primaryKey": True}, "value": {"type": "text"}},
    }
    assert furnished.client.put(f"/v1/lenses/{lens}", json=declared).status_code == 200
    commands = [
        ("sources", "tables", furnished.source),
        ("sources", "tables", furnished.source, f"public.{hostile}"),
        ("query", lens),
        ("query", lens, "--all"),
        ("lenses", "check", lens),
        ("runners", "show", "no\x1b[2Jrunner"),
        *((("sources", "tables", furnished.source, "--format", form)) for form in ("json", "ndjson", "csv")),
        *((("query", lens, "--format", form)) for form in ("json", "ndjson", "csv")),
    ]
    shown = all_at_terminal(furnished.deployment, 100, commands, NO_COLOR="1")
    for command, text in zip(commands, shown, strict=True):
        raw = [character for character in text if not character.isprintable() and character != "\n"]
        assert raw == [], (command, text)
        assert not any(line.startswith("name") and "kind" not in line for line in text.splitlines()), (command, text)
        if command[0] == "query":
            assert "title" in text, (command, text)
    assert json.loads(at_terminal(furnished.deployment, 100, "query", lens, "--json"))["rows"] == [
        {"id": 1, "value": "\x1b]0;title\x07\n\x1b[2J"}
    ], "as JSON it is the same value"


def test_a_watched_list_follows_what_changes(furnished) -> None:
    furnished.runner("gamma", start=False)
    name = furnished.name("gamma")
    table = AtTerminal(furnished.deployment, 160, "runners", "list", "--watch", NO_COLOR="1")
    lines = subprocess.Popen(
        [sys.executable, "-m", "lensway.cli.main", "runners", "list", "--watch", "--format", "ndjson"],
        env=clean_environment()
        | {"LENSWAY_URL": furnished.deployment.url, "LENSWAY_API_KEY": furnished.deployment.admin_key},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert lines.stdout is not None
    try:
        wait_until(lambda: f"{name} " in table.shown, seconds=30, what="the first table")
        while json.loads(lines.stdout.readline())["name"] != name:
            pass
        assert furnished.client.delete(f"/v1/runners/{name}").status_code in (200, 204)
        while json.loads(lines.stdout.readline()) != {"name": name, "removed": True}:
            pass
        wait_until(lambda: f"{name} " not in table.shown.rpartition("\x1b[H")[2], seconds=30, what="the next table")
    finally:
        for process in (table.process, lines):
            process.send_signal(signal.SIGINT)
        lines.communicate(timeout=30)
        shown = table.end()
    assert (table.process.returncode, lines.returncode) == (130, 130)
    assert shown.rpartition("\x1b[?1049l")[2].startswith("RUNNER"), "the last table stays"


def test_a_watched_list_says_that_it_is_stale_when_the_server_does_not_answer(furnished) -> None:
    table = AtTerminal(furnished.deployment, 160, "sources", "list", "--watch", NO_COLOR="1")
    server = furnished.deployment.server
    try:
        # Other tests of this deployment have sources too: any row will do.
        wait_until(lambda: "EXECUTED BY" in table.shown, seconds=30, what="the first table")
        server.signal(signal.SIGSTOP)
        wait_until(lambda: "STALE for " in table.shown, seconds=30, what="the word that it is stale")
        server.signal(signal.SIGCONT)
        wait_until(lambda: "Ctrl-C ends" in table.shown.rpartition("STALE")[2], seconds=30, what="the next answer")
    finally:
        server.signal(signal.SIGCONT)
        table.process.send_signal(signal.SIGINT)
        table.end()
    assert table.process.returncode == 130


def test_a_connection_is_one_event(furnished) -> None:
    watching = subprocess.Popen(
        [sys.executable, "-m", "lensway.cli.main", "events", "--format", "ndjson"],
        env=clean_environment()
        | {"LENSWAY_URL": furnished.deployment.url, "LENSWAY_API_KEY": furnished.deployment.admin_key},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert watching.stdout is not None
    furnished.runner("delta", start=False)
    name = furnished.name("delta")
    heard = []
    try:
        # What is heard first shows that it listens.
        with concurrent.futures.ThreadPoolExecutor() as pool:
            first = pool.submit(watching.stdout.readline)
            while not first.done():
                assert furnished.client.put(f"/v1/lenses/{furnished.lens}-probe", json=_probe(furnished)).is_success
        furnished.start("delta").stop()
        while not heard or heard[-1].get("state") != "lost":
            event = json.loads(watching.stdout.readline())
            if event.get("runner") == name and event["event"] == "session":
                heard.append(event)
    finally:
        watching.send_signal(signal.SIGINT)
        watching.communicate(timeout=30)
    states = [(event["state"], event["cause"]) for event in heard]
    assert len(states) == len(set(states)), states
    assert sum(state == "live" for state, _ in states) == 1, states


def _probe(stage) -> dict:
    return {"source": stage.source, "table": "public.orders", "fields": {"id": {"type": "integer", "primaryKey": True}}}
