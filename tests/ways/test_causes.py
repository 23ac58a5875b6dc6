"""Every broken way is named by its own cause, by the runner and by both clients, against real peers."""

from __future__ import annotations

import asyncio
import concurrent.futures
import pathlib
import subprocess
import sys

import pytest

import lensway
from lensway import limits
from lensway.client import exceptions
from lensway.compose.websocket import WebSocketTransport
from lensway.runner.dial import Dialer, DialError
from lensway.runner.settings import read_settings
from lensway.testing.broken_ways import FAULTS, Broken, Place
from lensway.testing.certificates import Authority
from lensway.testing.deployment import clean_environment
from lensway.ways.causes import Way
from lensway.ways.remedies import TEXTS

pytestmark = pytest.mark.outside

PROXIES = (
    "http_proxy",
    "https_proxy",
    "HTTPS_PROXY",
    "all_proxy",
    "ALL_PROXY",
    "no_proxy",
    "NO_PROXY",
    "SSL_CERT_FILE",
)
CLIENT = {"a proxy that speaks no HTTP": "proxy_silent"}
"""Where a client sees another cause than a runner: its HTTP library waits for the end of the rubbish."""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    directory = tmp_path_factory.mktemp("ways")
    return Place(directory=directory, authority=Authority(directory))


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Silence is as silent after half a second; and no proxy of the machine that tests."""
    monkeypatch.setattr(limits, "HANDSHAKE_TIMEOUT_SECONDS", 0.6)
    monkeypatch.setattr(limits, "LOOK_SECONDS", 0.4)
    monkeypatch.setattr(limits, "CLIENT_CONNECT_SECONDS", 0.6)
    monkeypatch.setattr(limits, "CLIENT_ANSWER_SLACK_SECONDS", 0.1)
    for name in PROXIES:
        monkeypatch.delenv(name, raising=False)


def settings_for(broken: Broken) -> dict[str, str]:
    return {
        "LENSWAY_RUNNER_ID": "run_" + "a" * 20,
        "LENSWAY_RUNNER_TOKEN": "rk_" + "a" * 43,
        "LENSWAY_GATEWAY_URL": f"{'wss' if broken.is_tls else 'ws'}://{broken.host}:{broken.port}{broken.path}/connect",
        **{name: value for name, value in broken.environment.items() if name.startswith("LENSWAY_")},
    }


def dial(broken: Broken) -> DialError:
    settings = read_settings(settings_for(broken), insecure=True)
    with pytest.raises(DialError) as caught:
        asyncio.run(Dialer(settings, WebSocketTransport, environment=broken.environment)())
    return caught.value


def url_of(broken: Broken) -> str:
    return f"{'https' if broken.is_tls else 'http'}://{broken.host}:{broken.port}{broken.path}"


def call(broken: Broken) -> lensway.LenswayError:
    ca_file = broken.environment.get("LENSWAY_CA_FILE")
    with lensway.connect(url_of(broken), "sk_x", ca_file=ca_file, repeats=False, timeout=1) as client:
        with pytest.raises(exceptions.UnreachableError) as caught:
            client.count("orders")
    return caught.value


def call_async(broken: Broken) -> lensway.LenswayError:
    async def run() -> lensway.LenswayError:
        ca_file = broken.environment.get("LENSWAY_CA_FILE")
        async with lensway.connect_async(url_of(broken), "sk_x", ca_file=ca_file, repeats=False, timeout=1) as client:
            with pytest.raises(exceptions.UnreachableError) as caught:
                await client.count("orders")
        return caught.value

    return asyncio.run(run())


@pytest.mark.parametrize("name", FAULTS)
def test_a_broken_way_is_named_by_runner_and_clients_alike(
    name: str, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    make, code = FAULTS[name]
    with make(place) as broken:
        for variable, value in broken.environment.items():
            if not variable.startswith("LENSWAY_"):
                monkeypatch.setenv(variable, value)
        with concurrent.futures.ThreadPoolExecutor() as pool:
            dialled, called, awaited = (pool.submit(act, broken) for act in (dial, call, call_async))
            found = dialled.result()
            answers = [called.result(), awaited.result()]
        # A resolver that is slow to say no is another cause of the same stage.
        assert ("unknown_host" if found.cause == "dns_silent" else found.cause) == code, found.hint
        assert not found.is_final
        assert [answer.details["cause"] for answer in answers] == [CLIENT.get(name, code)] * 2, answers
        texts = [found.hint, *(f"{answer} {answer.hint}" for answer in answers)]
        assert all(broken.secret not in text for text in texts), texts
        assert all("{" not in text and len(text) > 40 for text in texts), texts


@pytest.mark.parametrize(
    "name",
    [
        "a CA that is not the system's",
        "a clock that is late",
        "clear text to a TLS port of nginx",
        "tinyproxy: a wrong login",
        "nginx without the server behind it",
    ],
)
def test_the_command_line_says_the_same(name: str, place: Place, tmp_path: pathlib.Path) -> None:
    make, code = FAULTS[name]
    with make(place) as broken:
        done = subprocess.run(
            [sys.executable, "-m", "lensway", "runners", "list"],
            env=clean_environment()
            | {"LENSWAY_URL": url_of(broken), "LENSWAY_API_KEY": "ak_" + "x" * 32}
            | dict(broken.environment),
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        way = Way(what="server", host=broken.host, port=broken.port, is_tls=broken.is_tls, url_setting="the URL")
    line = TEXTS[code][0].split("{")[0]
    assert done.returncode == 1
    assert line in done.stderr, done.stderr
    assert way.place in done.stderr or "The proxy http://127.0.0.1:" in done.stderr
    assert broken.secret not in done.stderr


def test_no_cause_is_without_a_line_of_its_own() -> None:
    lines = [line for line, _ in TEXTS.values()]
    assert len(set(lines)) == len(lines)
    assert all(remedy.endswith(".") for _, remedy in TEXTS.values())
