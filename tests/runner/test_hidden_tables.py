"""A server hides a forbidden table in every position that a plan has: the local policy refuses it, and nothing is executed."""

from __future__ import annotations

import asyncio
import pathlib
import sqlite3
from collections.abc import Hashable, Mapping
from typing import Any

import msgspec
import pytest
import structlog.testing

from lensway.api.shapes import QueryRequest
from lensway.bridges.contract import AddressPolicy, ConnectionReport
from lensway.bridges.library import ExecutionLibrary, encode_probes
from lensway.clock import SystemClock
from lensway.dialects.registry import capabilities_of
from lensway.protocol.codec import Decoder
from lensway.protocol.frames import (
    Accept,
    AnyFrame,
    Asker,
    AssignedSource,
    End,
    JobKind,
    Offer,
    Refuse,
    RefuseReason,
)
from lensway.protocol.outbox import Outbox
from lensway.query.conditions import Compare, Constant, Operator
from lensway.query.fields import Field, FieldType, LensDefinition, PlanColumn, TableName
from lensway.query.measures import COUNT_OF_ROWS, Measure, MeasureFunction
from lensway.query.plan import FEATURES, OrderBy, Plan, Relation, RelationKind, Shape, encode_shape
from lensway.query.planner import plan_count, plan_probe, plan_rows
from lensway.query.result import ResultEnd
from lensway.runner.credentials import LocalCredentials
from lensway.runner.jobs import Jobs
from lensway.runner.journal import log_job
from lensway.runner.policy import LocalPolicy, PolicyInForce
from lensway.runner.sources import READY, AssignedSources, ServedSource

ID = PlanColumn("id", "id", FieldType.INTEGER, nullable=False)
OPEN, SECRET = TableName(None, "orders"), TableName(None, "salaries")
ORDERS = LensDefinition(
    name="orders",
    table="orders",
    fields={"id": Field(name="id", type=FieldType.INTEGER, column="id", primary_key=True)},
)
SQLITE = capabilities_of("sqlite")
ASKER = Asker(key="key_1", key_name="shop\nforged", environment="default", lens="orders")


def related(table: TableName, *below: Relation, kind: RelationKind = RelationKind.MANY) -> Relation:
    name = f"in_{table.name}_{len(below)}_{kind.value}"
    return Relation(name=name, lens="orders", table=table, kind=kind, on=((ID, ID),), output=(ID,), relations=below)


def rows(table: TableName, *relations: Relation, **more: Any) -> Shape:
    return Shape(lens="orders", table=table, output=(ID,), relations=relations, **more)


HIDDEN: Mapping[str, Shape] = {
    "the root": rows(SECRET),
    "the root of a page": rows(SECRET, keys=(ID,), order=(OrderBy(ID),)),
    "the root of a count": Shape(lens="orders", table=SECRET, measures=(COUNT_OF_ROWS,)),
    "the root of groups": Shape(
        lens="orders", table=SECRET, output=(ID,), measures=(Measure("most", MeasureFunction.MAX, ID),)
    ),
    "the root above an open relation": rows(SECRET, related(OPEN)),
    "a relation": rows(OPEN, related(SECRET)),
    "a relation to one": rows(OPEN, related(SECRET, kind=RelationKind.ONE)),
    "the second relation": rows(OPEN, related(OPEN), related(SECRET)),
    "a relation of a relation": rows(OPEN, related(OPEN, related(SECRET))),
    "the fourth level": rows(OPEN, related(OPEN, related(OPEN, related(OPEN, related(SECRET))))),
    "beside a deep one": rows(OPEN, related(OPEN, related(OPEN), related(SECRET)), related(OPEN, kind=RelationKind.ONE)),
    "a relation without rows": rows(
        OPEN, Relation(
            name="none", lens="orders", table=SECRET, kind=RelationKind.MANY, on=((ID, ID),), output=(ID,),
            where=Constant(False),
        )
    ),
    "the name with a schema": rows(TableName("main", "salaries")),
    "an allowed name with a schema that is not": rows(TableName("temp", "orders")),
    "a name that holds a dot": rows(TableName(None, "shop.salaries")),
    "a schema that holds a dot": rows(TableName("shop.x", "salaries")),
    "a name that holds a quote": rows(TableName(None, 'shop."salaries')),
    "the other case": rows(TableName(None, "ORDERS")),
}  # fmt: skip
POLICY = LocalPolicy(tables=("orders", "shop.*"))


class Witness:
    """The real library; notes what it is given to execute."""

    def __init__(self) -> None:
        self.library = ExecutionLibrary(AddressPolicy())
        self.performed: list[str] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self.library, name)

    async def perform(self, key: Hashable, *rest: Any, kind: str, **more: Any) -> ResultEnd:
        self.performed.append(kind)
        return await self.library.perform(key, *rest, kind=kind, **more)


class Bench:
    """The jobs of one session on a real SQLite file with one open table and one that the policy forbids."""

    def __init__(self, path: pathlib.Path, policy: LocalPolicy) -> None:
        self.witness = Witness()
        self.outbox = Outbox()
        self.said: list[AnyFrame] = []
        self._decoder = Decoder()
        self.served = ServedSource(
            id="src_main",
            name="main",
            bridge="sqlite",
            key="main",
            config={"path": str(path)},
            state=READY,
            assigned=AssignedSource(source="src_main", name="main", bridge="sqlite", config_version=1),
            managed=None,
            local={},
        )
        self.jobs = Jobs(
            self.witness,
            AssignedSources(self.witness, LocalCredentials({}), PolicyInForce(policy)),
            PolicyInForce(policy),
            capacity=4,
            clock=SystemClock(),
            outbox=self.outbox,
            wake=lambda: None,
            report=lambda: None,
            forget=lambda _key: None,
            note=log_job,
        )
        self._job = 0

    async def asked(self, payload: bytes, kind: JobKind = JobKind.ROWS) -> tuple[Accept | Refuse, list[dict[str, Any]]]:
        """The answer to an offer, and the lines of the log until its end. ``said`` keeps the frames."""
        self._job += 1
        offer = Offer(
            job=self._job,
            attempt=1,
            kind=kind,
            source="src_main",
            revision=1,
            payload=payload,
            format="document" if kind is JobKind.TEST else "json",
            deadline_ms=5_000,
            credit=100_000,
            rows_max=100,
            bytes_max=100_000,
            row_bytes_max=10_000,
            request="req_1",
            asker=ASKER,
        )
        with structlog.testing.capture_logs() as lines:
            answer = self.jobs.answer(offer, revision=1, spec=self.served)
            while self.jobs.count:
                await asyncio.sleep(0)
                self.jobs.fill(64_000)
                self.said += self._decoder.feed(self.outbox.take() or b"")
        return answer, [dict(line) for line in lines]


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    path = tmp_path_factory.mktemp("tables") / "shop.sqlite"
    connection = sqlite3.connect(path)
    connection.executescript(
        "CREATE TABLE orders (id INTEGER PRIMARY KEY); INSERT INTO orders VALUES (1), (2);"
        'CREATE TABLE salaries (id INTEGER PRIMARY KEY); CREATE TABLE "shop.salaries" (id INTEGER PRIMARY KEY)'
    )
    connection.close()
    return path


def asked(path: pathlib.Path, policy: LocalPolicy, payload: bytes, kind: JobKind = JobKind.ROWS) -> Any:
    async def story() -> Any:
        bench = Bench(path, policy)
        try:
            answer, lines = await bench.asked(payload, kind)
        finally:
            await bench.witness.close()
        return answer, bench.witness.performed, lines, bench.said

    return asyncio.run(story())


@pytest.mark.parametrize("kind", [JobKind.ROWS, JobKind.EXPORT])
@pytest.mark.parametrize("position", HIDDEN)
def test_a_forbidden_table_is_refused_in_every_position(path: pathlib.Path, position: str, kind: JobKind) -> None:
    answer, performed, lines, _ = asked(path, POLICY, Plan(encode_shape(HIDDEN[position])).encode(), kind)
    assert isinstance(answer, Refuse)
    assert answer.reason is RefuseReason.POLICY
    assert performed == []
    line, job = lines
    assert (line["event"], line["key_id"], line["environment"]) == ("job refused by policy", "key_1", "default")
    assert (job["event"], job["outcome"], job["rows"]) == ("job", "refused_by_runner", 0)


@pytest.mark.parametrize("kind", [JobKind.ROWS, JobKind.EXPORT])
@pytest.mark.parametrize("position", [each for each in HIDDEN if SECRET in HIDDEN[each].tables()])
def test_a_withheld_column_is_refused_in_every_position(path: pathlib.Path, position: str, kind: JobKind) -> None:
    shape = HIDDEN[position]
    if (SECRET, "id") not in shape.columns():
        assert shape.measures, "only a count uses no column"
        return
    answer, performed, *_ = asked(
        path, LocalPolicy(withhold=("Salaries.ID",)), Plan(encode_shape(shape)).encode(), kind
    )
    assert isinstance(answer, Refuse)
    assert (answer.reason, answer.message) == (
        RefuseReason.POLICY,
        "the local policy does not allow the column salaries.id",
    )
    assert performed == []


@pytest.mark.parametrize("position", HIDDEN)
def test_a_connection_test_reads_no_forbidden_table(path: pathlib.Path, position: str) -> None:
    hidden = HIDDEN[position]
    if hidden.measures:
        hidden = msgspec.structs.replace(hidden, where=Constant(False))
    else:
        hidden = rows(hidden.table, *hidden.relations, where=Constant(False))
    payload = encode_probes([plan_probe(ORDERS).encode(), Plan(encode_shape(hidden)).encode()])
    answer, performed, lines, said = asked(path, POLICY, payload, JobKind.TEST)
    if not hidden.needs <= FEATURES:
        assert isinstance(answer, Refuse)
        assert (answer.reason, performed) == (RefuseReason.UNKNOWN_KIND, [])
        return
    assert lines[-1]["tables"] == ["orders", str(hidden.table)]
    [end] = [frame for frame in said if isinstance(frame, End)]
    report = msgspec.json.decode(end.tail, type=ConnectionReport)
    assert (report.ok, report.stages[-1].error) == (False, "refused_by_runner")
    assert str(hidden.table) in (report.stages[-1].hint or "")


@pytest.mark.parametrize("position", HIDDEN)
def test_the_same_plans_are_not_refused_by_a_policy_that_allows_their_tables(path: pathlib.Path, position: str) -> None:
    shape = HIDDEN[position]
    policy = LocalPolicy(tables=tuple(map(str, shape.tables())))
    answer, performed, *_ = asked(path, policy, Plan(encode_shape(shape)).encode())
    if shape.relations or any(not each.counts_rows for each in shape.measures):
        # What this release does not execute is refused before anything is compiled.
        assert isinstance(answer, Refuse)
        assert (answer.reason, performed) == (RefuseReason.UNKNOWN_KIND, [])
    else:
        assert isinstance(answer, Accept)
        assert performed == ["rows"]


def test_the_log_says_who_asked_what_of_which_tables_and_how_it_ended(path: pathlib.Path) -> None:
    page = plan_rows(ORDERS, QueryRequest(limit=1), SQLITE, cursor_key=b"k" * 32, environment="env").plan
    for plan, count in ((page, 1), (plan_count(ORDERS, None, SQLITE), 1)):
        _, _, lines, _ = asked(path, POLICY, plan.encode())
        line = lines[-1]
        assert line["event"] == "job"
        assert (line["key_id"], line["key_name"], line["environment"], line["lens"]) == (
            "key_1",
            "shop\nforged",
            "default",
            "orders",
        )
        assert (line["source"], line["tables"], line["outcome"]) == ("main", ["orders"], "completed")
        assert line["rows"] == count
        assert line["bytes"] > 0
        assert line["ms"] >= 0


def test_the_log_says_how_a_job_failed(path: pathlib.Path) -> None:
    definition = LensDefinition(name="gone", table="gone", fields=ORDERS.fields)
    plan = plan_count(definition, None, SQLITE)
    _, _, lines, _ = asked(path, LocalPolicy(), plan.encode())
    assert (lines[-1]["event"], lines[-1]["outcome"], lines[-1]["tables"]) == ("job", "SOURCE_QUERY_FAILED", ["gone"])


def test_a_plan_of_a_version_to_come_is_an_unknown_kind(path: pathlib.Path) -> None:
    sound = encode_shape(rows(OPEN, where=Compare(Operator.EQ, ID, 0), params=1))
    assert sound[1] == 2, "the version stands first"
    later = sound[:1] + b"\x03" + sound[2:]
    for kind, payload in (
        (JobKind.ROWS, Plan(later, (1,)).encode()),
        (JobKind.TEST, encode_probes([Plan(later, (1,)).encode()])),
    ):
        answer, performed, *_ = asked(path, LocalPolicy(), payload, kind)
        assert isinstance(answer, Refuse)
        assert (answer.reason, performed) == (RefuseReason.UNKNOWN_KIND, [])
        assert "plan:3" in answer.message
