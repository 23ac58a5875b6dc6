"""What PostgreSQL's types are at their base, as its catalog says: behind domains, and of lists their elements.

A name alone says nothing, because anybody may call a type `uuid`. Every type has a *kind*: its name if it is one of PostgreSQL's
own scalar types, otherwise `ENUM`, `RANGE`, `CITEXT` or `OTHER`. It is empty for what no field can show, such as composites.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import msgspec

ENUM: Final = "an enum"
RANGE: Final = "a range"
CITEXT: Final = "citext"
OTHER: Final = "a type of its own"
"""A scalar type that somebody made, most of them in an extension. Drivers give the text that PostgreSQL writes of it."""


class BaseType(msgspec.Struct, frozen=True, array_like=True):
    """What one type is. ``oid``, ``name`` and ``schema`` are those of the base; ``of`` and ``of_name`` those of the type itself.

    ``is_compared`` is False where PostgreSQL cannot order values of the base, or finds the operators on no search path.
    """

    of: int
    of_name: str
    kind: str
    is_list: bool
    is_compared: bool
    oid: int
    name: str
    schema: str


def base_types_sql(which: str) -> str:
    """A query for the base of each type ``t`` of `pg_type` that meets the condition. Its columns are those of `BaseType`."""
    return f"""
WITH RECURSIVE w (of, of_name, at, is_list) AS (
  SELECT t.oid, t.typname::text, t.oid, false FROM pg_catalog.pg_type t WHERE {which}
  UNION ALL
  SELECT w.of, w.of_name, CASE t.typtype WHEN 'd' THEN t.typbasetype ELSE t.typelem END, w.is_list OR t.typtype <> 'd'
  FROM w JOIN pg_catalog.pg_type t ON t.oid = w.at LEFT JOIN pg_catalog.pg_type e ON e.oid = t.typelem
  WHERE t.typtype = 'd' OR (NOT w.is_list AND e.typarray = t.oid)
)
SELECT w.of, w.of_name, CASE
    WHEN e.oid IS NOT NULL THEN ''
    WHEN t.typtype = 'e' THEN '{ENUM}'
    WHEN t.typtype IN ('r', 'm') THEN '{RANGE}'
    WHEN t.typtype <> 'b' THEN ''
    WHEN n.nspname = 'pg_catalog' THEN t.typname::text
    WHEN x.extname IS NOT NULL THEN '{CITEXT}'
    ELSE '{OTHER}' END AS kind,
  w.is_list, t.typtype <> 'b' OR n.nspname = 'pg_catalog' OR EXISTS (
    SELECT FROM pg_catalog.pg_opclass c JOIN pg_catalog.pg_am m ON m.oid = c.opcmethod AND m.amname = 'btree'
    JOIN pg_catalog.pg_amop s ON s.amopfamily = c.opcfamily AND s.amoplefttype = t.oid AND s.amoprighttype = t.oid
    JOIN pg_catalog.pg_operator o ON o.oid = s.amopopr
    WHERE c.opcdefault AND c.opcintype = t.oid AND pg_catalog.pg_operator_is_visible(o.oid)
    HAVING count(*) FILTER (WHERE o.oprname IN ('<', '<=', '=', '>=', '>')) = 5) AS is_compared,
  t.oid, t.typname::text AS name, n.nspname::text AS schema
FROM w JOIN pg_catalog.pg_type t ON t.oid = w.at JOIN pg_catalog.pg_namespace n ON n.oid = t.typnamespace
LEFT JOIN pg_catalog.pg_type e ON e.oid = t.typelem AND e.typarray = t.oid
LEFT JOIN pg_catalog.pg_depend d ON d.classid = 'pg_catalog.pg_type'::pg_catalog.regclass AND d.objid = t.oid
  AND d.refclassid = 'pg_catalog.pg_extension'::pg_catalog.regclass AND d.deptype = 'e' AND t.typname = '{CITEXT}'
LEFT JOIN pg_catalog.pg_extension x ON x.oid = d.refobjid AND x.extname = '{CITEXT}'
WHERE t.typtype <> 'd' AND (w.is_list OR e.oid IS NULL)
"""  # noqa: S608 - made of our own texts


_BY_OID: Final = base_types_sql("t.oid = ANY ($1::pg_catalog.oid[])")
_RANGES: Final = base_types_sql("t.typtype IN ('r', 'm')")
_BY_OID_OR_NAME: Final = f"""
SELECT coalesce(pg_catalog.json_agg(pg_catalog.json_build_array(
  b.of::pg_catalog.int8, b.of_name, b.kind, b.is_list, b.is_compared, b.oid::pg_catalog.int8, b.name, b.schema)), '[]')::text
FROM ({base_types_sql("t.oid = ANY ($1::pg_catalog.oid[]) OR t.typname = ANY ($2::text[])")}) AS b
"""  # noqa: S608 - made of our own texts
_TYPES: Final = msgspec.json.Decoder(list[BaseType])


async def base_types(driver: Any, oids: Sequence[int]) -> list[BaseType]:
    """The bases of these types. Raises the driver's errors."""
    return [BaseType(*row.values()) for row in await driver.fetch(_BY_OID, list(oids))]


async def range_types(driver: Any) -> list[BaseType]:
    """Every range and multirange of the database. Raises the driver's errors."""
    return [BaseType(*row.values()) for row in await driver.fetch(_RANGES)]


class NamedTypes:
    """The bases of types of which some are known by name only."""

    def __init__(self, found: Sequence[BaseType]) -> None:
        self._by_oid = {each.of: each for each in found}
        self._by_name: dict[str, BaseType | None] = {}
        for each in found:
            known = self._by_name.setdefault(each.of_name, each)
            if known is not None and (known.kind, known.is_list) != (each.kind, each.is_list):
                self._by_name[each.of_name] = None

    @classmethod
    def looked_up(cls, session: Any, oids: Sequence[int], names: Sequence[str]) -> NamedTypes:
        """Ask on a session of the bulk path. Raises SessionError."""
        values = ["{" + ",".join(map(str, oids)) + "}", "{" + ",".join(map(_element, names)) + "}"]
        return cls(_TYPES.decode(session.row(_BY_OID_OR_NAME, values)[0]))

    def of(self, *, oid: int | None, name: str) -> BaseType | None:
        """The base of this type; None where there is no such type, or several of the name that differ."""
        return self._by_name.get(name) if oid is None else self._by_oid.get(oid)


def _element(name: str) -> str:
    return '"' + name.replace("\\", "\\\\").replace('"', '\\"') + '"'
