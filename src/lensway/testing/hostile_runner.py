"""A runner that is not ours: it holds a good token, speaks the protocol, and sends what a test scripts."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Sequence
from typing import Any, Self

from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from lensway.protocol.codec import Decoder, encode
from lensway.protocol.frames import AnyFrame, AssignmentInForce, AssignmentSet, Heartbeat, Hello, Offer
from lensway.protocol.version import SUBPROTOCOL
from lensway.query.plan import FEATURES

NO_POINT = bytes(32)
"""32 bytes that do not form a usable X25519 key: every agreement with it fails."""
SOME_POINT = bytes([9, *bytes(31)])

Answers = Callable[[Offer], Sequence[AnyFrame]]


class HostileRunner:
    """Connected while the block lasts; acknowledges heartbeats and sets, and answers offers with what ``answers`` gives."""

    def __init__(
        self, gateway_url: str, runner: str, token: str, *, answers: Answers = lambda _offer: (), **hello: Any
    ) -> None:
        self._answers = answers
        self._hello = Hello(
            **{
                "runner": runner,
                "instance": "ins_hostile",
                "versions": (1,),
                "software": "hostile",
                "public_key": SOME_POINT,
                "bridges": {"postgres": "x", "sqlite": "x"},
                "capacity": 4,
                "features": tuple(FEATURES),
                **hello,
            }
        )
        self._stack = contextlib.ExitStack()
        self._dialled = connect(
            gateway_url,
            additional_headers={"Authorization": f"Bearer {token}"},
            subprotocols=[SUBPROTOCOL],  # type: ignore[list-item]  # a NewType of str
            compression=None,
            open_timeout=5,
        )
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self.offers: list[Offer] = []

    def __enter__(self) -> Self:
        self._connection = self._stack.enter_context(self._dialled)
        self._connection.send(encode([self._hello]))
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._stack.close()
        self._thread.join(5)

    @property
    def is_over(self) -> bool:
        """True when the gateway has closed the connection."""
        return not self._thread.is_alive()

    def _serve(self) -> None:
        decoder = Decoder()
        with contextlib.suppress(ConnectionClosed):
            while True:
                for frame in decoder.feed(self._connection.recv(decode=False)):
                    answers = self._answer(frame)
                    if answers:
                        self._connection.send(encode(list(answers)))

    def _answer(self, frame: AnyFrame) -> Sequence[AnyFrame]:
        match frame:
            case AssignmentSet() if frame.part == frame.parts - 1:
                return (AssignmentInForce(revision=frame.revision),)
            case Heartbeat():
                return (Heartbeat(sequence=frame.sequence, ack=frame.sequence, revision=frame.revision),)
            case Offer():
                self.offers.append(frame)
                return self._answers(frame)
            case _:
                return ()
