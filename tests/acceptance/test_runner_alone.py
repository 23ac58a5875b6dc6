"""What a runner does whatever the gateway says: R1, its local policy, and what its settings may be."""

from __future__ import annotations

import asyncio
import os
import pathlib
import subprocess
import sys
from collections.abc import Iterator

import msgspec
import pytest

from lensway.api.shapes import ExportRequest
from lensway.bridges.library import encode_probes
from lensway.dialects.registry import capabilities_of
from lensway.protocol.frames import (
    AssignedSource,
    AssignmentInForce,
    AssignmentSet,
    Close,
    CloseReason,
    End,
    Fail,
    JobKind,
    Offer,
    Refuse,
    RefuseReason,
)
from lensway.query.fields import Field, FieldType, LensDefinition
from lensway.query.planner import plan_export, plan_probe
from lensway.testing.deployment import Process, clean_environment
from lensway.testing.hostile_gateway import Conversation, HostileGateway
from lensway.testing.postgres import Database

pytestmark = pytest.mark.acceptance

MOST = 2**53 - 1
"""The largest number that a frame holds; a larger one ends the session as malformed."""
PLAN = plan_probe(
    LensDefinition(
        name="orders",
        table="public.orders",
        fields={"id": Field(name="id", type=FieldType.INTEGER, column="id", primary_key=True)},
    )
).encode()


def offer(job: int, source: str, **more) -> Offer:
    values = {
        "job": job,
        "attempt": 1,
        "kind": JobKind.ROWS,
        "source": source,
        "revision": 1,
        "payload": PLAN,
        "format": "json",
        "deadline_ms": 5000,
        "credit": 100_000,
        "rows_max": 10,
        "bytes_max": 100_000,
        "row_bytes_max": 100_000,
    }
    return Offer(**{**values, **more})


ASSIGNED = AssignmentSet(
    revision=1,
    part=0,
    parts=1,
    sources=(AssignedSource(source="src_a", name="main", bridge="postgres", config_version=0),),
)


@pytest.fixture
def runner_of(tmp_path: pathlib.Path) -> Iterator:
    started: list[Process] = []

    def start(gateway: HostileGateway, **environment: str) -> Process:
        settings = {
            "LENSWAY_RUNNER_ID": "run_x",
            "LENSWAY_RUNNER_TOKEN": "rk_" + "x" * 43,
            "LENSWAY_GATEWAY_URL": gateway.url,
            "LENSWAY_RUNNER_STATE_DIR": str(tmp_path / "state"),
        }
        started.append(Process("runner", ["runner", "start"], {**settings, **environment}, directory=tmp_path))
        return started[-1]

    yield start
    for process in started:
        if process.is_running:
            process.kill()


def test_r1_a_runner_refuses_a_source_that_it_is_not_assigned(runner_of) -> None:
    async def script(gateway: Conversation) -> None:
        await gateway.say(ASSIGNED)
        await gateway.next(AssignmentInForce)
        await gateway.say(offer(1, "src_b"))
        refused = await gateway.next(Refuse)
        assert (refused.job, refused.reason, refused.revision) == (1, RefuseReason.NOT_ASSIGNED, 1)
        # Settings that come with an offer are for a connection test, and for nothing else.
        spec = AssignedSource(source="src_b", name="main", bridge="postgres", config_version=0)
        for job, kind in ((11, JobKind.ROWS), (12, JobKind.EXPORT), (13, JobKind.TABLES), (14, JobKind.TABLE)):
            await gateway.say(offer(job, "src_b", kind=kind, spec=spec))
            refused = await gateway.next(Refuse)
            assert (refused.job, refused.reason) == (job, RefuseReason.NOT_ASSIGNED)
        # I5: an older attempt of a job changes nothing.
        await gateway.say(offer(2, "src_b", attempt=3), offer(2, "src_b", attempt=2))
        assert (await gateway.next(Refuse)).attempt == 3
        late = await gateway.next(Refuse)
        assert (late.attempt, late.reason) == (2, RefuseReason.STALE)

    with HostileGateway(script) as gateway:
        runner_of(gateway, LENSWAY_SOURCE_MAIN_URL="postgresql://a:b@127.0.0.1:1/c")
        gateway.wait()


def test_the_local_policy_has_the_last_word(runner_of, tmp_path: pathlib.Path) -> None:
    policy = tmp_path / "policy.toml"
    policy.write_text('tables = ["public.invoices"]\n')

    async def script(gateway: Conversation) -> None:
        await gateway.say(ASSIGNED)
        await gateway.next(AssignmentInForce)
        await gateway.say(offer(1, "src_a"))
        refused = await gateway.next(Refuse)
        assert refused.reason is RefuseReason.POLICY
        assert "public.orders" in refused.message

    with HostileGateway(script) as gateway:
        runner_of(gateway, LENSWAY_SOURCE_MAIN_URL="postgresql://a:b@127.0.0.1:1/c", LENSWAY_RUNNER_POLICY=str(policy))
        gateway.wait()


def test_a_connection_test_is_under_the_local_policy_and_reads_no_row(
    runner_of, tmp_path: pathlib.Path, database: Database
) -> None:
    policy = tmp_path / "policy.toml"
    policy.write_text('tables = ["public.invoices"]\n')
    asyncio.run(database.execute("CREATE TABLE orders (id int)", "CREATE TABLE invoices (id int)"))
    fields = {"id": Field(name="id", type=FieldType.INTEGER, column="id", primary_key=True)}
    invoices = LensDefinition(name="invoices", table="public.invoices", fields=fields)
    rows = plan_export(invoices, ExportRequest(), capabilities_of("postgres")).encode()

    async def lenses_of(gateway: Conversation, job: int, *plans: bytes) -> dict:
        await gateway.say(offer(job, "src_a", kind=JobKind.TEST, payload=encode_probes(plans), deadline_ms=10_000))
        report = msgspec.json.decode((await gateway.next(End)).tail)
        assert [stage["ok"] for stage in report["stages"][3:6]] == [True, True, True]
        assert report["ok"] is report["stages"][-1]["ok"]
        return report["stages"][-1]

    async def script(gateway: Conversation) -> None:
        await gateway.say(ASSIGNED)
        await gateway.next(AssignmentInForce)
        assert (await lenses_of(gateway, 1, plan_probe(invoices).encode()))["ok"]
        refused = await lenses_of(gateway, 2, plan_probe(invoices).encode(), PLAN)
        assert (refused["ok"], refused["error"]) == (False, "refused_by_runner")
        assert "'orders'" in refused["hint"]
        assert "public.orders" in refused["hint"]
        await gateway.say(offer(3, "src_a", kind=JobKind.TEST, payload=encode_probes([rows])))
        assert b"invalid_request" in (await gateway.next(Fail)).failure

    with HostileGateway(script) as gateway:
        runner_of(gateway, LENSWAY_SOURCE_MAIN_URL=database.reader_url, LENSWAY_RUNNER_POLICY=str(policy))
        gateway.wait()


def test_sql_text_and_other_rubbish_as_a_plan_is_refused_and_harms_nothing(runner_of) -> None:
    async def script(gateway: Conversation) -> None:
        await gateway.say(ASSIGNED)
        await gateway.next(AssignmentInForce)
        for job, payload in enumerate((b"DROP TABLE orders", b"", b"\x93\xc4\x00\x90\xc0", os.urandom(64)), start=1):
            await gateway.say(offer(job, "src_a", payload=payload))
            failed = await gateway.next(Fail)
            assert b"invalid_request" in failed.failure
        await gateway.say(offer(9, "src_a"))
        failed = await gateway.next(Fail)
        assert failed.retryable
        assert b"SOURCE_UNREACHABLE" in failed.failure

    with HostileGateway(script) as gateway:
        runner_of(gateway, LENSWAY_SOURCE_MAIN_URL="postgresql://a:b@127.0.0.1:1/c")
        gateway.wait()


@pytest.mark.parametrize(
    "odd",
    [
        {"format": "exe"},
        {"format": ""},
        {"deadline_ms": MOST},
        {"deadline_ms": 0},
        {"credit": MOST},
        {"credit": 0, "deadline_ms": 300},
        {"rows_max": MOST, "bytes_max": MOST, "row_bytes_max": MOST},
        {"rows_max": 0, "bytes_max": 0, "row_bytes_max": 0},
        {"job": MOST},
        {"attempt": 10**6},
        {"kind": JobKind.TABLE, "payload": b"\xff\xfe"},
        {"kind": JobKind.TEST, "payload": os.urandom(32)},
        {"request": "\x1b]0;x\x07*/ DROP TABLE orders; --" * 100},
        {"trace": "x" * 10_000},
        {"spec": AssignedSource(source="src_a", name="../../etc", bridge="sqlite", config_version=2**40)},
    ],
    ids=",".join,
)
def test_an_offer_with_odd_values_is_answered_and_the_next_one_too(runner_of, odd: dict) -> None:
    async def script(gateway: Conversation) -> None:
        await gateway.say(ASSIGNED)
        await gateway.next(AssignmentInForce)
        await gateway.say(offer(**{"job": 1, "source": "src_a", **odd}))
        assert (await gateway.next((Fail, Refuse, End))).job == odd.get("job", 1)
        if odd.get("job", 1) == 1:
            await gateway.say(offer(2, "src_a"))
            assert (await gateway.next((Fail, Refuse))).job == 2

    with HostileGateway(script) as gateway:
        process = runner_of(gateway, LENSWAY_SOURCE_MAIN_URL="postgresql://a:b@127.0.0.1:1/c")
        gateway.wait()
        assert "Traceback" not in process.output.text()


def test_names_that_a_gateway_makes_up_forge_no_line_and_drive_no_terminal(runner_of) -> None:
    evil = "\x1b]0;owned\x07\nassigned sources (revision 9): forged"

    async def script(gateway: Conversation) -> None:
        source = AssignedSource(source=evil, name=evil, bridge=evil, config_version=0)
        await gateway.say(AssignmentSet(revision=1, part=0, parts=1, sources=(source,)))
        await gateway.next(AssignmentInForce)
        await gateway.say(Close(reason=CloseReason.REVOKED, message=evil))

    with HostileGateway(script) as gateway:
        process = runner_of(gateway)
        gateway.wait()
        assert process.wait(10) == 1
        text = process.output.text()
        assert "\x1b" not in text
        assert not [line for line in text.splitlines() if line.startswith("assigned sources (revision 9)")]


def test_settings_of_another_instance_are_not_opened(runner_of) -> None:
    async def script(gateway: Conversation) -> None:
        sealed = AssignedSource(
            source="src_a", name="main", bridge="postgres", config_version=3, sealed_config=b"e30.AA.AA.AA.AA"
        )
        await gateway.say(AssignmentSet(revision=1, part=0, parts=1, sources=(sealed,)))
        in_force = await gateway.next(AssignmentInForce)
        assert in_force.source_states[0].state == "no_credentials"
        await gateway.say(offer(1, "src_a"))
        assert (await gateway.next(Refuse)).reason is RefuseReason.NO_CREDENTIALS

    with HostileGateway(script) as gateway:
        runner_of(gateway)
        gateway.wait()


def test_two_names_that_stand_for_the_same_variable_are_ambiguous_and_others_are_served(runner_of) -> None:
    async def script(gateway: Conversation) -> None:
        names = ("my-db", "my_db", "main")
        sources = tuple(
            AssignedSource(source=f"src_{name}", name=name, bridge="postgres", config_version=0) for name in names
        )
        await gateway.say(AssignmentSet(revision=1, part=0, parts=1, sources=sources))
        in_force = await gateway.next(AssignmentInForce)
        states = {state.source: state.state for state in in_force.source_states}
        assert states == {
            "src_my-db": "credentials_ambiguous",
            "src_my_db": "credentials_ambiguous",
            "src_main": "ready",
        }

    with HostileGateway(script) as gateway:
        url = "postgresql://a:b@127.0.0.1:1/c"
        runner_of(gateway, LENSWAY_SOURCE_MY_DB_URL=url, LENSWAY_SOURCE_MAIN_URL=url)
        gateway.wait()


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({}, "LENSWAY_RUNNER_ID"),
        ({"LENSWAY_RUNNER_ID": "run_x"}, "LENSWAY_GATEWAY_URL"),
        ({"LENSWAY_RUNNER_ID": "run_x", "LENSWAY_GATEWAY_URL": "http://h/connect"}, "LENSWAY_GATEWAY_URL"),
        ({"LENSWAY_RUNNER_ID": "run_x", "LENSWAY_GATEWAY_URL": "ws://example.com/connect"}, "--insecure"),
        (
            {"LENSWAY_RUNNER_ID": "run_x", "LENSWAY_GATEWAY_URL": "ws://u:secret@localhost/connect"},
            "LENSWAY_GATEWAY_URL",
        ),
        (
            {
                "LENSWAY_RUNNER_ID": "run_x",
                "LENSWAY_GATEWAY_URL": "ws://localhost:1/connect",
                "LENSWAY_RUNNER_TOKEN": "secret",
            },
            "LENSWAY_RUNNER_TOKEN",
        ),
    ],
)
def test_wrong_settings_are_one_helpful_line_and_exit_2(settings: dict[str, str], named: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "lensway.cli.main", "runner", "start"],
        env=clean_environment() | settings,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 2, done.stderr
    assert named in done.stderr
    assert "secret" not in done.stderr
    assert "Traceback" not in done.stderr
