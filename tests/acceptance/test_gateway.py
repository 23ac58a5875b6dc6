"""Who may upgrade on the gateway's port, and what hostile peers get there."""

from __future__ import annotations

import contextlib
import os
import socket

import httpx2
import psutil
import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from lensway.protocol.codec import Decoder, encode
from lensway.protocol.frames import Close, CloseReason, Data, Heartbeat, Hello, Welcome
from lensway.protocol.version import SUBPROTOCOL
from lensway.query.plan import FEATURES

pytestmark = pytest.mark.acceptance


def dial(stage, token: str, *, path: str = "/connect", subprotocol: str | None = SUBPROTOCOL, **headers: str):
    return connect(
        f"ws://127.0.0.1:{stage.deployment.gateway_port}{path}",
        additional_headers={"Authorization": f"Bearer {token}", **headers},
        subprotocols=None if subprotocol is None else [subprotocol],
        compression=None,
        open_timeout=5,
    )


def hello(runner: str, **more) -> Hello:
    values = {
        "runner": runner,
        "instance": "ins_x",
        "versions": (1,),
        "software": "test",
        "public_key": bytes([9, *bytes(31)]),
        "bridges": {"postgres": "x"},
        "capacity": 1,
        "features": tuple(FEATURES),
    }
    return Hello(**{**values, **more})


def last_word(connection) -> CloseReason | None:
    """The reason of the gateway's Close, or None when it just cut the line."""
    decoder, found = Decoder(), None
    with contextlib.suppress(ConnectionClosed):
        while True:
            for frame in decoder.feed(connection.recv(timeout=10, decode=False)):
                found = frame.reason if isinstance(frame, Close) else found
    return found


@pytest.fixture
def alpha(stage):
    stage.runner("alpha", start=False)
    return stage.identities["alpha"]


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ({"Origin": "https://evil.example"}, 403),
        ({"path": "/connect?token=x"}, 400),
        ({"path": "/other"}, 404),
        ({"token": "rk_" + "x" * 43}, 401),
        ({"token": ""}, 401),
    ],
    ids=str,
)
def test_what_may_not_upgrade_is_refused_before_it_does(stage, alpha, change: dict, status: int) -> None:
    options = {"token": alpha.token, **change}
    with pytest.raises(InvalidStatus) as refused, dial(stage, options.pop("token"), **options):
        pass
    assert refused.value.response.status_code == status
    assert alpha.token.encode() not in refused.value.response.body


@pytest.mark.parametrize(
    ("first", "reason"),
    [
        (lambda _runner: b"\xff" * 40, CloseReason.PROTOCOL_ERROR),
        (lambda _runner: encode([Heartbeat(sequence=1, ack=0, revision=0)]), CloseReason.PROTOCOL_ERROR),
        (lambda _runner: encode([Data(job=1, attempt=1, payload=b"x")]), CloseReason.PROTOCOL_ERROR),
        (lambda _runner: encode([hello("run_somebody_else")]), CloseReason.UNAUTHENTICATED),
        (lambda runner: encode([hello(runner, versions=(99,))]), CloseReason.VERSION),
        (lambda _runner: os.urandom(200), CloseReason.PROTOCOL_ERROR),
    ],
    ids=["rubbish", "no hello", "rows first", "another runner", "no common version", "random"],
)
def test_a_broken_or_lying_runner_is_closed_with_a_reason(stage, alpha, first, reason: CloseReason) -> None:
    with dial(stage, alpha.token) as connection:
        connection.send(first(alpha.id))
        assert last_word(connection) is reason
    assert stage.query().status_code == 200, "nobody else notices"


def test_rows_for_a_job_that_was_never_offered_end_the_session(stage, alpha) -> None:
    with dial(stage, alpha.token) as connection:
        connection.send(encode([hello(alpha.id)]))
        assert any(isinstance(frame, Welcome) for frame in Decoder().feed(connection.recv(timeout=5, decode=False)))
        connection.send(encode([Data(job=1, attempt=1, payload=b"forged")]))
        assert last_word(connection) is CloseReason.PROTOCOL_ERROR


def test_too_large_messages_and_text_are_cut_off(stage, alpha) -> None:
    for message in (b"x" * 2_000_000, "text"):
        with dial(stage, alpha.token) as connection:
            with contextlib.suppress(ConnectionClosed):
                connection.send(message)
            last_word(connection)
    assert stage.query().status_code == 200


def test_half_open_connections_are_bounded_and_hinder_nobody(stage, alpha) -> None:
    with contextlib.ExitStack() as stack:
        for _ in range(260):
            with contextlib.suppress(OSError):
                stack.enter_context(socket.create_connection(("127.0.0.1", stage.deployment.gateway_port), timeout=2))
        assert stage.query().status_code == 200
    stage.start("alpha")
    stage.assign("alpha")
    assert stage.query().json()["meta"]["route"]["runner"] == stage.name("alpha")


def test_a_key_or_token_in_a_url_is_refused_and_noted_without_its_text(stage, alpha) -> None:
    with pytest.raises(InvalidStatus) as refused, dial(stage, "", path=f"/connect?token={alpha.token}"):
        pass
    assert refused.value.response.status_code == 400
    made = stage.client.post("/v1/keys", json={"kind": "sk", "name": "careless"}).json()
    for query in (f"api_key={made['key']}", f"x=%73{made['key'][1:]}", f"runner={made['key']}"):
        answer = httpx2.get(f"{stage.deployment.url}/v1/lenses?{query}", trust_env=False)
        assert (answer.status_code, answer.json()["error"]["code"]) == (400, "invalid_request")
        assert made["key"] not in answer.text
        assert "Authorization" in answer.json()["error"]["hint"]
    entries = stage.client.get("/v1/audit", params={"limit": "20"}).json()["entries"]
    noted = [entry for entry in entries if entry["action"] == "credential.in_url"]
    times = {id: sum(entry["count"] for entry in noted if entry["object"] == id) for id in (made["id"], alpha.id)}
    assert times == {made["id"]: 3, alpha.id: 1}
    assert made["key"] not in str(entries)
    assert alpha.token not in str(entries)
    unknown = httpx2.get(f"{stage.deployment.url}/v1/lenses?key=sk_{'x' * 43}", trust_env=False)
    assert unknown.json()["error"]["details"]["path"] == "key", "what opens nothing is a wrong parameter like any other"


def test_a_rotated_token_overlaps_and_a_running_runner_serves_on(stage, alpha, tmp_path) -> None:
    file = tmp_path / "token"
    file.write_text(alpha.token)
    settings = {"LENSWAY_RUNNER_TOKEN": "", "LENSWAY_RUNNER_TOKEN_FILE": str(file)}
    first = stage.start("alpha", environment=settings)
    stage.assign("alpha")
    rotated = stage.client.post(f"/v1/runners/{stage.name('alpha')}/rotate").json()["token"]
    assert stage.query().json()["meta"]["route"]["runner"] == stage.name("alpha"), "no reconnect, no gap"
    # Both tokens open the gateway meanwhile: the new process comes up before the old one goes.
    for token in (alpha.token, rotated):
        with dial(stage, token):
            pass
    file.write_text(rotated)
    stage.start("alpha", environment=settings)
    assert first.stop() == 0
    assert stage.query().json()["meta"]["route"]["runner"] == stage.name("alpha")
    assert alpha.token not in stage.deployment.emitted()


def test_fragments_and_control_frames_cost_no_memory(stage, alpha) -> None:
    server = psutil.Process(stage.deployment.server.pid)
    before = server.memory_info().rss
    with dial(stage, alpha.token) as connection, contextlib.suppress(ConnectionClosed):
        connection.send(b"x" for _ in range(200_000))
        last_word(connection)
    with dial(stage, alpha.token) as connection, contextlib.suppress(ConnectionClosed):
        connection.send(encode([hello(alpha.id)]))
        for _ in range(20_000):
            connection.protocol.send_ping(b"x" * 100)
            connection.socket.sendall(b"".join(connection.protocol.data_to_send()))
    assert stage.query().status_code == 200
    assert server.memory_info().rss - before < 20 * 1024 * 1024
