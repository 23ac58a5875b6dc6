"""Thousands of idle runners in one process: connected, confirming their sets, acknowledging heartbeats, and nothing else.

python -m benchmarks.idle_runners GATEWAY-URL < identities.json      (a list of [runner id, token, connections])
"""

from __future__ import annotations

import asyncio
import json
import sys

import uvloop
from websockets.asyncio.client import connect
from websockets.typing import Subprotocol

from lensway.protocol.codec import Decoder, encode
from lensway.protocol.frames import AssignmentInForce, AssignmentSet, Heartbeat, Hello
from lensway.protocol.version import SUBPROTOCOL

_DIALLING_MAX = 50
_SOME_POINT = bytes([9, *bytes(31)])


async def _live(url: str, runner: str, token: str, number: int, dialling: asyncio.Semaphore) -> None:
    decoder = Decoder()
    hello = Hello(
        runner=runner,
        instance=f"ins_{runner}_{number}",
        versions=(1,),
        software="idle",
        public_key=_SOME_POINT,
        bridges={"postgres": "x"},
        capacity=4,
    )
    async with dialling:
        connection = await connect(
            url,
            additional_headers={"Authorization": f"Bearer {token}"},
            subprotocols=[Subprotocol(SUBPROTOCOL)],
            compression=None,
            ping_interval=None,
            open_timeout=60,
        )
        await connection.send(encode([hello]))
        first = await connection.recv(decode=False)
    print("+", end="", flush=True)
    message = first
    while True:
        for frame in decoder.feed(message):
            if isinstance(frame, AssignmentSet) and frame.part == frame.parts - 1:
                await connection.send(encode([AssignmentInForce(revision=frame.revision)]))
            elif isinstance(frame, Heartbeat):
                beat = Heartbeat(sequence=frame.sequence, ack=frame.sequence, revision=frame.revision)
                await connection.send(encode([beat]))
        message = await connection.recv(decode=False)


async def main(url: str) -> None:
    dialling = asyncio.Semaphore(_DIALLING_MAX)
    async with asyncio.TaskGroup() as group:
        for runner, token, connections in json.load(sys.stdin):
            for number in range(connections):
                group.create_task(_live(url, runner, token, number, dialling))


if __name__ == "__main__":
    uvloop.run(main(sys.argv[1]))
