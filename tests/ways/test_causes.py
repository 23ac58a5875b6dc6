"""Every broken way is named by its own cause, by the runner and by both clients, against real peers."""

from __future__ import annotations

import asyncio
import concurrent.futures

import pytest

import lensway
from lensway import limits
from lensway.client import exceptions
from lensway.compose.websocket import WebSocketTransport
from lensway.runner.dial import Dialer, DialError
from lensway.runner.settings import read_settings
from lensway.testing.broken_ways import FAULTS, Broken, Place
from lensway.testing.certificates import Authority
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
CLIENT = {"a proxy that is none": "proxy_silent"}
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
        assert found.cause == code, found.hint
        assert not found.is_final
        assert [answer.details["cause"] for answer in answers] == [CLIENT.get(name, code)] * 2, answers
        texts = [found.hint, *(f"{answer} {answer.hint}" for answer in answers)]
        assert all(broken.secret not in text for text in texts), texts
        assert all("{" not in text and len(text) > 40 for text in texts), texts


def test_no_cause_is_without_a_line_of_its_own() -> None:
    lines = [line for line, _ in TEXTS.values()]
    assert len(set(lines)) == len(lines)
    assert all(remedy.endswith(".") for _, remedy in TEXTS.values())
