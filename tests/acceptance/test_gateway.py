"""Who may upgrade on the gateway's port, and what hostile peers get there."""

from __future__ import annotations

import contextlib
import os
import socket

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from lensway.protocol.codec import Decoder, encode
from lensway.protocol.frames import Close, CloseReason, Data, Heartbeat, Hello, Welcome
from lensway.protocol.version import SUBPROTOCOL

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
