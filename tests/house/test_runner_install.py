"""A runner installs and starts without the server's dependencies."""

from __future__ import annotations

import pathlib
import subprocess
import sys

import pytest

from lensway.kinds import BUILT_IN

SERVER_ONLY = (
    "alembic",
    "httpx2",
    "jinja2",
    "prometheus_client",
    "sqlalchemy",
    "starlette",
    "uvicorn",
)
_PROGRAM = """
import sys
for name in {names!r}:
    sys.modules[name] = None
import lensway.compose.runner, lensway.cli.runner, lensway.runner.doctor, lensway.runner.status
print("imported")
"""


def test_the_runner_imports_nothing_of_the_server() -> None:
    program = _PROGRAM.format(names=SERVER_ONLY)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "imported", done.stderr


def test_an_idle_runner_loads_no_room_of_the_server_and_no_listener() -> None:
    program = (
        "import sys, lensway.compose.runner\n"
        "rooms = {name.split('.')[1] for name in sys.modules if name.startswith('lensway.')}\n"
        "servers = {'api', 'catalog', 'client', 'console', 'dispatch', 'fleet', 'gateway', 'service', 'store', 'usecases'}\n"
        "print(sorted(rooms & servers),"
        " 'websockets.asyncio.server' in sys.modules, 'logging.handlers' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "[] False False", done.stdout + done.stderr


@pytest.mark.parametrize("driver", ["asyncpg"])
def test_a_runner_without_a_driver_starts_and_says_which_bridges_it_has(driver: str) -> None:
    lines = (
        f"import sys; sys.modules[{driver!r}] = None",
        "from lensway.bridges import library",
        "print(sorted(library.installed()))",
    )
    program = "\n".join(lines)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    others = sorted(kind.name for kind in BUILT_IN.served if driver not in kind.drivers)
    assert done.stdout.strip() == str(others), done.stderr


_WITHOUT_ARROW = """
import asyncio, sqlite3, sys, time
for name in ("pyarrow", "adbc_driver_postgresql", "adbc_driver_manager"):
    sys.modules[name] = None
from lensway.api.shapes import ExportRequest
from lensway.bridges.contract import AddressPolicy, Execution
from lensway.bridges.library import ExecutionLibrary, encodings, installed
from lensway.errors import LenswayError
from lensway.dialects.registry import capabilities_of
from lensway.query.fields import Field, FieldType, LensDefinition
from lensway.query.planner import plan_export
from lensway.query.result import ResultLimits, RowFormat

path = sys.argv[1]
with sqlite3.connect(path) as connection:
    connection.execute("CREATE TABLE t (id INTEGER PRIMARY KEY)")
    connection.execute("INSERT INTO t VALUES (1)")
connection.close()
lens = LensDefinition(name="t", table="t", fields={"id": Field(name="id", column="id", type=FieldType.INTEGER)})

class Sink:
    async def write(self, chunk):
        print(chunk)

async def ask(bridge, config, format):
    library = ExecutionLibrary(AddressPolicy())
    limits = ResultLimits(rows_max=9, bytes_max=999, row_bytes_max=999)
    execution = Execution(deadline=time.monotonic() + 9, format=format, limits=limits, tag="t", is_export=True)
    plan = plan_export(lens, ExportRequest(), capabilities_of(bridge)).encode()
    try:
        await library.perform("k", bridge, config, kind="export", payload=plan, execution=execution, sink=Sink())
    except LenswayError as error:
        print(bridge, format.value, error.code.value)
    await library.close()

print(sorted(installed()), sorted(encodings()))
for format in (RowFormat.NDJSON, RowFormat.ARROW, RowFormat.PARQUET):
    asyncio.run(ask("sqlite", {"path": path}, format))
asyncio.run(ask("postgres", {"url": "postgresql://u:p@127.0.0.1:1/d"}, RowFormat.ARROW_ZSTD))
asyncio.run(ask("postgres", {"url": "postgresql://u:p@127.0.0.1:1/d"}, RowFormat.NDJSON))
"""


def test_a_runner_without_arrow_serves_everything_else_and_says_so(tmp_path: pathlib.Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _WITHOUT_ARROW, tmp_path / "t.db"], capture_output=True, text=True, check=False
    )
    assert done.stdout.splitlines() == [
        f"{sorted(kind.name for kind in BUILT_IN.served)} ['csv', 'document', 'json', 'ndjson']",
        "b'{\"id\":1}\\n'",
        "sqlite arrow not_acceptable",
        "sqlite parquet not_acceptable",
        "postgres arrow+zstd not_acceptable",
        "postgres ndjson SOURCE_UNREACHABLE",
    ], done.stderr


def test_whoever_only_carries_rows_imports_neither_arrow_nor_a_driver() -> None:
    program = (
        "import sys, lensway.compose.server, lensway.compose.runner;"
        "print([name for name in ('pyarrow', 'numpy', 'adbc_driver_manager') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "[]", done.stderr
