"""The conformance suite through the whole way of a query: dispatch, a real gateway on a socket, and a runner process.

`RunnerSource` is an open source whose every call is a job. What only the process that holds the connections can show, such as its
memory and its open files, is left to the suite beside the bridge.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import pathlib
import socket
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar, Final, TypeVar

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lensway import limits
from lensway.auth import tokens
from lensway.auth.limiter import FailureLimiter
from lensway.bridges.contract import (
    ConnectionReport,
    Execution,
    OpenSource,
    RowSink,
    TableDescription,
    TableSummary,
)
from lensway.bridges.library import encode_probes
from lensway.catalog import rules
from lensway.catalog.definitions import SourceDraft
from lensway.catalog.ports import AuditEntry
from lensway.catalog.records import Change, Environment
from lensway.catalog.snapshot import Snapshot
from lensway.clock import SystemClock
from lensway.compose.accepting import accept
from lensway.compose.doors import TlsDoor
from lensway.compose.websocket import WebSocketTransport
from lensway.dispatch.core.events import JobRequest, Release, SendCancel, SendCredit, SendOffer
from lensway.dispatch.routes import SnapshotRoutes
from lensway.dispatch.shell import Dispatcher, JobHandle
from lensway.gateway.listener import PATH, Listener
from lensway.ids import SourceId, new_request_id, new_runner_id, new_source_id
from lensway.kinds import Kind
from lensway.query.plan import Plan
from lensway.query.result import ResultEnd, ResultLimits, RowFormat, decode_end
from lensway.testing.bridges.bench import Bench
from lensway.testing.bridges.stage import Stage
from lensway.testing.bridges.suite import BridgeSuite
from lensway.testing.deployment import Process
from lensway.testing.memory_store import MemoryStore

_AT: Final = "2026-01-01T00:00:00Z"
_READY_SECONDS: Final = 20.0
_POLL_SECONDS: Final = 0.005
_GONE_SECONDS: Final = 1.0
"""A cancel takes a quarter of a second, and the machine may be busy."""
Found = TypeVar("Found")


class _NoService:
    """The service's own executor: nothing is executed there."""

    def offer(self, order: SendOffer) -> None:
        raise AssertionError(f"job {order.job} went inline")

    def cancel(self, order: SendCancel) -> None: ...
    def credit(self, order: SendCredit) -> None: ...


class Site:
    """A gateway on the loop of the tests, and one runner process that dials it."""

    def __init__(self, directory: pathlib.Path, *, source_dir: pathlib.Path) -> None:
        self._directory, self._source_dir = directory, source_dir
        self._store = MemoryStore()
        self._clock = SystemClock()
        self._dispatcher = Dispatcher(SnapshotRoutes(self._store), _NoService(), self._clock)
        self._listener = Listener(
            self._store,
            self._dispatcher,
            self._clock,
            transport_of=WebSocketTransport,
            door_of=TlsDoor,
            accept=accept,
            limiter=FailureLimiter(),
            note=lambda _entry: None,
        )
        self._runner = new_runner_id()
        self._process: Process | None = None
        self._listening: socket.socket | None = None
        self._numbers = itertools.count(1)

    @property
    def environment(self) -> Environment:
        """The only one."""
        found = self._store.current().environment("default")
        assert found is not None
        return found

    async def start(self) -> None:
        """Listen, and return when the runner serves."""
        self._store.subscribe(lambda _snapshot, _changes: self._dispatcher.catalog_changed())
        listening = self._listening = socket.create_server(("127.0.0.1", 0))
        port = listening.getsockname()[1]
        await self._listener.start(listening)
        token = tokens.mint("rk")
        hashed = tokens.hash_token(token.reveal())
        environment = self.environment.id
        await self._change(
            lambda snapshot: rules.create_runner(
                snapshot, environment, "staged", id=self._runner, token_hash=hashed, at=_AT
            )
        )
        policy = self._directory / "policy.toml"
        policy.write_text(f"source_dirs = [{json.dumps(str(self._source_dir))}]\n")
        self._process = Process(
            "runner staged",
            ["runner", "start"],
            {
                "LENSWAY_RUNNER_ID": self._runner,
                "LENSWAY_RUNNER_TOKEN": token.reveal(),
                "LENSWAY_GATEWAY_URL": f"ws://127.0.0.1:{port}{PATH}",
                "LENSWAY_RUNNER_POLICY": str(policy),
                "LENSWAY_RUNNER_STATE_DIR": str(self._directory / "state"),
            },
            directory=self._directory,
        )
        await self._in_force()

    async def stop(self) -> None:
        """End the runner and stop listening."""
        if self._process is not None:
            self._process.kill()
            self._process.output.join()
        await self._listener.close()
        if self._listening is not None:
            self._listening.close()
        self._dispatcher.close()

    async def open(self, kind: Kind, config: Mapping[str, object]) -> RunnerSource:
        """A source of these settings that the runner is assigned."""
        name, id = f"staged-{next(self._numbers)}", new_source_id()
        environment = self.environment.id
        draft = SourceDraft(name=name, bridge=kind.name, dialect=kind.dialects[0], config=config)
        await self._change(lambda snapshot: rules.create_source(snapshot, environment, draft, id=id, at=_AT))
        await self._change(lambda snapshot: rules.assign(snapshot, environment, self._runner, [name], at=_AT))
        await self._in_force()
        return RunnerSource(self, id)

    async def forget(self, source: SourceId) -> None:
        """The runner drops the source with its connections."""
        environment = self.environment.id
        await self._change(lambda snapshot: rules.unassign(snapshot, environment, self._runner, [source]))
        await self._change(lambda snapshot: rules.delete_source(snapshot, environment, source))
        await self._in_force()

    def submit(self, source: SourceId, execution: Execution, kind: str, payload: bytes) -> JobHandle:
        """The job, as the service makes it."""
        bounds = execution.limits
        is_stream = execution.is_export
        return self._dispatcher.submit(
            JobRequest(
                request=new_request_id(),
                environment=self.environment.id,
                source=source,
                kind=kind,
                payload=payload,
                format=execution.format.value,
                deadline=execution.deadline,
                release=Release.STREAM if is_stream else Release.AT_END,
                rows_max=bounds.rows_max,
                bytes_max=bounds.bytes_max,
                row_bytes_max=bounds.row_bytes_max,
                may_retry=execution.may_repeat,
                is_export=is_stream,
                page_bytes_max=None if is_stream else limits.PAGE_BYTES_MAX,
                may_overflow=not is_stream and kind == "rows",
            )
        )

    async def _change(self, rule: Any) -> None:
        entry = AuditEntry(
            at=_AT,
            environment=self.environment.id,
            actor="suite",
            action="suite",
            object="",
            address="",
            outcome="ok",
            request_id="",
        )

        def decide(snapshot: Snapshot) -> tuple[Sequence[Change], AuditEntry]:
            return rule(snapshot), entry

        await self._store.commit(decide)

    async def _in_force(self) -> None:
        """Return when the runner has the newest set."""
        give_up = time.monotonic() + _READY_SECONDS
        while True:
            runner = self._store.current().runner_by_id(self._runner)
            assert runner is not None
            sessions = list(self._dispatcher.fleet.sessions_of(self._runner))
            if any(each.revision == runner.set_revision for each in sessions):
                return
            said = "" if self._process is None else self._process.output.text()[-2_000:]
            assert time.monotonic() < give_up, f"the runner does not serve:\n{said}"
            await asyncio.sleep(_POLL_SECONDS)


class RunnerSource:
    """Implements `lensway.bridges.contract.OpenSource`: each call is a job for the runner."""

    def __init__(self, site: Site, source: SourceId) -> None:
        self._site, self._source = site, source

    async def run(self, plan: Plan, execution: Execution, sink: RowSink) -> ResultEnd:
        """Execute the plan on the runner and write its rows."""
        kind = "export" if execution.is_export else "rows"
        handle = self._site.submit(self._source, execution, kind, plan.encode())
        page = None if execution.is_export else await handle.held_page()
        if page is not None:
            for chunk in page.chunks:
                await sink.write(chunk)
            handle.taken()
            return decode_end(page.result)
        async with contextlib.aclosing(handle.stream()) as stream:
            async for chunk in stream:
                await sink.write(chunk)
        return decode_end(handle.result)

    async def test(self, lenses: Sequence[Plan], *, deadline: float) -> ConnectionReport:
        """The report that the runner makes."""
        payload = encode_probes([plan.encode() for plan in lenses])
        return await self._document("test", payload, deadline, ConnectionReport)

    async def probe(self, *, deadline: float) -> None:
        """One round trip: runners probe by themselves, so another look into the database stands for it."""
        await self.tables(deadline=deadline)

    async def tables(self, *, deadline: float) -> Sequence[TableSummary]:
        """What the runner lists."""
        return await self._document("tables", b"", deadline, list[TableSummary])

    async def table(self, name: str, *, deadline: float) -> TableDescription:
        """What the runner describes."""
        return await self._document("table", name.encode(), deadline, TableDescription)

    @property
    def connections(self) -> int:
        """None here: the runner has them."""
        return 0

    def condition(self) -> str:
        """The runner reports it with its state."""
        return ""

    async def close(self) -> None:
        """Unassign it."""
        await self._site.forget(self._source)

    async def _document(self, kind: str, payload: bytes, deadline: float, answer: type[Found]) -> Found:
        bounds = limits.PAGE_BYTES_MAX
        execution = Execution(
            deadline=deadline,
            format=RowFormat.DOCUMENT,
            limits=ResultLimits(rows_max=1, bytes_max=bounds, row_bytes_max=bounds),
            tag="",
        )
        page = await self._site.submit(self._source, execution, kind, payload).page()
        return msgspec.json.decode(b"".join(page.chunks), type=answer)


class ThroughRunnerSuite(BridgeSuite):
    """The suite with a gateway and a runner process between the tests and the bridge."""

    site: ClassVar[Site]
    # Fewer questions: what they mean is the bridge's, and each is a job here.
    condition_step: ClassVar[int] = 20

    @settings(
        max_examples=8, deadline=None, suppress_health_check=[HealthCheck.differing_executors, HealthCheck.too_slow]
    )
    @given(data=st.data())
    def test_pages_totals_counts_and_offsets_are_those_of_the_model(self, bench: Bench, data: st.DataObject) -> None:
        """As beside the bridge."""
        self.ask_as_the_model(bench, data)

    # The callers' readers, the runner's memory and its connections are seen in their own processes only, and a test that has no
    # time is refused before it is a job.
    test_a_large_result_passes_through_in_bounded_memory = None  # type: ignore[assignment]
    test_a_reader_that_takes_nothing_stops_the_source_until_the_deadline = None  # type: ignore[assignment]
    test_close_ends_idle_connections_now_and_the_others_with_their_jobs = None  # type: ignore[assignment]
    test_a_connection_test_without_time_reports_a_failure = None  # type: ignore[assignment]

    async def is_gone(self, stage: Stage) -> bool:
        """The cancel is on its way to the runner when the job is over."""
        give_up = time.monotonic() + _GONE_SECONDS
        while await stage.is_executing():
            if time.monotonic() > give_up:
                return False
            await asyncio.sleep(_POLL_SECONDS)
        return True

    @classmethod
    async def open_source(cls, config: Mapping[str, object]) -> OpenSource:
        """Assigned to the runner."""
        return await cls.site.open(cls.stage_class.kind, config)

    @pytest.fixture(scope="class")
    @classmethod
    def bench(cls, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
        """The started stage, the gateway, the runner, and a source that it serves."""
        stage = cls.stage_class()
        with asyncio.Runner() as runner:
            loop = runner.get_loop()
            directory = tmp_path_factory.mktemp(stage.kind.name)
            loop.run_until_complete(stage.start(directory))

            async def site() -> Site:
                return Site(tmp_path_factory.mktemp("runner"), source_dir=directory)

            cls.site = loop.run_until_complete(site())
            loop.run_until_complete(cls.site.start())
            yield Bench(stage, loop.run_until_complete(cls.open_source(stage.config)), loop)
            loop.run_until_complete(cls.site.stop())
            loop.run_until_complete(stage.stop())
