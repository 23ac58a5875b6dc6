"""What PostgreSQL's catalog guarantees of a table, for pages by cursor: columns without NULLs, and keys that are unique.

A unique index makes an order total where it compares as the order does: with the collation of its columns, and with what their
types compare by. Tables with children in old style and foreign tables promise nothing for the rows that are read through them.
"""

from __future__ import annotations

from typing import Any, Final

import asyncpg
import msgspec
import structlog

from lensway import limits
from lensway.bridges.kit.orderings import EqualKeys
from lensway.bridges.postgres import errors
from lensway.query.ordering import ComparedAs, Comparison, TableFacts, has_unique_key
from lensway.query.plan import Shape

_log = structlog.get_logger("lensway.bridges")
_CANCELLED: Final = "57014"
_LOOKED_AT_ROWS: Final = 10_000
"""Rows of a view that a connection test looks at for equal keys."""
_LOOK_MS: Final = int(limits.KEY_LOOK_SECONDS * 1000 / 4)
_WITHOUT_INDEXES: Final = frozenset({"v", "f"})
"""Views and foreign tables: the catalog cannot know."""
_FACTS: Final = """
WITH r AS (
  SELECT c.oid, c.relkind NOT IN ('r', 'f') OR NOT (c.relhassubclass OR c.relkind = 'f') AND NOT EXISTS (
      SELECT FROM pg_catalog.pg_inherits h JOIN pg_catalog.pg_class f ON f.oid = h.inhrelid
      WHERE h.inhparent = c.oid AND f.relkind = 'f') AS is_kept
  FROM pg_catalog.pg_class c WHERE c.oid = pg_catalog.to_regclass($1)
), a AS (
  SELECT a.attname::text AS name, a.attnum, a.attcollation,
    coalesce(nullif(t.typbasetype, 0), t.oid) AS type,
    a.attnotnull AND NOT EXISTS (
      SELECT FROM pg_catalog.pg_constraint n
      WHERE n.conrelid = a.attrelid AND n.contype = 'n' AND NOT n.convalidated AND a.attnum = ANY (n.conkey)) AS required
  FROM r JOIN pg_catalog.pg_attribute a ON a.attrelid = r.oid JOIN pg_catalog.pg_type t ON t.oid = a.atttypid
  WHERE r.is_kept AND a.attnum > 0 AND NOT a.attisdropped
), k AS (
  SELECT e.*
  FROM r JOIN pg_catalog.pg_index i ON i.indrelid = r.oid CROSS JOIN LATERAL (
    SELECT array_agg(a.name) AS columns,
      bool_and(a.required) OR coalesce((pg_catalog.to_jsonb(i.*)->>'indnullsnotdistinct')::boolean, false) AS is_strict,
      bool_and(a.name IS NOT NULL AND n.collid = a.attcollation AND o.opcdefault AND (o.opcintype = a.type OR NOT EXISTS (
        SELECT FROM pg_catalog.pg_opclass d
        WHERE d.opcmethod = o.opcmethod AND d.opcdefault AND d.opcintype = a.type))) AS is_alike
    FROM unnest(i.indkey::int2[], i.indclass::oid[], i.indcollation::oid[])
      WITH ORDINALITY AS n (attnum, opclass, collid, at)
    LEFT JOIN a ON a.attnum = n.attnum
    LEFT JOIN pg_catalog.pg_opclass o ON o.oid = n.opclass
    WHERE n.at <= i.indnkeyatts
  ) AS e
  WHERE i.indisunique AND i.indisvalid AND i.indisready AND i.indpred IS NULL AND i.indexprs IS NULL
), c AS (
  SELECT a.attname::text AS name, t.typtype = 'b' AS is_name
  FROM pg_catalog.pg_attribute a
  JOIN pg_catalog.pg_type o ON o.oid = a.atttypid AND (o.typtype = 'd' OR o.oid = 'pg_catalog.name'::pg_catalog.regtype)
  CROSS JOIN LATERAL (
    WITH RECURSIVE base(oid, kind, next) AS (
      SELECT d.oid, d.typtype, d.typbasetype FROM pg_catalog.pg_type d WHERE d.oid = a.atttypid
      UNION ALL
      SELECT d.oid, d.typtype, d.typbasetype FROM base JOIN pg_catalog.pg_type d ON d.oid = base.next WHERE base.kind = 'd'
    ) SELECT base.oid FROM base WHERE base.kind <> 'd' AND (base.kind <> 'b' OR base.oid = 'pg_catalog.name'::pg_catalog.regtype)
  ) base
  JOIN pg_catalog.pg_type t ON t.oid = base.oid
  WHERE a.attrelid = pg_catalog.to_regclass($1) AND a.attnum > 0 AND NOT a.attisdropped
)
SELECT ARRAY(SELECT name FROM a WHERE required) AS required,
  ARRAY(SELECT pg_catalog.array_to_json(columns)::text FROM k WHERE is_alike AND is_strict) AS keys,
  ARRAY(SELECT name FROM c WHERE NOT is_name) AS domains, ARRAY(SELECT name FROM c WHERE is_name) AS names,
  (SELECT c.relkind::text FROM pg_catalog.pg_class c JOIN r USING (oid)) AS kind
"""
"""``domains`` are over enums and ranges, whose operators take no domain. A value that is compared with one of ``names`` stays
text: PostgreSQL would cut it to 63 bytes."""
_KEYS: Final = msgspec.json.Decoder(frozenset[str])


async def table_facts(driver: Any, shape: Shape) -> TableFacts:
    """What is guaranteed of the table of this shape: nothing of views, and of what the catalog does not answer for.

    Raises:
        The driver's errors, for a connection that is gone and a statement that was cancelled.
    """
    return (await _looked_up(driver, shape))[0]


async def _looked_up(driver: Any, shape: Shape) -> tuple[TableFacts, str | None]:
    """The facts, and what kind of relation it is."""
    try:
        row = await driver.fetchrow(_FACTS, _place(shape))
    except asyncpg.PostgresError as error:
        if errors.is_broken_connection(error) or error.sqlstate == _CANCELLED:
            raise
        # A server of another kind may have another catalog. Pages are right without it, and slower.
        _log.info("the catalog says nothing of keys", sqlstate=error.sqlstate)
        return TableFacts(), None
    unique = tuple(_KEYS.decode(columns) for columns in row["keys"])
    compared_as = (
        *(ComparedAs(name, Comparison.AS_BASE) for name in row["domains"]),
        *(ComparedAs(name, Comparison.WITH_TEXT) for name in row["names"]),
    )
    return TableFacts(not_null=frozenset(row["required"]), unique=unique, compared_as=compared_as), row["kind"]


async def find_equal_keys(driver: Any, shape: Shape) -> EqualKeys:
    """Whether the primary key of a lens may be shared by rows. The connection is the caller's alone, and its statement timeout
    is lowered. Raises the driver's errors."""
    facts, kind = await _looked_up(driver, shape)
    if kind is None or has_unique_key(shape, facts):
        return EqualKeys.NONE
    if kind not in _WITHOUT_INDEXES:
        return EqualKeys.POSSIBLE
    await driver.execute(f"SET statement_timeout = {_LOOK_MS}")
    try:
        return EqualKeys.SEEN if await _has_equal_keys(driver, shape) else EqualKeys.NONE
    except asyncpg.QueryCanceledError:
        return EqualKeys.NONE  # not seen in time; a page that meets them is refused


async def _has_equal_keys(driver: Any, shape: Shape) -> bool:
    names = ", ".join(f"{_quoted(column.column)} AS k{at}" for at, column in enumerate(shape.keys))
    keys = ", ".join(f"k{at}" for at in range(len(shape.keys)))
    sql = (
        f"SELECT 1 FROM (SELECT {names} FROM {_place(shape)} LIMIT {_LOOKED_AT_ROWS}) AS t"  # noqa: S608 - names are quoted
        f" GROUP BY {keys} HAVING count(*) > 1 LIMIT 1"
    )
    return await driver.fetchval(sql) is not None


def _place(shape: Shape) -> str:
    return ".".join(_quoted(part) for part in (shape.table.schema, shape.table.name) if part)


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
