"""PostgreSQL's catalog on keys: the primary key in its own order, the other unique keys, and foreign keys."""

from __future__ import annotations

from typing import Any, Final, TypedDict

from lensway.bridges.contract import ForeignKey
from lensway.query.table_names import written

_UNIQUE: Final = """
SELECT i.indisprimary AS is_primary, ARRAY(
    SELECT a.attname::text FROM unnest(i.indkey::int2[]) WITH ORDINALITY AS n (attnum, at)
    JOIN pg_catalog.pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = n.attnum
    WHERE n.at <= i.indnkeyatts ORDER BY n.at) AS columns
FROM pg_catalog.pg_index i JOIN pg_catalog.pg_class c ON c.oid = i.indexrelid
WHERE i.indrelid = $1 AND i.indisunique AND i.indisvalid AND i.indpred IS NULL AND i.indexprs IS NULL
  AND (i.indisprimary OR i.indimmediate)
ORDER BY i.indisprimary DESC, i.indnkeyatts, c.relname
"""
"""A key has only the columns that its index orders by, not the included ones. Deferrable keys are left out: within a transaction
they can be violated."""

_FOREIGN: Final = """
SELECT n.nspname::text AS schema, f.relname::text AS name,
  ARRAY(SELECT a.attname::text FROM unnest(k.conkey) WITH ORDINALITY AS u (attnum, at)
    JOIN pg_catalog.pg_attribute a ON a.attrelid = k.conrelid AND a.attnum = u.attnum ORDER BY u.at) AS columns,
  ARRAY(SELECT a.attname::text FROM unnest(k.confkey) WITH ORDINALITY AS u (attnum, at)
    JOIN pg_catalog.pg_attribute a ON a.attrelid = k.confrelid AND a.attnum = u.attnum ORDER BY u.at) AS referenced
FROM pg_catalog.pg_constraint k
JOIN pg_catalog.pg_class f ON f.oid = k.confrelid
JOIN pg_catalog.pg_namespace n ON n.oid = f.relnamespace
WHERE k.conrelid = $1 AND k.contype = 'f' AND NOT EXISTS (
  SELECT FROM pg_catalog.pg_constraint p WHERE p.oid = k.conparentid AND p.conrelid = k.conrelid)
ORDER BY k.conname
"""
"""A key that refers to a partitioned table has one more row for each partition of it; only the first is the declared one."""


class Constraints(TypedDict):
    """The keys of one table, as members of its description."""

    key: tuple[str, ...]
    unique_keys: tuple[tuple[str, ...], ...]
    foreign_keys: tuple[ForeignKey, ...]


async def read_constraints(driver: Any, table: int) -> Constraints:
    """The keys of the table with this object id. Raises the driver's errors."""
    indexes = await driver.fetch(_UNIQUE, table)
    foreign = await driver.fetch(_FOREIGN, table)
    return Constraints(
        key=next((tuple(row["columns"]) for row in indexes if row["is_primary"]), ()),
        unique_keys=tuple(dict.fromkeys(tuple(row["columns"]) for row in indexes if not row["is_primary"])),
        foreign_keys=tuple(
            ForeignKey(
                columns=tuple(row["columns"]),
                table=written(row["schema"], row["name"]),
                references=tuple(row["referenced"]),
            )
            for row in foreign
        ),
    )
