"""`lensway runner doctor` names the stage and the cause of every fault, and what to do."""

from __future__ import annotations

import asyncio

import pytest

from lensway import limits
from lensway.bridges.library import ExecutionLibrary
from lensway.compose.websocket import WebSocketTransport
from lensway.kinds import Kinds
from lensway.runner.dial import Dialer
from lensway.runner.doctor import Finding, examine
from lensway.runner.policy import LocalPolicy, PolicyInForce
from lensway.runner.settings import read_settings
from lensway.testing.broken_ways import FAULTS, Broken, Place
from lensway.testing.certificates import Authority

pytestmark = pytest.mark.outside

STAGES = {
    "dns": {"unknown_host", "dns_silent"},
    "tcp": {"refused", "timeout", "unreachable"},
    "clock": {"clock_off"},
    "tls": {
        "untrusted", "wrong_name", "expired", "not_yet_valid", "clear_port", "tls_port", "tls_silent", "tls_version", "tls",
    },
    "answer": {
        "balancer_away", "balancer_silent", "foreign_login", "foreign_forbids", "no_upgrade", "wrong_path", "redirected",
    },
}  # fmt: skip
STAGE_OF = {code: stage for stage, codes in STAGES.items() for code in codes}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    directory = tmp_path_factory.mktemp("doctor")
    return Place(directory=directory, authority=Authority(directory))


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "HANDSHAKE_TIMEOUT_SECONDS", 0.6)
    monkeypatch.setattr(limits, "LOOK_SECONDS", 0.4)


def findings(broken: Broken) -> list[Finding]:
    environment = {
        "LENSWAY_RUNNER_ID": "run_" + "a" * 20,
        "LENSWAY_RUNNER_TOKEN": "rk_" + "a" * 43,
        "LENSWAY_GATEWAY_URL": f"{'wss' if broken.is_tls else 'ws'}://{broken.host}:{broken.port}{broken.path}/connect",
        **broken.environment,
    }
    settings = read_settings(environment, insecure=True)
    policy = PolicyInForce(LocalPolicy())

    async def run() -> list[Finding]:
        dialer = Dialer(settings, WebSocketTransport, environment=environment)
        library = ExecutionLibrary(policy.now.address_policy())
        return [finding async for finding in examine(settings, environment, dialer, library, policy)]

    return asyncio.run(run())


@pytest.mark.parametrize("name", FAULTS)
def test_each_broken_way_is_named_with_its_stage_and_remedy(name: str, place: Place) -> None:
    make, code = FAULTS[name]
    with make(place) as broken:
        found = findings(broken)
    bad = [each for each in found if each.ok is False]
    # A resolver that is slow to say no is another cause of the same stage.
    causes = ["unknown_host" if each.cause == "dns_silent" else each.cause for each in bad]
    assert causes == [code], bad
    stage = "proxy" if code.startswith("proxy_") else STAGE_OF.get(code)
    if stage is not None:
        assert bad[0].check == stage
    assert bad[0].hint.endswith(".")
    assert all(broken.secret not in f"{each.detail} {each.hint}" for each in found)
    order = [
        "configuration",
        "credentials",
        "policy",
        "bridges",
        "encodings",
        "proxy",
        "dns",
        "tcp",
        "tls",
        "clock",
        "answer",
        "token",
    ]
    assert [each.check for each in found] == sorted((each.check for each in found), key=order.index)


def test_a_runner_without_any_driver_is_told_what_to_install() -> None:
    async def run() -> list[Finding]:
        settings = read_settings(
            {
                "LENSWAY_RUNNER_ID": "run_" + "a" * 20,
                "LENSWAY_RUNNER_TOKEN": "rk_" + "a" * 43,
                "LENSWAY_GATEWAY_URL": "ws://127.0.0.1:1/connect",
            }
        )
        library = ExecutionLibrary(LocalPolicy().address_policy(), Kinds(()))
        dialer = Dialer(settings, WebSocketTransport, environment={})
        return [finding async for finding in examine(settings, {}, dialer, library, PolicyInForce(LocalPolicy()))]

    found = {each.check: each for each in asyncio.run(run())}
    assert (found["bridges"].ok, found["bridges"].cause) == (False, "no_bridge")
    assert "pip install" in found["bridges"].hint
