"""The table in docs/reference/types.md: how values of every type look in every encoding, with a column for each database."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from lensway.testing.bridges.cells import CELLS, REFUSED, Cell
from lensway.testing.bridges.stage import Stage, stage_classes


def rows() -> Iterator[str]:
    """The table for the docs."""
    stages = list(stage_classes().values())
    titles = [each.title for each in stages]
    yield f"| type | value | {' | '.join(titles)} | JSON, NDJSON | CSV | Arrow, Parquet |"
    yield "| --- | --- |" + " --- |" * (len(stages) + 3)
    for cell in CELLS:
        name = f"`{cell.type}`" + (" list" if cell.is_list else "")
        arrow = REFUSED if cell.arrow == REFUSED else _code(_shown(cell.arrow))
        csv = _code(cell.csv) if cell.csv else "empty"
        held = " | ".join(_held(stage, cell) for stage in stages)
        yield f"| {name} | {cell.value} | {held} | {_code(cell.json)} | {csv} | {_types(stages, cell)} {arrow} |"


def _held(stage: type[Stage], cell: Cell) -> str:
    stored = stage.cells.get(cell.key)
    if stored is None:
        return "—"
    return (f"`{stored.column_type}` " if stored.column_type else "") + _code(stored.literal)


def _types(stages: list[type[Stage]], cell: Cell) -> str:
    """The Arrow type, and which databases have another one."""
    held = [(stage.title, stage.cells[cell.key].arrow_type) for stage in stages if cell.key in stage.cells]
    others = ", ".join(f"{title}: `{type}`" for title, type in held if type)
    return f"`{cell.arrow_type}`" + (f" ({others})" if others else "")


def _shown(value: Any) -> str:
    if isinstance(value, bytes):
        return f"0x{value.hex()}" if value else "no bytes"
    if isinstance(value, str):
        return _json_like(value)
    return "null" if value is None else str(value).replace("None", "null")


def _json_like(value: str) -> str:
    return '"' + value + '"'


def _code(text: str) -> str:
    shown = text.replace("\r", "\\r").replace("\n", "\\n").replace("|", "\\|")
    fence = "``" if "`" in shown else "`"
    return f"{fence}{shown}{fence}"
