"""Which relations are plain: tables whose reading runs nothing but PostgreSQL's own functions, so that it leaves nothing behind.

The dependency catalog tells: a table, its indexes, constraints and statistics depend on every function, operator and type that
is not PostgreSQL's own. A plain table is read by one statement without a transaction around it. The statement carries a guard
that compares the table with the one that was judged. Where it was replaced by a view, made one by a rule, or given row security
or columns of other types, the guard fails the statement, which undoes its effects. The guard does not see new indexes,
operators and children; the next judgement does, after `RELATION_KNOWN_SECONDS`.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Final

import msgspec

from lensway import limits
from lensway.dialects.compile import Compiled
from lensway.query.cache import BoundedCache
from lensway.query.fields import TableName

# Operators in the statements that plans become. Where the search path leads to it, a user's operator for PostgreSQL's own types
# wins over a less exact one of PostgreSQL's.
_OPERATORS: Final = "'=', '<>', '<', '<=', '>', '>=', '~~', '~~*', '!~~', '!~~*'"
_FIRST_OF_USERS: Final = 16384
"""Oids below are given by initdb: PostgreSQL's own objects."""

_LOOK: Final = f"""
SELECT c.oid::bigint AS oid, pg_catalog.pg_relation_filenode(c.oid)::bigint AS file,
  c.relkind IN ('r', 'm') AND NOT c.relrowsecurity AND NOT c.relhassubclass AND NOT EXISTS (
    SELECT FROM pg_catalog.pg_depend d
    WHERE (d.classid, d.objid) IN (
      SELECT 'pg_catalog.pg_class'::regclass::oid, c.oid
      UNION ALL SELECT 'pg_catalog.pg_class'::regclass, indexrelid FROM pg_catalog.pg_index WHERE indrelid = c.oid
      UNION ALL SELECT 'pg_catalog.pg_constraint'::regclass, k.oid FROM pg_catalog.pg_constraint k WHERE conrelid = c.oid
      UNION ALL SELECT 'pg_catalog.pg_statistic_ext'::regclass, s.oid FROM pg_catalog.pg_statistic_ext s WHERE stxrelid = c.oid
    ) AND d.refobjid >= {_FIRST_OF_USERS} AND CASE d.refclassid
      WHEN 'pg_catalog.pg_proc'::regclass THEN true
      WHEN 'pg_catalog.pg_operator'::regclass THEN true
      WHEN 'pg_catalog.pg_am'::regclass THEN true
      WHEN 'pg_catalog.pg_type'::regclass THEN NOT EXISTS (
        SELECT FROM pg_catalog.pg_type t LEFT JOIN pg_catalog.pg_type e ON e.oid = t.typelem
        WHERE t.oid = d.refobjid AND coalesce(e.typtype, t.typtype) = 'e')
      WHEN 'pg_catalog.pg_opclass'::regclass THEN NOT EXISTS (
        SELECT FROM pg_catalog.pg_depend x
        WHERE x.classid = d.refclassid AND x.objid = d.refobjid AND x.deptype = 'e')
      ELSE false END
  ) AND NOT EXISTS (
    SELECT FROM pg_catalog.pg_operator o
    WHERE o.oid >= {_FIRST_OF_USERS} AND o.oprname IN ({_OPERATORS})
      AND o.oprleft < {_FIRST_OF_USERS} AND o.oprright < {_FIRST_OF_USERS}
  ) AND NOT EXISTS (
    SELECT FROM pg_catalog.pg_cast a
    WHERE a.oid >= {_FIRST_OF_USERS} AND a.castsource < {_FIRST_OF_USERS} AND a.casttarget < {_FIRST_OF_USERS}
  ) AS is_plain
FROM pg_catalog.pg_class c WHERE c.oid = pg_catalog.to_regclass($1)
"""  # noqa: S608 - made of our own texts


class Relation(msgspec.Struct, frozen=True, kw_only=True):
    """A table as it was when it was judged plain."""

    name: str
    oid: int
    file: int
    """Of its rows; a view has none, and a table that is written anew has another."""

    def guarded(self, sql: str, *, has_offset: bool) -> str:
        """The statement, failing before its first row when the table is not the one that was judged.

        It fails with SQLSTATE 2201G (`width_bucket` without buckets), which nothing else in a statement on a plain table does.
        The guard is an offset of no rows, which is evaluated once, before anything is read. The name becomes a constant
        whenever PostgreSQL plans anew, which it does when anything about the table changes. Two cheap functions are left; to
        read the table's row in `pg_class` instead costs a point query a tenth.
        """
        name = "'" + self.name.replace("'", "''") + "'"
        is_same = (
            f"{name}::pg_catalog.regclass OPERATOR(pg_catalog.=) {self.oid}::pg_catalog.oid"
            f" AND pg_catalog.pg_relation_filenode({self.oid}) OPERATOR(pg_catalog.=) {self.file}::pg_catalog.oid"
            f" AND NOT pg_catalog.row_security_active({self.oid}::pg_catalog.oid)"
        )
        # Stable, so that it is not evaluated while planning.
        nothing = "pg_catalog.int4mul(0, pg_catalog.pg_backend_pid())"
        offset = f"CASE WHEN {is_same} THEN 0 ELSE pg_catalog.width_bucket(1::pg_catalog.float8, 0, 1, {nothing}) END"
        if has_offset:
            return f"SELECT lensway.* FROM ({sql}) AS lensway OFFSET {offset}"  # noqa: S608 - made of our own texts
        return f"{sql} OFFSET {offset}"


class Relations:
    """What was found out about the relations of one database."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._found: BoundedCache[TableName, tuple[Relation | None, float]] = BoundedCache(
            entries_max=limits.RELATIONS_KNOWN_MAX, bytes_max=limits.RELATIONS_KNOWN_BYTES_MAX
        )

    async def plain(self, driver: Any, compiled: Compiled) -> Relation | None:
        """The table that the statement reads, or None when it is not plain or not there. Raises the driver's errors."""
        key = compiled.shape.table
        now = self._clock()
        found = self._found.get(key)
        if found is not None and found[1] > now:
            return found[0]
        name = ".".join(_quoted(part) for part in (key.schema, key.name) if part is not None)
        row = await driver.fetchrow(_LOOK, name)
        is_plain = row is not None and row["is_plain"]
        relation = Relation(name=name, oid=row["oid"], file=row["file"]) if is_plain else None
        self._found.put(key, (relation, now + limits.RELATION_KNOWN_SECONDS), 2 * len(name) + 100)
        return relation

    def is_known(self, compiled: Compiled) -> bool:
        """True when `plain` needs not ask the database."""
        found = self._found.get(compiled.shape.table)
        return found is not None and found[1] > self._clock()

    def forget(self, compiled: Compiled) -> None:
        """Look again before the next statement is prepared: the table has changed."""
        self._found.put(compiled.shape.table, (None, 0.0), 1)


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
