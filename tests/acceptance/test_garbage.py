"""Garbage on both listeners and on both ends of the runner link: no traceback, no exit, and good callers do not notice."""

from __future__ import annotations

import pathlib
import random
from typing import Any

from lensway.protocol.codec import encode
from lensway.protocol.frames import AssignmentSet, Heartbeat
from lensway.testing.deployment import Process
from lensway.testing.garbage import altered
from lensway.testing.hostile_gateway import HostileGateway
from lensway.testing.hostile_parties import KINDS
from lensway.testing.hostile_run import run_hostile

GOOD = encode([Heartbeat(sequence=2, ack=0, revision=1), AssignmentSet(revision=2, part=0, parts=1, sources=())])


def test_a_stranger_a_runner_and_crowds_beside_good_callers(tmp_path: pathlib.Path) -> None:
    outcome = run_hostile(tmp_path, seconds=8.0, seed=3, with_strangers=True)
    assert outcome.wrong == []
    assert outcome.tracebacks == 0, outcome.unanswered
    assert outcome.is_up
    assert outcome.are_runners_up
    played = {what.partition(":")[0] for what in outcome.parties}
    assert played == set(KINDS), outcome.parties
    assert min(outcome.garbage) > 50
    assert outcome.grown_mib < 64


def test_garbage_from_a_gateway_ends_no_runner(tmp_path: pathlib.Path) -> None:
    dice = random.Random(7)

    async def garble(conversation: Any) -> None:
        for _ in range(20):
            try:
                await conversation.say_bytes(altered(dice, dice.choice((GOOD, dice.randbytes(64)))))
            except Exception:  # noqa: BLE001 - the runner has hung up, as it may
                return

    with HostileGateway(*[garble] * 4) as gateway:
        environment = {
            "LENSWAY_RUNNER_ID": "run_x",
            "LENSWAY_RUNNER_TOKEN": "rk_" + "x" * 43,
            "LENSWAY_GATEWAY_URL": gateway.url,
            "LENSWAY_RUNNER_STATE_DIR": str(tmp_path),
        }
        runner = Process("runner", ["runner", "start"], environment, directory=tmp_path)
        try:
            gateway.wait(40)
            assert runner.is_running, runner.output.text()
        finally:
            code = runner.stop()
    assert code == 0
    assert "Traceback" not in runner.output.text()
    assert '"defect"' not in runner.output.text()
