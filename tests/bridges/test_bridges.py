"""What is special to a bridge, on real databases: PostgreSQL's types and catalog, SQLite's locks, settings that are refused.

`test_conformance.py` holds what every bridge promises.
"""

from __future__ import annotations

import asyncio
import csv
import json
import os
import pathlib
import sqlite3
import time
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lensway.api.shapes import ExportRequest, QueryRequest
from lensway.bridges.contract import AddressPolicy, Execution
from lensway.bridges.kit.addresses import check_host, confined_path, resolve
from lensway.bridges.kit.failures import TABLE_HINT
from lensway.bridges.library import ExecutionLibrary, encode_probes
from lensway.bridges.postgres.settings import read_settings
from lensway.dialects.registry import capabilities_of
from lensway.errors import ErrorCode, LenswayError
from lensway.query.fields import Field, FieldType, LensDefinition
from lensway.query.plan import Plan
from lensway.query.planner import plan_export, plan_probe, plan_rows
from lensway.query.result import ResultEnd, ResultLimits, RowFormat
from lensway.testing.postgres import Database, write_certificate

CURSOR_KEY = b"k" * 32


class Sink:
    def __init__(self) -> None:
        self.chunks: list[bytes] = []

    async def write(self, chunk: bytes) -> None:
        self.chunks.append(chunk)


class Reader:
    """One source behind the library."""

    def __init__(self, bridge: str, config: dict, definition: LensDefinition) -> None:
        self.library = ExecutionLibrary(AddressPolicy())
        self.bridge, self.config, self.definition = bridge, config, definition
        self.capabilities = capabilities_of(bridge)

    async def run(
        self, plan: Plan, *, format: str = "json", seconds: float = 20.0, export: bool = False, sink=None, **bounds
    ) -> tuple[bytes, ResultEnd]:
        sink = sink or Sink()
        execution = Execution(
            deadline=time.monotonic() + seconds,
            format=RowFormat(format),
            limits=ResultLimits(**{"rows_max": 10**7, "bytes_max": 10**9, "row_bytes_max": 10**8, **bounds}),
            tag="test/1",
            is_export=export,
        )
        end = await self.library.perform(
            "key",
            self.bridge,
            self.config,
            kind="export" if export else "rows",
            payload=plan.encode(),
            execution=execution,
            sink=sink,
        )
        return b"".join(sink.chunks), end

    async def document(self, kind: str, payload: bytes = b""):
        sink = Sink()
        execution = Execution(
            deadline=time.monotonic() + 20,
            format=RowFormat.DOCUMENT,
            limits=ResultLimits(rows_max=1, bytes_max=10**7, row_bytes_max=10**7),
            tag="test/1",
        )
        await self.library.perform(
            "key", self.bridge, self.config, kind=kind, payload=payload, execution=execution, sink=sink
        )
        return json.loads(b"".join(sink.chunks))

    def page(self, **request) -> Plan:
        asked = QueryRequest(**request)
        return plan_rows(self.definition, asked, self.capabilities, cursor_key=CURSOR_KEY, environment="e").plan

    def export(self, **request) -> Plan:
        return plan_export(self.definition, ExportRequest(**request), self.capabilities)


def lens(table: str, **fields) -> LensDefinition:
    made = {
        name: Field(name=name, column=name, type=FieldType(type), is_list=more == "list", primary_key=more == "key")
        for name, (type, more) in fields.items()
    }
    return LensDefinition(name="lens", table=table, fields=made)


# Declared type, column type, a literal, and what a caller sees.
CELLS = [
    ("text", "text", "'a\"b\\c é'", 'a"b\\c é'),
    ("text", "varchar(9)", "'abc'", "abc"),
    ("text", "char(4)", "'ab'", "ab  "),
    ("text", "inet", "'10.0.0.1/8'", "10.0.0.1/8"),
    ("text", "inet", "'::1'", "::1"),
    ("text", "mood", "'fine'", "fine"),
    ("text", "interval", "'1 day 02:03:04'", "1 day 02:03:04"),
    ("integer", "smallint", "-3", -3),
    ("integer", "bigint", "9223372036854775807", 9223372036854775807),
    ("number", "real", "0.1", 0.1),
    ("number", "double precision", "1e300", 1e300),
    ("number", "double precision", "'NaN'", "NaN"),
    ("number", "double precision", "'-Infinity'", "-Infinity"),
    ("number", "integer", "7", 7),
    ("decimal", "numeric", "12345678901234567890.1234567890", "12345678901234567890.1234567890"),
    ("decimal", "numeric(6,2)", "1.5", "1.50"),
    ("decimal", "numeric", "'NaN'", "NaN"),
    ("boolean", "boolean", "true", True),
    ("date", "date", "'2013-01-31'", "2013-01-31"),
    ("date", "date", "'infinity'", "infinity"),
    ("time", "time", "'17:05'", "17:05:00.000000"),
    ("time", "timetz", "'17:05:00.5+02'", "17:05:00.500000+02:00"),
    ("timestamp", "timestamptz", "'2013-01-31 17:05:00.123456+02'", "2013-01-31T15:05:00.123456Z"),
    ("timestamp", "timestamptz", "'2013-01-31 17:05:00+00'", "2013-01-31T17:05:00.000000Z"),
    ("timestamp", "timestamptz", "'infinity'", "infinity"),
    ("timestamp", "timestamptz", "'0044-03-15 12:00:00+00 BC'", "0044-03-15T12:00:00.000000Z BC"),
    ("timestamp", "timestamp", "'2013-01-31 17:05:00.1'", "2013-01-31T17:05:00.100000"),
    ("uuid", "uuid", "'A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11'", "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"),
    ("json", "jsonb", "'{\"a\": [1, null]}'", {"a": [1, None]}),
    ("json", "json", "E'{\\n\"b\": 1}'", {"b": 1}),
    ("bytes", "bytea", "'\\xff00'", "/wA="),
]


@pytest.fixture
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    loop = asyncio.new_event_loop()
    yield loop
    loop.run_until_complete(asyncio.sleep(0))
    loop.close()


@pytest.fixture
def postgres_reader(database: Database, loop):
    readers: list[Reader] = []

    def make(definition: LensDefinition, *statements: str) -> Reader:
        loop.run_until_complete(database.execute(*statements))
        readers.append(Reader("postgres", {"url": database.reader_url}, definition))
        return readers[-1]

    yield make
    for reader in readers:
        loop.run_until_complete(reader.library.close())


def test_every_cell_of_the_table_of_types(postgres_reader, loop) -> None:
    columns = ", ".join(f"c{number} {column}, l{number} {column}[]" for number, (_, column, _, _) in enumerate(CELLS))
    values = ", ".join(f"{literal}, ARRAY[{literal}, NULL]::{column}[]" for _, column, literal, _ in CELLS)
    fields: dict = {"id": ("integer", "key")}
    for number, (type, _, _, _) in enumerate(CELLS):
        fields[f"c{number}"] = (type, "")
        fields[f"l{number}"] = (type, "list")
    reader = postgres_reader(
        lens("cells", **fields),
        "CREATE TYPE mood AS ENUM ('fine', 'so-so')",
        f"CREATE TABLE cells (id int PRIMARY KEY, {columns})",
        f"INSERT INTO cells VALUES (1, {values})",
        "INSERT INTO cells (id) VALUES (2)",
        "GRANT SELECT ON cells TO PUBLIC",
    )
    body, _ = loop.run_until_complete(reader.run(reader.page()))
    first, second = json.loads(b"[" + body + b"]")
    for number, (type, column, _, shown) in enumerate(CELLS):
        assert first[f"c{number}"] == shown, (type, column)
        assert first[f"l{number}"] == [shown, None], (type, column)
        assert second[f"c{number}"] is None
    # NDJSON and CSV say the same.
    lines, _ = loop.run_until_complete(
        reader.run(reader.export(order_by={"field": "id"}), format="ndjson", export=True)
    )
    assert [json.loads(line) for line in lines.splitlines()] == [first, second]
    text, _ = loop.run_until_complete(reader.run(reader.export(order_by={"field": "id"}), format="csv", export=True))
    header, row, nulls = csv.reader(text.decode().splitlines())
    table = dict(zip(header, row, strict=True))
    for number, (_, _, _, shown) in enumerate(CELLS):
        cell = table[f"c{number}"]
        assert cell == shown if isinstance(shown, str) else json.loads(cell) == shown
    assert set(nulls[1:]) == {""}


@pytest.fixture
def numbers(postgres_reader, loop) -> Reader:
    return postgres_reader(
        lens("numbers", id=("integer", "key"), note=("text", "")),
        "CREATE TABLE numbers (id int PRIMARY KEY, note text)",
        "INSERT INTO numbers SELECT i, repeat('x', i % 300) FROM generate_series(1, 6000) i",
        "CREATE VIEW slow AS SELECT n.* FROM numbers n, (SELECT pg_sleep(20)) s",
        "GRANT SELECT ON numbers, slow TO PUBLIC",
    )


def test_a_collation_that_takes_different_texts_for_equal_is_read_in_every_format(postgres_reader, loop) -> None:
    reader = postgres_reader(
        lens("names", id=("integer", "key"), name=("text", "")),
        "CREATE COLLATION caseless (provider = icu, locale = 'und-u-ks-level2', deterministic = false)",
        "CREATE TABLE names (id int PRIMARY KEY, name text COLLATE caseless)",
        "INSERT INTO names VALUES (1, 'a,b'), (2, 'A\"x'), (3, NULL), (4, ''), (5, 'B')",
    )
    for format in ("csv", "ndjson", "arrow"):
        page, _ = loop.run_until_complete(reader.run(reader.page(), format=format))
        exported, _ = loop.run_until_complete(reader.run(reader.export(), format=format, export=True))
        assert exported == page
    found, _ = loop.run_until_complete(reader.run(reader.page(where={"name": "b"})))
    assert json.loads(found) == {"id": 5, "name": "B"}, "equality follows the column"
    if not loop.run_until_complete(has_patterns(reader)):
        with pytest.raises(LenswayError) as error:
            loop.run_until_complete(reader.run(reader.page(where={"name": {"$contains": "b"}})))
        assert error.value.failure.details["class"] == "unsupported"


async def has_patterns(reader: Reader) -> bool:
    """PostgreSQL knows patterns on such columns since version 18."""
    report = await reader.document("test", encode_probes([]))
    return int(report["serverVersion"].split(".")[0]) >= 18


def test_a_page_is_prepared_once_and_only_executed_from_then_on(numbers: Reader, loop) -> None:
    statements = lens("pg_catalog.pg_prepared_statements", statement=("text", ""), custom_plans=("integer", ""))
    for number in range(4):
        plan = numbers.page(where={"id": number + 1}, limit=1)
        assert loop.run_until_complete(numbers.run(plan))[1].rows == 1
    # What each connection knows it says itself; queries that do not overlap are all on one.
    look = plan_rows(statements, QueryRequest(), numbers.capabilities, cursor_key=CURSOR_KEY, environment="e").plan
    body, _ = loop.run_until_complete(numbers.run(look))
    known = [each for each in json.loads(b"[" + body + b"]") if '"numbers"' in each["statement"]]
    assert [each["custom_plans"] for each in known] == [4]


def test_a_restart_of_the_database_between_two_queries_is_not_noticed(
    numbers: Reader, database: Database, loop
) -> None:
    assert loop.run_until_complete(numbers.run(numbers.page(limit=1)))[1].rows == 1

    async def terminate() -> None:
        await database.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE application_name = 'lensway' AND pid <> pg_backend_pid()"
        )

    loop.run_until_complete(terminate())
    assert loop.run_until_complete(numbers.run(numbers.page(limit=1)))[1].rows == 1


def test_a_changed_table_is_not_noticed_either(numbers: Reader, database: Database, loop) -> None:
    assert loop.run_until_complete(numbers.run(numbers.page(limit=1)))[1].rows == 1
    loop.run_until_complete(database.execute("DROP VIEW slow", "ALTER TABLE numbers ALTER note TYPE varchar(500)"))
    assert loop.run_until_complete(numbers.run(numbers.page(limit=1)))[1].rows == 1


def test_the_test_names_the_stage_and_introspection_names_what_can_be_read(numbers: Reader, loop) -> None:
    report = loop.run_until_complete(numbers.document("test", encode_probes([plan_probe(numbers.definition).encode()])))
    assert [stage["ok"] for stage in report["stages"]] == [True, True, None, True, True, True, True]
    ghost = lens("ghost", id=("integer", "key"))
    report = loop.run_until_complete(numbers.document("test", encode_probes([plan_probe(ghost).encode()])))
    assert report["stages"][-1] | {"ms": 0} == {
        "stage": "lenses",
        "ok": False,
        "ms": 0,
        "error": "undefined_table",
        "hint": "Lens 'lens': The table of the lens does not exist. Correct `table` in the lens. " + TABLE_HINT,
    }
    tables = loop.run_until_complete(numbers.document("tables"))
    assert {"name": "public.numbers", "kind": "table"} in tables
    described = loop.run_until_complete(numbers.document("table", b"public.numbers"))
    assert [(column["name"], column["type"], column["primaryKey"]) for column in described["columns"]] == [
        ("id", "integer", True),
        ("note", "text", False),
    ]
    with pytest.raises(LenswayError) as error:
        loop.run_until_complete(numbers.document("table", b"pg_authid"))
    assert error.value.code is ErrorCode.NOT_FOUND


def test_a_superuser_login_is_warned_about(database: Database, loop) -> None:
    reader = Reader("postgres", {"url": database.owner_url}, lens("t", id=("integer", "key")))
    report = loop.run_until_complete(reader.document("test", encode_probes([])))
    assert [warning["code"] for warning in report["warnings"]] == ["superuser"]


# --- SQLite ---------------------------------------------------------------------------------------------------------------


@pytest.fixture
def file(tmp_path: pathlib.Path) -> pathlib.Path:
    path = tmp_path / "data.db"
    connection = sqlite3.connect(path)
    connection.execute(
        "CREATE TABLE t (id INTEGER PRIMARY KEY, name TEXT, n REAL, d DECIMAL, ok BOOLEAN, day DATE, at TIMESTAMP,"
        " j JSON, b BLOB)"
    )
    connection.execute(
        "INSERT INTO t VALUES (1, 'é', 0.5, '1.50', 1, '2013-01-31', '2013-01-31 17:05:00', '{\"a\": 1}', x'ff00'),"
        " (2, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL),"
        " (3, 'x', 1, 2, 0, '2013-02-01', '2013-01-31T17:05:00+01:00', '[]', x'')"
    )
    connection.commit()
    connection.close()
    return path


FILE_LENS = lens(
    "t",
    id=("integer", "key"),
    name=("text", ""),
    n=("number", ""),
    d=("decimal", ""),
    ok=("boolean", ""),
    day=("date", ""),
    at=("timestamp", ""),
    j=("json", ""),
    b=("bytes", ""),
)


def test_sqlite_shows_the_same_types(file: pathlib.Path, loop) -> None:
    reader = Reader("sqlite", {"path": str(file)}, FILE_LENS)
    body, end = loop.run_until_complete(reader.run(reader.page(total=True)))
    rows = json.loads(b"[" + body + b"]")
    assert rows[0] == {
        "id": 1,
        "name": "é",
        "n": 0.5,
        "d": "1.5",
        "ok": True,
        "day": "2013-01-31",
        "at": "2013-01-31T17:05:00.000000",
        "j": {"a": 1},
        "b": "/wA=",
    }
    assert set(rows[1].values()) == {2, None}
    assert rows[2]["at"] == "2013-01-31T16:05:00.000000Z"
    assert (end.total, end.has_more) == (3, False)
    loop.run_until_complete(reader.library.close())


def test_a_locked_sqlite_file_is_waited_for_and_the_wait_can_be_ended(file: pathlib.Path, loop) -> None:
    writer = sqlite3.connect(file, isolation_level=None, check_same_thread=False)
    writer.execute("CREATE TABLE locked AS SELECT 1 AS id")
    reader = Reader("sqlite", {"path": str(file)}, lens("locked", id=("integer", "key")))

    async def run() -> None:
        writer.execute("BEGIN EXCLUSIVE")
        started = time.monotonic()
        with pytest.raises(LenswayError) as error:
            await reader.run(reader.page(), seconds=0.3)
        assert error.value.code is ErrorCode.QUERY_TIMEOUT
        asking = asyncio.create_task(reader.run(reader.page()))
        done, _ = await asyncio.wait({asking}, timeout=0.1)
        assert not done
        asking.cancel()
        await asyncio.wait({asking})
        assert time.monotonic() - started < 1.5
        asking = asyncio.create_task(reader.run(reader.page()))
        done, _ = await asyncio.wait({asking}, timeout=0.1)
        assert not done
        writer.execute("COMMIT")
        assert (await asking)[0] == b'{"id":1}'
        await reader.library.close()

    loop.run_until_complete(run())
    writer.close()


# --- what is refused --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("config", "named"),
    [
        ({"hots": "x", "user": "u"}, "config.hots"),
        ({"url": "mysql://u@h/d"}, "config.url"),
        ({"url": "postgresql://u@h/d?options=-c"}, "config.url"),
        ({"url": "postgresql://u@h/d?host=/var/run"}, "'host'"),
        ({"host": "db:5432", "user": "u"}, "config.host"),
        ({"host": "h", "user": "u", "port": "70000"}, "config.port"),
        ({"host": "h", "user": "u", "sslmode": "maybe"}, "config.sslmode"),
        ({"host": "h"}, "config.user"),
        ({"host": "h", "user": ["u"]}, "config.user"),
        ({"passfile": "/etc/passwd", "user": "u"}, "config.passfile"),
    ],
)
def test_settings_outside_the_allow_list_are_refused_by_name(config: dict, named: str) -> None:
    with pytest.raises(LenswayError) as error:
        read_settings(config)
    assert error.value.code is ErrorCode.INVALID_REQUEST
    assert named in str(error.value)


def test_root_certificates_come_from_a_small_regular_file(tmp_path: pathlib.Path) -> None:
    pipe, large = tmp_path / "pipe", tmp_path / "large.pem"
    os.mkfifo(pipe)
    large.write_bytes(b"#" * (1 << 20) + b"\n")
    for path in (str(pipe), "/dev/zero", str(tmp_path), str(large), str(tmp_path / "missing"), "/etc/hostname"):
        settings = read_settings({"host": "h", "user": "u", "sslmode": "verify-full", "sslrootcert": path})
        with pytest.raises(LenswayError) as error:
            settings.tls()
        assert str(error.value) == "config.sslrootcert: holds no certificates", path
    bundle = tmp_path / "bundle.pem"
    write_certificate(tmp_path)
    bundle.write_text("# Főtanúsítvány\n" + (tmp_path / "server.crt").read_text(), encoding="utf-8")
    settings = read_settings({"host": "h", "user": "u", "sslmode": "verify-full", "sslrootcert": str(bundle)})
    context = settings.tls()
    assert context is not None
    assert len(context.get_ca_certs()) == 1


@settings(max_examples=300, deadline=None)
@given(
    st.text(st.sampled_from("abcXYZ0189@:/?#[]%&=+ '\"\\$"), min_size=6, max_size=24),
    st.sampled_from(("postgresql://u:{}@h/d", "postgresql://{}@h/d", "postgres://u:{}@h:5432/d?sslmode=x", "{}")),
)
def test_i9_no_error_about_settings_shows_any_of_a_password(password: str, template: str) -> None:
    secret = "Canary" + password + "yranaC"
    for config in ({"url": template.format(secret)}, {"user": "u", "password": secret, "port": secret}):
        try:
            found = read_settings(config)
        except LenswayError as error:
            text = str(error.failure)
            assert "Canary" not in text
            assert "yranaC" not in text
        else:
            assert found.password == "" or found.password not in repr(found)


def test_unset_sslmode_is_prefer_on_loopback_and_require_elsewhere() -> None:
    assert read_settings({"url": "postgresql://u@localhost/d"}).sslmode == "prefer"
    assert read_settings({"url": "postgresql://u@127.0.0.2/d"}).sslmode == "prefer"
    assert read_settings({"url": "postgresql://u@db.example.com/d"}).sslmode == "require"


@pytest.mark.parametrize("host", ["169.254.169.254", "::ffff:169.254.169.254", "fe80::1", "0.0.0.0", "224.0.0.1"])
def test_link_local_and_metadata_addresses_are_always_refused(host: str) -> None:
    with pytest.raises(LenswayError) as error:
        check_host(host, AddressPolicy())
    assert error.value.failure.details["class"] == "forbidden_address"


def test_private_addresses_are_refused_where_asked_for(loop) -> None:
    strict = AddressPolicy(deny_private=True)
    for host in ("127.0.0.1", "localhost", "10.1.2.3", "192.168.0.1", "::1", "::ffff:127.0.0.1"):
        with pytest.raises(LenswayError):
            loop.run_until_complete(resolve(host, 5432, strict))
    assert loop.run_until_complete(resolve("127.0.0.1", 5432, AddressPolicy())) == ["127.0.0.1"]
    with pytest.raises(LenswayError):
        check_host("db.elsewhere", AddressPolicy(allowed_hosts=("*.internal",)))
    check_host("db.internal", AddressPolicy(allowed_hosts=("*.internal",)))


def test_paths_are_confined_and_links_are_followed_first(tmp_path: pathlib.Path) -> None:
    inside, outside = tmp_path / "inside", tmp_path / "outside"
    inside.mkdir()
    outside.mkdir()
    (outside / "secret.db").write_text("")
    (inside / "link.db").symlink_to(outside / "secret.db")
    (inside / "good.db").write_text("")
    policy = AddressPolicy(source_dirs=(str(inside),))
    assert confined_path(str(inside / "good.db"), policy) == (inside / "good.db").resolve()
    for path in (
        str(outside / "secret.db"),
        str(inside / "link.db"),
        f"{inside}/../outside/secret.db",
        "/proc/self/environ",
        "relative.db",
        f"{inside}/good.db\0.txt",
    ):
        with pytest.raises(LenswayError):
            confined_path(path, policy)
    with pytest.raises(LenswayError):
        confined_path("/proc/self/environ", AddressPolicy())
    data = AddressPolicy(forbidden_dirs=(str(inside),))
    with pytest.raises(LenswayError):
        confined_path(str(inside / "good.db"), data)
