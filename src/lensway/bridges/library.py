"""The execution library: every kind of job, on any number of sources, the same for the service and for runners.

Sources are told apart by a key that changes when their settings do. Drivers are imported when a source of their kind is used
first, so that a machine without one serves everything else.
"""

from __future__ import annotations

import asyncio
import importlib
import importlib.util
import time
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from typing import Any, Final

import msgspec
import structlog

from lensway import limits
from lensway.bridges.contract import (
    AddressPolicy,
    Bridge,
    ConnectionReport,
    Execution,
    OpenSource,
    RowSink,
    Stage,
    StageResult,
    TableDescription,
)
from lensway.bridges.kit import loading
from lensway.errors import ErrorCode, LenswayError
from lensway.kinds import BUILT_IN, Kind, Kinds
from lensway.observe.trace import StatementWatch
from lensway.protocol.policy import PATH
from lensway.query.conditions import Constant
from lensway.query.fields import TableName
from lensway.query.plan import Plan, Shape, decode_shape
from lensway.query.result import ARROW_FORMATS, ResultEnd, RowFormat
from lensway.query.table_names import parts_of, written

_log: Final = structlog.get_logger("bridges")
_PROBES: Final = msgspec.msgpack.Decoder(list[bytes])
_PROBES_MAX: Final = 200
"""Lenses that one connection test reads; a source with more has the first ones tested."""


def installed(kinds: Kinds = BUILT_IN) -> dict[str, str]:
    """The bridges that can be used here, with their drivers' versions. Logs a bridge that fails to load and leaves it out."""
    found = {}
    for kind in kinds.served:
        try:
            bridge = bridge_of(kind)
        except (ImportError, AttributeError) as error:
            _log.error("bridge does not load", kind=kind.name, adapter=kind.adapter, exc_info=error)
            continue
        version = None if bridge is None else bridge.driver_version()
        if version is not None:
            found[kind.name] = version
    return found


def encodings(kinds: Kinds = BUILT_IN) -> tuple[str, ...]:
    """The formats that rows can be encoded in here: Arrow and Parquet take the libraries of the extra `arrow`."""
    usable = installed(kinds)
    used = {"pyarrow"}.union(*(kind.accelerators for kind in kinds if kind.name in usable))
    has_arrow = all(importlib.util.find_spec(package) for package in used.intersection(loading.ARROW_PACKAGES))
    return tuple(each.value for each in RowFormat if has_arrow or each not in ARROW_FORMATS)


def bridge_of(kind: Kind) -> Bridge | None:
    """The bridge of this kind, or None when the kind has none or one of its drivers is not installed.

    Raises:
        ImportError: when the bridge fails to load for any other reason, which is a defect of the bridge.
        AttributeError: when its module lacks the declared class.
    """
    if kind.adapter is None:
        return None
    module, _, name = kind.adapter.partition(":")
    try:
        bridge: Bridge = getattr(importlib.import_module(module), name)()
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] in kind.drivers:
            return None
        raise
    return bridge


def encode_probes(plans: Sequence[bytes]) -> bytes:
    """The payload of a test job: one encoded probe plan for each lens."""
    fitting: list[bytes] = []
    size = 0
    for plan in plans[:_PROBES_MAX]:
        size += len(plan) + 8
        if size > limits.PLAN_BYTES_MAX:
            break
        fitting.append(plan)
    return msgspec.msgpack.encode(fitting)


class _Kept:
    """One open source and how many jobs are on it."""

    def __init__(self, source: Any) -> None:
        self.source: OpenSource = source
        self.users = 0
        self.is_forgotten = False
        self.idle = asyncio.Event()
        self.idle.set()


class ExecutionLibrary:
    """Open sources, by key. Safe for concurrent use on one loop."""

    def __init__(self, policy: AddressPolicy, kinds: Kinds = BUILT_IN) -> None:
        self._policy = policy
        self._kinds = kinds
        self._kept: dict[Hashable, _Kept] = {}
        self._opening: dict[Hashable, asyncio.Lock] = {}
        self._installed = installed(kinds)
        self._encodings = encodings(kinds)

    def installed(self) -> Mapping[str, str]:
        """The bridges that can be used here, with their drivers' versions."""
        return self._installed

    def encodings(self) -> Sequence[str]:
        """The formats that rows can be encoded in here."""
        return self._encodings

    def speaks(self, bridge: str, dialect: str) -> bool:
        """Whether the bridge speaks this dialect; an empty one is whichever it speaks first."""
        kind = self._kinds.get(bridge)
        return not dialect or (kind is not None and dialect in kind.dialects)

    def check(self, bridge: str, config: Mapping[str, object]) -> None:
        """Refuse settings that cannot work or that the policy forbids. Contacts nothing.

        Raises:
            LenswayError: INVALID_REQUEST, or FORBIDDEN for an address or path that the policy forbids.
        """
        try:
            self._require(bridge).check_config(config, policy=self._policy)
        except LenswayError as error:
            if error.failure.details.get("class") == "forbidden_address":
                is_file = error.failure.details.get("rule") == PATH
                raise LenswayError(
                    ErrorCode.FORBIDDEN,
                    str(error)
                    if is_file
                    else "The policy of the process that executes this source forbids its address",
                    hint=error.failure.hint,
                    details=error.failure.details,
                ) from None
            raise

    def restrict(self, policy: AddressPolicy) -> None:
        """Sources that are opened from now on obey this policy; those that are open keep theirs until they are forgotten."""
        self._policy = policy

    async def perform(
        self,
        key: Hashable,
        bridge: str,
        config: Mapping[str, object],
        *,
        kind: str,
        payload: bytes,
        execution: Execution,
        sink: RowSink,
    ) -> ResultEnd:
        """Do one job and write what it gives. Cancelling the task ends the statement first.

        Raises:
            LenswayError: whatever the bridge raises; INVALID_REQUEST for a payload that is none.
        """
        kept = self._kept.get(key)
        if kept is None:
            kept = await self._open(key, bridge, config)
        kept.users += 1
        kept.idle.clear()
        try:
            if execution.watch is not None:
                execution.watch.system = self._system_of(bridge)
            return await _perform(kept.source, kind, payload, execution, sink)
        finally:
            kept.users -= 1
            if not kept.users:
                kept.idle.set()

    def condition(self, key: Hashable) -> str:
        """What holds the source of this key back although it answers, as its bridge says; empty for one that is not open."""
        kept = self._kept.get(key)
        return "" if kept is None else kept.source.condition()

    def open_keys(self) -> tuple[Hashable, ...]:
        """The keys of what is open."""
        return tuple(self._kept)

    @property
    def connections(self) -> int:
        """Connections of everything that is open."""
        return sum(kept.source.connections for kept in self._kept.values())

    async def forget(self, key: Hashable) -> None:
        """Close the connections of this key once what runs on them is over."""
        kept = self._kept.pop(key, None)
        self._opening.pop(key, None)
        if kept is not None:
            kept.is_forgotten = True
            await kept.idle.wait()
            await kept.source.close()

    async def close(self) -> None:
        """Close everything."""
        kept, self._kept = list(self._kept.values()), {}
        for each in kept:
            await each.source.close()

    async def _open(self, key: Hashable, bridge: str, config: Mapping[str, object]) -> _Kept:
        kept = self._kept.get(key)
        if kept is not None:
            return kept
        async with self._opening.setdefault(key, asyncio.Lock()):
            kept = self._kept.get(key)
            if kept is None:
                kept = _Kept(await self._require(bridge).open(config, policy=self._policy))
                self._kept[key] = kept
            return kept

    def _system_of(self, name: str) -> str:
        kind = self._kinds.get(name)
        return name if kind is None else kind.system or name

    def _require(self, name: str) -> Bridge:
        kind = self._kinds.get(name)
        bridge = None if kind is None or name not in self._installed else bridge_of(kind)
        if bridge is None:
            extra = None if kind is None else kind.extra
            raise LenswayError(
                ErrorCode.SOURCE_UNREACHABLE,
                f"The bridge '{name}' is not installed on the machine that executes this source",
                hint=f"Run `pip install 'lensway[{extra}]'` there."
                if extra
                else "Install the package that provides it there.",
                details={"stage": "runner", "class": "no_bridge"},
            )
        return bridge


def shapes_of(kind: str, payload: bytes) -> list[Shape]:
    """The shapes of all plans in a job, whether or not this program executes them; empty for jobs without plans.

    Raises:
        LenswayError: INVALID_REQUEST for a payload that is malformed.
        UnknownPlanError: for a plan that this program does not know.
    """
    match kind:
        case "rows" | "export":
            return [Plan.read(payload)[1]]
        case "test":
            return [Plan.read(plan)[1] for plan in _encoded_probes(payload)]
        case _:
            return []


def forbidden_part(
    shape: Shape, allows_table: Callable[[str], bool] | None, allows_column: Callable[[TableName, str], bool] | None
) -> str | None:
    """The first table, then the first column of the plan that a policy does not allow, in any position, in words."""
    if allows_table is not None:
        for table in shape.tables():
            if not allows_table(str(table)):
                return f"the table {table}"
    if allows_column is not None:
        for table, column in shape.columns():
            if not allows_column(table, column):
                return f"the column {table}.{written(column)}"
    return None


async def _perform(source: OpenSource, kind: str, payload: bytes, execution: Execution, sink: RowSink) -> ResultEnd:
    deadline = execution.deadline
    match kind:
        case "rows" | "export":
            plan = Plan.decode(payload)
            if execution.watch is not None:
                return await _watched(execution.watch, source, plan, execution, sink)
            return await source.run(plan, execution, sink)
        case "test":
            return await _document(await _tested(source, _probes(payload), execution), sink)
        case "tables":
            found = await source.tables(deadline=deadline)
            allows = execution.allows_table
            return await _document([each for each in found if allows is None or allows(each.name)], sink)
        case "table":
            return await _document(await _described(source, _name(payload), execution), sink)
        case "probe":
            await source.probe(deadline=deadline)
            return await _document(True, sink)
        case _:
            raise LenswayError(ErrorCode.INVALID_REQUEST, "unknown kind of job")


async def _described(source: OpenSource, name: str, execution: Execution) -> TableDescription:
    """One table. One that the policy forbids is refused before the database is asked, so that nobody learns whether it exists."""
    allows = execution.allows_table
    parts = parts_of(name) or (name,)
    names = [written(*parts)] + ([written("public", *parts)] if len(parts) == 1 else [])
    if allows is None or any(map(allows, names)):
        found = await source.table(name, deadline=execution.deadline)
        if allows is None:
            return found
        if allows(found.name):
            return _shown(found, allows, execution.allows_column or _every_column)
    raise LenswayError(
        ErrorCode.REFUSED_BY_RUNNER,
        f"The local policy of the runner does not allow the table '{name[:120]}'",
        hint="Ask the owner of the runner's network to add the table to the policy file.",
    )


def _shown(
    found: TableDescription, allows_table: Callable[[str], bool], allows_column: Callable[[TableName, str], bool]
) -> TableDescription:
    """The description without what the policy withholds. A foreign key names another table, which may be a forbidden one."""

    def allows(table: str, columns: Iterable[str]) -> bool:
        place = parts_of(table) or (table,)
        name = TableName(place[-2] if len(place) > 1 else None, place[-1])
        return all(allows_column(name, column) for column in columns)

    return msgspec.structs.replace(
        found,
        columns=[column for column in found.columns if allows(found.name, (column.name,))],
        key=found.key if allows(found.name, found.key) else (),
        unique_keys=[key for key in found.unique_keys if allows(found.name, key)],
        foreign_keys=[
            key
            for key in found.foreign_keys
            if allows_table(key.table) and allows(found.name, key.columns) and allows(key.table, key.references)
        ],
    )


def _every_column(_table: TableName, _column: str) -> bool:
    return True


async def _tested(source: OpenSource, probes: Sequence[Plan], execution: Execution) -> ConnectionReport:
    """What the test finds. A lens that the policy forbids is not read, and fails the last stage as queries would fail."""
    allowed: list[Plan] = []
    forbidden: list[str] = []
    for plan in probes:
        shape = decode_shape(plan.shape)
        part = forbidden_part(shape, execution.allows_table, execution.allows_column)
        if part is None:
            allowed.append(plan)
        else:
            forbidden.append(f"Lens '{shape.lens}': the local policy of the runner does not allow {part}.")
    report = await source.test(allowed, deadline=execution.deadline)
    if not forbidden or not report.ok:
        return report
    refused = StageResult(stage=Stage.LENSES, ok=False, error=ErrorCode.REFUSED_BY_RUNNER.value, hint=forbidden[0])
    return msgspec.structs.replace(report, ok=False, stages=[*report.stages[:-1], refused])


async def _watched(
    watch: StatementWatch, source: OpenSource, plan: Plan, execution: Execution, sink: RowSink
) -> ResultEnd:
    watch.tables = tuple(map(str, decode_shape(plan.shape).tables()))
    watch.started_at = time.monotonic()
    try:
        end = await source.run(plan, execution, sink)
        watch.rows = end.rows
        return end
    except LenswayError as error:
        watch.code = error.code.value
        status = error.failure.details.get("sqlstate")
        watch.status = status if isinstance(status, str) else None
        raise
    except asyncio.CancelledError:
        watch.code = ErrorCode.CANCELLED.value
        raise
    finally:
        watch.ended_at = time.monotonic()


async def _document(value: object, sink: RowSink) -> ResultEnd:
    data = msgspec.json.encode(value)
    await sink.write(data)
    return ResultEnd(rows=1, bytes=len(data))


def _encoded_probes(payload: bytes) -> list[bytes]:
    try:
        return _PROBES.decode(payload)
    except (msgspec.MsgspecError, ValueError):
        raise LenswayError(ErrorCode.INVALID_REQUEST, "the payload of the test is malformed") from None


def _probes(payload: bytes) -> list[Plan]:
    plans = [Plan.decode(plan) for plan in _encoded_probes(payload)]
    if any(decode_shape(plan.shape).where != Constant(False) for plan in plans):
        raise LenswayError(ErrorCode.INVALID_REQUEST, "the plans of a test must read no row")
    return plans


def _name(payload: bytes) -> str:
    try:
        return payload.decode()
    except UnicodeDecodeError:
        raise LenswayError(ErrorCode.INVALID_REQUEST, "the name of the table is malformed") from None
