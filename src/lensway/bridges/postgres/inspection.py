"""PostgreSQL looked into: the staged connection test, and which tables and columns a login can read."""

from __future__ import annotations

import asyncio
import struct
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final

import asyncpg
import structlog

from lensway import limits
from lensway.bridges.contract import (
    AddressPolicy,
    ConnectionReport,
    Stage,
    StageResult,
    TableColumn,
    TableDescription,
    TableSummary,
)
from lensway.bridges.kit.addresses import is_loopback
from lensway.bridges.kit.failures import HINTS, TABLE_HINT, unreachable
from lensway.bridges.kit.orderings import key_warning
from lensway.bridges.postgres import errors
from lensway.bridges.postgres.connecting import connect
from lensway.bridges.postgres.constraints import read_constraints
from lensway.bridges.postgres.endpoints import Endpoint, endpoints_of
from lensway.bridges.postgres.keys import find_equal_keys
from lensway.bridges.postgres.pool import PooledConnection
from lensway.bridges.postgres.settings import PostgresSettings
from lensway.bridges.postgres.types import base_types_sql
from lensway.bridges.postgres.values import NOT_COMPARED, WITHOUT_ORDER, WITHOUT_TYPE, fitting_types, lens_type
from lensway.dialects.compile import compile_shape
from lensway.errors import ErrorCode, LenswayError
from lensway.query.fields import FieldType
from lensway.query.plan import Plan, decode_shape
from lensway.query.table_names import parts_of, written

_SSL_REQUEST: Final = struct.pack("!ii", 8, 80877103)
"""PostgreSQL protocol, message SSLRequest."""
_log = structlog.get_logger("lensway.bridges")
_TURN_OFF: Final = "SELECT pg_catalog.set_config('default_transaction_read_only', 'off', false)"
"""What any function of the database's owner can do; it must not reach the next statement."""

_POOLED: Final = (
    "A pooler stands in front of the database and may use another server connection for every transaction. Lensway therefore "
    "reads each page in its own transaction, which costs some round trips. If the pooler keeps one connection for each "
    'session, set pooler = "session".'
)


_PRODUCT: Final = "PostgreSQL"
_OTHER: Final = (
    "The server calls itself {product}, and the source declares the dialect postgres. Lensway is tested with PostgreSQL; compare "
    "results on this server before you rely on them."
)


class _Stages:
    """Runs the stages in order; the first that fails makes the rest skipped."""

    def __init__(self, deadline: float) -> None:
        self.results: list[StageResult] = []
        self.warnings: list[dict[str, str]] = []
        self._deadline = deadline

    @property
    def is_failed(self) -> bool:
        return any(result.ok is False for result in self.results)

    async def run(self, stage: Stage, work: Callable[[], Awaitable[Any]]) -> Any:
        """What the work gives; None when it failed or was not tried."""
        if self.is_failed:
            self.skip(stage)
            return None
        started = time.monotonic()
        found, error, hint = None, None, None
        try:
            async with asyncio.timeout(max(0.0, self._deadline - started)):
                found = await work()
        except TimeoutError:
            error, hint = "timeout", HINTS["timeout"]
        except LenswayError as failure:
            error = str(failure.failure.details.get("class", failure.code.value))
            hint = failure.failure.hint or str(failure)
        except Exception as broken:  # noqa: BLE001 - whatever a driver makes of what is no PostgreSQL: a stage failed, not we
            _log.info("a stage of a test failed", stage=stage.value, error=type(broken).__name__)
            error, hint = "protocol", HINTS["protocol"]
        ms = round((time.monotonic() - started) * 1000, 3)
        self.results.append(StageResult(stage=stage, ok=error is None, ms=ms, error=error, hint=hint))
        return found

    def skip(self, stage: Stage) -> None:
        """Say that this stage was not tried, or does not apply."""
        self.results.append(StageResult(stage=stage, ok=None))

    def warn(self, code: str, message: str) -> None:
        """A finding that is no failure."""
        self.warnings.append({"code": code, "message": message})


async def run_test(
    settings: PostgresSettings, policy: AddressPolicy, lenses: Sequence[Plan], *, deadline: float
) -> ConnectionReport:
    """All seven stages in order, on a connection of its own."""
    stages = _Stages(deadline)
    endpoints = await stages.run(Stage.DNS, lambda: endpoints_of(settings, policy))
    answering = await stages.run(Stage.TCP, lambda: _tcp(endpoints, settings))
    secured = [each for each in answering or () if settings.at(each).sslmode != "disable"]
    if answering and not secured:
        stages.skip(Stage.TLS)
    else:
        has_tls = await stages.run(Stage.TLS, lambda: _tls(secured, settings))
        if has_tls is False:
            stages.results[-1] = StageResult(stage=Stage.TLS, ok=None, ms=stages.results[-1].ms)
    connection: PooledConnection | None = await stages.run(Stage.LOGIN, lambda: connect(settings, policy))
    version = None
    try:
        driver = None if connection is None else connection.driver
        product = await stages.run(Stage.QUERY, lambda: _product(driver))
        await stages.run(Stage.READ_ONLY, lambda: _read_only(connection, deadline))
        await stages.run(Stage.LENSES, lambda: _lenses(connection, lenses, deadline))
        if connection is not None:
            found = connection.driver.get_server_version()
            version = f"{found.major}.{found.micro}"
            if not stages.is_failed:
                async with asyncio.timeout(max(0.0, deadline - time.monotonic())):
                    await _look_for_risks(connection, stages)
                    async with connection.transaction(deadline, is_plain=False):
                        await _look_at_keys(connection.driver, lenses, stages)
            if product is not None and not product.startswith(_PRODUCT):
                stages.warn("other_database", _OTHER.format(product=product.split(" ")[0][:40]))
            if connection.is_shared:
                stages.warn("transaction_pooling", _POOLED)
            for host in sorted({each.host for each in settings.places} - {each.host for each in answering or ()}):
                stages.warn(
                    "host_silent",
                    f"The host {host} in the list does not answer. Check the host, or remove it from the list.",
                )
    except TimeoutError:
        pass  # the stages have said it
    finally:
        if connection is not None:
            await connection.discard()
    return ConnectionReport(
        ok=not stages.is_failed, stages=stages.results, warnings=stages.warnings, server_version=version
    )


async def _tcp(endpoints: Sequence[Endpoint], settings: PostgresSettings) -> list[Endpoint]:
    """The endpoints that answer, at most one for each place: that they all do is asked of lists only."""
    failure: LenswayError | None = None
    answering: list[Endpoint] = []
    for endpoint in endpoints:
        if any((each.host, each.port) == (endpoint.host, endpoint.port) for each in answering):
            continue
        try:
            async with asyncio.timeout(settings.connect_timeout_seconds):
                _, writer = await _opened(endpoint)
            writer.close()
            answering.append(endpoint)
        except OSError as error:
            failure = unreachable(*errors.of_socket(error))
    if not answering:
        raise failure or unreachable("tcp", "unreachable")
    return answering


async def _opened(endpoint: Endpoint) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    if (path := endpoint.socket_path) is not None:
        return await asyncio.open_unix_connection(path)
    return await asyncio.open_connection(endpoint.address, endpoint.port)


async def _tls(endpoints: Sequence[Endpoint], settings: PostgresSettings) -> bool:
    """True when the handshake succeeds, False when the server has none and none is required."""
    failure: LenswayError | None = None
    for endpoint in endpoints:
        own = settings.at(endpoint)
        context = own.tls()
        assert context is not None, "sslmode disable has no TLS stage"
        try:
            async with asyncio.timeout(own.connect_timeout_seconds):
                reader, writer = await _opened(endpoint)
                try:
                    writer.write(_SSL_REQUEST)
                    if await reader.readexactly(1) != b"S":
                        if own.sslmode == "prefer":
                            return False
                        raise unreachable("tls", "no_tls")
                    await writer.start_tls(context, server_hostname=own.host)
                    return True
                finally:
                    writer.close()
        except LenswayError as error:
            failure = error
        except (OSError, EOFError, asyncio.IncompleteReadError) as error:
            stage, cause = errors.of_socket(error)
            failure = unreachable("tls", cause if stage == "tls" or cause != "login" else "tls")
    raise failure or unreachable("tls", "tls")


async def _product(driver: Any) -> str:
    """What the server says that it is."""
    return str(await _guarded(driver.fetchval("SELECT pg_catalog.version()")))


async def _read_only(connection: PooledConnection | None, deadline: float) -> None:
    """The database must refuse a write, whatever the login may do, also after a statement that turns protection off."""
    assert connection is not None
    driver = connection.driver
    refuses = connection.is_shared or await _guarded(_refuses_writes(driver))
    async with connection.transaction(deadline, is_plain=False):
        await _guarded(driver.execute(_TURN_OFF))
        refuses = await _guarded(_refuses_writes(driver)) and refuses
    if not connection.is_shared:
        kept = await _guarded(driver.fetchval("SHOW default_transaction_read_only"))
        refuses = refuses and kept == "on"
    if not refuses:
        raise _writable()


async def _refuses_writes(driver: Any) -> bool:
    is_read_only: bool = await driver.fetchval("SHOW transaction_read_only") == "on"
    try:
        await driver.execute("CREATE TABLE pg_temp.lensway_must_not_exist ()")
    except asyncpg.PostgresError as error:
        if errors.is_broken_connection(error):
            raise
        # A login without the right to make temporary tables is refused for that.
        return is_read_only
    return False


async def _lenses(connection: PooledConnection | None, lenses: Sequence[Plan], deadline: float) -> None:
    assert connection is not None
    for plan in lenses:
        compiled = compile_shape(plan.shape, "postgres")
        try:
            async with connection.transaction(deadline, is_plain=False):
                statement = await connection.prepared(compiled, compiled.sql)
                await statement.fetch(*compiled.bind(plan))
        except (asyncpg.PostgresError, LenswayError) as error:
            failure = errors.of_query(error).failure
            raise LenswayError(
                failure.code,
                f"lens '{compiled.shape.lens}': {failure.message}",
                hint=f"Lens '{compiled.shape.lens}': {failure.message}. {failure.hint or ''}".strip(),
                details=failure.details,
            ) from None


async def _look_for_risks(connection: PooledConnection, stages: _Stages) -> None:
    driver = connection.driver
    try:
        row = await driver.fetchrow(
            "SELECT rolsuper, rolbypassrls, rolcreaterole, rolreplication FROM pg_catalog.pg_roles WHERE rolname = current_user"
        )
    except asyncpg.PostgresError:
        row = None
    if row is not None and row["rolsuper"]:
        stages.warn("superuser", "The login is a superuser. Give Lensway a login that may only SELECT.")
    elif row is not None and (row["rolbypassrls"] or row["rolcreaterole"] or row["rolreplication"]):
        stages.warn("powerful_login", "The login may do more than read. Give Lensway a login that may only SELECT.")
    transport = getattr(driver, "_transport", None)
    is_secured = transport is not None and transport.get_extra_info("ssl_object") is not None
    host = connection.wait.address.host
    if not is_secured and not host.startswith("/") and not is_loopback(host):
        stages.warn("no_tls", "The connection is not encrypted: rows and password are sent in clear text.")


async def _look_at_keys(driver: Any, lenses: Sequence[Plan], stages: _Stages) -> None:
    give_up = time.monotonic() + limits.KEY_LOOK_SECONDS
    for plan in lenses:
        shape = decode_shape(plan.shape)
        if shape.keys and time.monotonic() < give_up:
            try:
                warning = key_warning(shape, await find_equal_keys(driver, shape))
            except errors.DRIVER_ERRORS:
                return  # the stages have proved what queries need; this only looks ahead
            if warning is not None:
                stages.warnings.append(warning)


async def _guarded(work: Awaitable[Any]) -> Any:
    try:
        return await work
    except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError, EOFError) as error:
        raise errors.of_query(error) from None


def _writable() -> LenswayError:
    return LenswayError(
        ErrorCode.SOURCE_QUERY_FAILED,
        "The session is not read-only",
        hint="A component on the way to the database, such as a pooler, drops session settings.",
        details={"class": "writable"},
    )


# --- introspection ----------------------------------------------------------------------------------------------------------

_KINDS: Final = {"r": "table", "p": "table", "v": "view", "m": "materialized view", "f": "foreign table"}
_TABLES_MAX: Final = 10_000

_TABLES: Final = f"""
SELECT n.nspname AS schema, c.relname AS name, c.relkind::text AS kind
FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f') AND n.nspname NOT IN ('pg_catalog', 'information_schema')
  AND n.nspname NOT LIKE 'pg\\_toast%' AND n.nspname NOT LIKE 'pg\\_temp%'
  AND pg_catalog.has_schema_privilege(n.oid, 'USAGE')
  AND (pg_catalog.has_table_privilege(c.oid, 'SELECT') OR pg_catalog.has_any_column_privilege(c.oid, 'SELECT'))
ORDER BY 1, 2 LIMIT {_TABLES_MAX}
"""  # noqa: S608 - made of our own number

_COLUMNS: Final = f"""
SELECT a.attname AS name, b.kind, b.is_list, b.is_compared, a.attnotnull AS required,
  pg_catalog.format_type(a.atttypid, a.atttypmod) AS shown, c.relkind::text AS relation, c.oid AS relation_id,
  coalesce(a.attnum = ANY ((i.indkey::int2[])[0:i.indnkeyatts - 1]), false) AS is_key
FROM pg_catalog.pg_attribute a
JOIN pg_catalog.pg_class c ON c.oid = a.attrelid
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
CROSS JOIN LATERAL ({base_types_sql("t.oid = a.atttypid")}) AS b
LEFT JOIN pg_catalog.pg_index i ON i.indrelid = c.oid AND i.indisprimary
WHERE n.nspname = $1 AND c.relname = $2 AND a.attnum > 0 AND NOT a.attisdropped
  AND c.relkind IN ('r', 'p', 'v', 'm', 'f') AND pg_catalog.has_schema_privilege(n.oid, 'USAGE')
  AND pg_catalog.has_column_privilege(c.oid, a.attnum, 'SELECT')
ORDER BY a.attnum
"""  # noqa: S608 - made of our own texts


async def list_tables(driver: Any) -> list[TableSummary]:
    """Every table and view that the login can read. Raises the driver's errors."""
    rows = await driver.fetch(_TABLES)
    return [TableSummary(name=written(row["schema"], row["name"]), kind=_KINDS[row["kind"]]) for row in rows]


async def describe_table(driver: Any, name: str) -> TableDescription:
    """One table with the columns that the login can read.

    Raises:
        LenswayError: NOT_FOUND; also for one that the login cannot see. And the driver's errors.
    """
    parts = parts_of(name) or ()
    schema, table = parts if len(parts) == 2 else ("public", *parts) if len(parts) == 1 else ("", "")
    rows = await driver.fetch(_COLUMNS, schema, table)
    if not rows:
        raise LenswayError(
            ErrorCode.NOT_FOUND,
            f"No table '{name[:120]}' that this login can read",
            hint=TABLE_HINT,
        )
    return TableDescription(
        name=written(schema, table),
        kind=_KINDS[rows[0]["relation"]],
        columns=[_column(row) for row in rows],
        **await read_constraints(driver, rows[0]["relation_id"]),
    )


def _lens_type(row: Any) -> FieldType | None:
    """What the column can be in every format, filter and order; None where some of that fails."""
    if not row["is_list"] and (row["kind"] in NOT_COMPARED or not row["is_compared"]):
        return None
    return lens_type(row["kind"])


def _column(row: Any) -> TableColumn:
    type = _lens_type(row)
    types = fitting_types(row["kind"])
    return TableColumn(
        name=row["name"],
        database_type=row["shown"],
        type=None if type is None else type.value,
        is_list=row["is_list"],
        nullable=not row["required"],
        primary_key=row["is_key"],
        types=[each.value for each in types],
        reason=None if type is not None else WITHOUT_ORDER if types else WITHOUT_TYPE,
    )
