"""Profiles: a server and its key in a file of one's own, stored once the server took the key, used by commands and client."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import os
import pathlib
import pty
import stat
import subprocess
import sys
import threading

import pytest

import lensway
from lensway.cli.main import run
from lensway.client import profiles
from lensway.testing.deployment import wait_until

pytestmark = pytest.mark.acceptance

IN_A_TERMINAL = """
import fcntl, os, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execv(sys.argv[1], sys.argv[1:])
"""
NAMES = (
    "LENSWAY_URL",
    "LENSWAY_API_KEY",
    "LENSWAY_API_KEY_FILE",
    "LENSWAY_INSECURE",
    "LENSWAY_PROFILE",
    "LENSWAY_ENVIRONMENT",
    "LENSWAY_CA_FILE",
)


@pytest.fixture
def home(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> pathlib.Path:
    """A user without any setting."""
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    return tmp_path / "config" / "lensway"


class Typed(io.TextIOWrapper):
    """Standard input with this text in it."""

    def __init__(self, text: str) -> None:
        super().__init__(io.BytesIO(text.encode()), encoding="utf-8")


@pytest.fixture
def typed(monkeypatch: pytest.MonkeyPatch):
    def command(text: str, *arguments: str) -> int:
        monkeypatch.setattr(sys, "stdin", Typed(text))
        return run(arguments)

    return command


def test_a_profile_is_stored_for_its_owner_only_and_used_from_then_on(shared, home, typed, capfd) -> None:
    assert run(["sources", "list"]) == 2
    assert "lensway login" in capfd.readouterr().err
    assert typed(f"{shared.admin_key}\n", "login", shared.url) == 0
    file = home / "profiles.json"
    assert (stat.S_IMODE(file.stat().st_mode), stat.S_IMODE(home.stat().st_mode)) == (0o600, 0o700)
    assert run(["sources", "list", "--format", "ndjson"]) == 0
    assert run(["profiles", "--json"]) == 0
    shown = capfd.readouterr()
    assert '"kind": "ak"' in shown.out
    assert shared.admin_key not in shown.out + shown.err
    assert [path.name for path in home.iterdir() if "partial" in path.name] == []
    assert run(["logout"]) == 0
    assert shared.admin_key not in file.read_text()
    assert run(["sources", "list"]) == 2


def test_a_key_that_the_server_refuses_is_not_stored(shared, home, typed, capfd) -> None:
    wrong = "ak_" + "w" * 43
    assert typed(f"{wrong}\n", "login", shared.url) == 1
    assert typed(f"{wrong}\n", "login", "http://127.0.0.1:1") == 1
    assert typed(f"{shared.admin_key}\n", "login", shared.url, "--env", "nowhere") == 1
    for text in ("", "\n", "rk_" + "x" * 43, "hello", f"{wrong} {wrong}", "ak_\x1b[2J"):
        assert typed(text, "login", shared.url) == 2, text
    assert typed(f"{shared.admin_key}\n", "login", "http://db.example.org") == 2, "in clear text to another machine"
    shown = capfd.readouterr()
    assert wrong not in shown.out + shown.err
    assert not (home / "profiles.json").exists()


def test_a_key_as_an_argument_is_refused_and_not_repeated(shared, home, capfd) -> None:
    for arguments in ((shared.admin_key,), (shared.url, shared.admin_key)):
        assert run(["login", *arguments]) == 2
    shown = capfd.readouterr()
    assert "never as an argument" in shown.err
    assert shared.admin_key not in shown.out + shown.err


def test_a_prompt_shows_nothing_of_the_key(shared, home) -> None:
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", IN_A_TERMINAL, sys.executable, "-m", "lensway.cli.main", "login", shared.url],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
    )
    os.close(theirs)
    shown = bytearray()

    def read() -> None:
        with contextlib.suppress(OSError):
            while data := os.read(ours, 4096):
                shown.extend(data)

    reader = threading.Thread(target=read)
    reader.start()
    wait_until(lambda: b"API key for" in shown, seconds=60, what="the prompt")
    os.write(ours, f"{shared.admin_key}\n".encode())
    assert process.wait(60) == 0, shown
    reader.join(30)
    os.close(ours)
    assert shared.admin_key.encode() not in shown
    assert shared.admin_key in (home / "profiles.json").read_text()


def test_a_file_that_others_may_read_is_refused(shared, home, typed, capfd) -> None:
    assert typed(f"{shared.admin_key}\n", "login", shared.url) == 0
    (home / "profiles.json").chmod(0o640)
    assert run(["sources", "list"]) == 2
    assert "chmod 600" in capfd.readouterr().err
    (home / "profiles.json").write_text("[")
    (home / "profiles.json").chmod(0o600)
    assert run(["sources", "list"]) == 2
    assert "not a file of profiles" in capfd.readouterr().err


def test_which_of_several_settings_counts(shared, home, typed, capfd, monkeypatch: pytest.MonkeyPatch) -> None:
    assert typed(f"{shared.admin_key}\n", "login", shared.url, "--profile", "one") == 0
    assert typed(f"{shared.admin_key}\n", "login", shared.url, "--profile", "two") == 0
    assert [run(["profiles", "use", name]) for name in ("one", "three")] == [0, 2]
    assert "'one', 'two'" in capfd.readouterr().err
    monkeypatch.setenv("LENSWAY_PROFILE", "three")
    assert run(["sources", "list"]) == 2
    assert run(["sources", "list", "--profile", "two"]) == 0
    monkeypatch.setenv("LENSWAY_API_KEY", "ak_" + "w" * 43)
    assert run(["sources", "list"]) == 2
    assert "both set" in capfd.readouterr().err
    assert run(["sources", "list", "--profile", "two"]) == 0, "what is said on the line counts"
    monkeypatch.delenv("LENSWAY_PROFILE")
    monkeypatch.setenv("LENSWAY_URL", shared.url)
    assert run(["sources", "list"]) == 1, "variables come before the current profile"
    monkeypatch.delenv("LENSWAY_API_KEY")
    assert run(["sources", "list"]) == 0, "the same server"
    monkeypatch.setenv("LENSWAY_URL", "http://127.0.0.1:1")
    capfd.readouterr()
    assert run(["sources", "list"]) == 2, "a stored key goes to its own server only"
    assert "another server" in capfd.readouterr().err
    assert run(["logout", "--all"]) == 0
    assert json.loads((home / "profiles.json").read_text())["profiles"] == {}


def test_the_client_reads_profiles_and_variables(shared, home, typed, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(lensway.LenswayError, match="no profile is stored"):
        lensway.Client()
    assert typed(f"{shared.admin_key}\n", "login", shared.url, "--profile", "here") == 0
    with lensway.Client() as current, lensway.Client(profile="here") as named:
        assert current.call("GET", "/v1/environments") == named.call("GET", "/v1/environments")

    async def ask() -> object:
        async with lensway.AsyncClient() as client:
            return await client.lenses()

    assert isinstance(asyncio.run(ask()), list)
    monkeypatch.setenv("LENSWAY_URL", shared.url)
    monkeypatch.setenv("LENSWAY_API_KEY", "sk_" + "w" * 43)
    with lensway.Client() as client, pytest.raises(lensway.LenswayError, match="key"):
        client.lenses()
    monkeypatch.setenv("LENSWAY_API_KEY", shared.admin_key)
    monkeypatch.delenv("LENSWAY_API_KEY")
    (home / "key").write_text(f"{shared.admin_key}\n")
    monkeypatch.setenv("LENSWAY_API_KEY_FILE", str(home / "key"))
    with lensway.Client() as client:
        assert isinstance(client.lenses(), list)
    monkeypatch.setenv("LENSWAY_URL", "http://lensway.example.org")
    with pytest.raises(lensway.LenswayError, match="clear text"):
        lensway.Client()
    monkeypatch.setenv("LENSWAY_INSECURE", "1")
    lensway.Client().close()
    monkeypatch.setenv("LENSWAY_URL", shared.url)
    monkeypatch.setenv("LENSWAY_ENVIRONMENT", "nowhere")
    with lensway.Client() as client, pytest.raises(lensway.LenswayError, match="nowhere"):
        client.lenses()


def test_profiles_stored_at_the_same_time_are_all_kept(home) -> None:
    file = home / "profiles.json"

    def store(number: int) -> None:
        with profiles.locked(file):
            found = profiles.read(file)
            new = profiles.Profile(url="http://127.0.0.1:1", key=f"ak_{number}")
            profiles.write(file, profiles.Profiles(profiles={**found.profiles, str(number): new}))

    threads = [threading.Thread(target=store, args=(number,)) for number in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(profiles.read(file).profiles) == 16
    assert "ak_" not in repr(profiles.read(file))
