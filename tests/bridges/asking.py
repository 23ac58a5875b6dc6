"""What tests that go from introspection to rows share: one source behind the library, and a lens made of what it lists."""

from __future__ import annotations

import json
import time
from typing import Any

from lensway.api.shapes import ExportRequest, QueryRequest
from lensway.bridges.contract import AddressPolicy, Execution
from lensway.bridges.library import ExecutionLibrary
from lensway.catalog.definitions import read_lens
from lensway.dialects.registry import capabilities_of
from lensway.query.fields import LensDefinition
from lensway.query.plan import Plan
from lensway.query.planner import plan_export, plan_rows
from lensway.query.result import ResultLimits, RowFormat


class Gathered:
    """A sink that keeps everything."""

    def __init__(self) -> None:
        self.chunks: list[bytes] = []

    async def write(self, chunk: bytes) -> None:
        self.chunks.append(chunk)


class Asked:
    """One source. A context manager that closes it."""

    def __init__(self, bridge: str, config: dict[str, object], policy: AddressPolicy | None = None) -> None:
        self.library = ExecutionLibrary(policy or AddressPolicy())
        self.bridge, self.config = bridge, config

    async def __aenter__(self) -> Asked:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.library.close()

    async def job(self, kind: str, payload: bytes = b"", *, format: str = "document", export: bool = False) -> bytes:
        sink = Gathered()
        execution = Execution(
            deadline=time.monotonic() + 20,
            format=RowFormat(format),
            limits=ResultLimits(rows_max=10**6, bytes_max=10**9, row_bytes_max=10**7),
            tag="test/1",
            is_export=export,
        )
        await self.library.perform(
            "key", self.bridge, self.config, kind=kind, payload=payload, execution=execution, sink=sink
        )
        return b"".join(sink.chunks)

    async def tables(self) -> list[str]:
        return [each["name"] for each in json.loads(await self.job("tables"))]

    async def table(self, name: str) -> dict[str, Any]:
        return json.loads(await self.job("table", name.encode()))

    async def lens(self, name: str) -> LensDefinition:
        """A lens of every column that has a type, as the listing offers it."""
        described = await self.table(name)
        assert described["name"] == name
        fields = {
            f"f{number}": {
                "type": column["type"],
                "column": column["name"],
                "list": column.get("list", False),
                "primaryKey": column.get("primaryKey", False),
            }
            for number, column in enumerate(described["columns"])
            if column["type"] is not None
        }
        return self.declared(name, fields)

    def declared(self, table: str, fields: dict[str, Any]) -> LensDefinition:
        draft = read_lens("lens", {"source": "s", "table": table, "fields": fields})
        return draft.definition

    def page(self, definition: LensDefinition, **request: Any) -> Plan:
        capabilities = capabilities_of(self.bridge)
        asked = QueryRequest(**request)
        return plan_rows(definition, asked, capabilities, cursor_key=b"k" * 32, environment="e").plan

    async def rows(self, definition: LensDefinition, *, format: str = "json", **request: Any) -> Any:
        found = await self.job("rows", self.page(definition, **request).encode(), format=format)
        return json.loads(b"[" + found + b"]") if format == "json" else found

    async def export(self, definition: LensDefinition, format: str, **request: Any) -> bytes:
        plan = plan_export(definition, ExportRequest(**request), capabilities_of(self.bridge))
        return await self.job("export", plan.encode(), format=format, export=True)
