"""After a statement failed: what the catalog says about the reason. The server names most objects only in its text, which this
module does not read; the catalog names the missing column, the privilege, or the enum that lacks a value.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from lensway.bridges.kit.failures import TABLE_HINT
from lensway.bridges.postgres import errors
from lensway.bridges.postgres.types import base_types_sql
from lensway.bridges.postgres.values import NOT_COMPARED
from lensway.dialects.compile import Compiled
from lensway.errors import ErrorCode, Failure, LenswayError
from lensway.query.conditions import And, Compare, Node, Not, Operator, Or, columns_of
from lensway.query.fields import PlanColumn
from lensway.query.plan import Plan, Shape
from lensway.query.table_names import written

_EXPLAINED: Final = frozenset(
    {"undefined_column", "undefined_table", "permission_denied", "not_ready", "invalid_value", "undefined_object"}
    | {"type_mismatch"}
    | {"division_by_zero", "out_of_range", "raised", "function_failed", "cardinality", "foreign_server", "invalid_text"}
)
_LABELS_MAX: Final = 20
_FACTS: Final = """
SELECT c.relkind::text AS kind, c.relispopulated AS is_populated,
  pg_catalog.has_schema_privilege(c.relnamespace, 'USAGE') AS has_schema,
  pg_catalog.has_table_privilege(c.oid, 'SELECT') AS has_table,
  ARRAY(SELECT a.attname::text FROM pg_catalog.pg_attribute a
    WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped) AS columns,
  ARRAY(SELECT a.attname::text FROM pg_catalog.pg_attribute a
    WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
      AND NOT pg_catalog.has_column_privilege(c.oid, a.attnum, 'SELECT')) AS hidden,
  ARRAY(SELECT DISTINCT p.oid::pg_catalog.regprocedure::text
    FROM pg_catalog.pg_rewrite r
    JOIN pg_catalog.pg_depend d ON d.classid = 'pg_catalog.pg_rewrite'::pg_catalog.regclass AND d.objid = r.oid
      AND d.refclassid = 'pg_catalog.pg_proc'::pg_catalog.regclass
    JOIN pg_catalog.pg_proc p ON p.oid = d.refobjid
    WHERE r.ev_class = c.oid AND NOT pg_catalog.has_function_privilege(p.oid, 'EXECUTE')) AS functions
FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE c.relname = $2 AND CASE WHEN $1::text IS NULL THEN pg_catalog.pg_table_is_visible(c.oid) ELSE n.nspname = $1 END
"""
_ALIKE: Final = """
SELECT n.nspname::text AS schema, c.relname::text AS name
FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'v', 'm', 'f', 'p')
  AND (pg_catalog.lower(c.relname) = pg_catalog.lower($2)
    OR pg_catalog.lower(c.relname) = pg_catalog.lower($1)
    OR pg_catalog.lower(n.nspname || '.' || c.relname) = pg_catalog.lower($1))
  AND pg_catalog.has_schema_privilege(n.oid, 'USAGE') AND pg_catalog.has_any_column_privilege(c.oid, 'SELECT')
ORDER BY pg_catalog.lower(n.nspname || '.' || c.relname) = pg_catalog.lower($1) DESC, 1, 2 LIMIT 2
"""
_LABELS: Final = """
SELECT a.attname::text AS name, pg_catalog.array_agg(e.enumlabel::text ORDER BY e.enumsortorder) AS labels
FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid
CROSS JOIN LATERAL (
  WITH RECURSIVE base(oid, next) AS (
    SELECT d.oid, d.typbasetype FROM pg_catalog.pg_type d WHERE d.oid = a.atttypid
    UNION ALL SELECT d.oid, d.typbasetype FROM base JOIN pg_catalog.pg_type d ON d.oid = base.next
  ) SELECT base.oid FROM base WHERE base.next = 0
) base
JOIN pg_catalog.pg_enum e ON e.enumtypid = base.oid
WHERE c.relname = $2 AND CASE WHEN $1::text IS NULL THEN pg_catalog.pg_table_is_visible(c.oid) ELSE n.nspname = $1 END
  AND a.attname = ANY ($3::text[])
GROUP BY a.attname
"""
_KINDS: Final = f"""
SELECT a.attname::text AS column, b.kind, b.is_compared, b.name
FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid
CROSS JOIN LATERAL ({base_types_sql("t.oid = a.atttypid")}) AS b
WHERE c.relname = $2 AND CASE WHEN $1::text IS NULL THEN pg_catalog.pg_table_is_visible(c.oid) ELSE n.nspname = $1 END
  AND a.attname = ANY ($3::text[]) AND NOT b.is_list
"""  # noqa: S608 - made of our own texts
_EXACT: Final = frozenset(
    {Operator.EQ, Operator.NE, Operator.GT, Operator.GTE, Operator.LT, Operator.LTE, Operator.IN, Operator.NIN}
)


def is_explained(error: LenswayError) -> bool:
    """True when `explained` may say more about this failure of a statement."""
    details = error.failure.details
    return (
        error.failure.code is ErrorCode.SOURCE_QUERY_FAILED
        and "sqlstate" in details
        and details.get("class") in _EXPLAINED
    )


async def explained(driver: Any, failure: Failure, shape: Shape, plan: Plan) -> LenswayError:
    """The failure with the object that it is about. Raises the driver's errors."""
    row = await driver.fetchrow(_FACTS, shape.table.schema, shape.table.name)
    match failure.details.get("class"):
        case "undefined_column":
            return _of_column(failure, shape, row)
        case "undefined_table":
            return await _of_table(driver, failure, shape, row)
        case "permission_denied":
            return _of_privilege(failure, shape, row)
        case "not_ready" if row is not None and not row["is_populated"]:
            return _changed(
                failure,
                f"The materialized view {shape.table} was never populated",
                hint=f"Run REFRESH MATERIALIZED VIEW {shape.table}.",
                table=str(shape.table),
            )
        case "type_mismatch":
            return await _of_comparison(driver, failure, shape)
        case "invalid_value":
            return await _of_value(driver, failure, shape, plan)
        case _:
            return _named(failure, shape)


async def undecodable_field(driver: Any, *, compiled: Compiled, plan: Plan) -> str | None:
    """The first field with a value that cannot be decoded; of a result without limit only one whose type cannot be.

    Raises:
        The driver's errors.
    """
    names = ", ".join(f"c{number}" for number in range(len(compiled.columns)))
    for number, column in enumerate(compiled.columns[: compiled.output_count]):
        sql = f"SELECT q.c{number} FROM ({compiled.sql}) AS q({names})"  # noqa: S608 - made of our own texts
        try:
            statement = await driver.prepare(sql, name="")
            if plan.limit is not None:
                await statement.fetch(*compiled.bind(plan))
        except (*errors.DRIVER_ERRORS, *errors.DECODING_ERRORS) as error:
            if driver.is_closed() or (isinstance(error, errors.DRIVER_ERRORS) and not errors.is_undecodable(error)):
                raise
            return column.name
    return None


def _of_column(failure: Failure, shape: Shape, row: Mapping[str, Any] | None) -> LenswayError:
    known = set() if row is None else set(row["columns"])
    gone = [column for column in _columns(shape) if column.column not in known]
    if row is None or not gone:
        return _within(failure, shape, "a column that does not exist")
    names = ", ".join(f"'{column.column}' (field '{column.name}')" for column in gone)
    return _changed(
        failure,
        f"Table {shape.table} has no column {names}",
        hint=f"It was renamed or dropped. Correct `column` in lens '{shape.lens}', or leave the field out with `select`.",
        table=str(shape.table),
        column=gone[0].column,
        field=gone[0].name,
    )


async def _of_table(driver: Any, failure: Failure, shape: Shape, row: Mapping[str, Any] | None) -> LenswayError:
    if row is not None:
        return _within(failure, shape, "a table that does not exist")
    found = await driver.fetch(_ALIKE, ".".join(filter(None, (shape.table.schema, shape.table.name))), shape.table.name)
    names = [written(each["schema"], each["name"]) for each in found]
    meant = f"Did you mean {' or '.join(names)}? " if names else ""
    return _changed(
        failure,
        f"Table {shape.table} of lens '{shape.lens}' does not exist",
        hint=meant + TABLE_HINT,
        table=str(shape.table),
    )


def _of_privilege(failure: Failure, shape: Shape, row: Mapping[str, Any] | None) -> LenswayError:
    table = str(shape.table)
    if row is None:
        return _named(failure, shape)
    if not row["has_schema"]:
        message, hint = (
            f"The source's login may not use the schema of table {table}",
            "GRANT USAGE on the schema to the login.",
        )
    elif hidden := [column.column for column in _columns(shape) if column.column in row["hidden"]]:
        if row["has_table"] or len(hidden) < len(_columns(shape)):
            message = f"The source's login may not read column {', '.join(hidden)} of table {table}"
            hint = "GRANT SELECT on the column to the login, or leave the field out with `select`."
        else:
            message, hint = f"The source's login may not read table {table}", f"GRANT SELECT ON {table} to it."
    elif row["functions"]:
        function = row["functions"][0]
        return _changed(
            failure,
            f"The source's login may not execute function {function}, which view {table} calls",
            hint=f"GRANT EXECUTE ON FUNCTION {function} to it.",
            table=table,
            function=function,
        )
    else:
        return _within(failure, shape, "an object that the source's login, or the owner of the view, may not use")
    return _changed(failure, message, hint=hint, table=table)


async def _of_value(driver: Any, failure: Failure, shape: Shape, plan: Plan) -> LenswayError:
    if not plan.params:
        return _changed(
            failure,
            f"A value in {shape.table} is not valid for the type that it is converted to",
            hint="Correct the value in the database, or the expression of the view.",
            table=str(shape.table),
        )
    asked = list(_compared(shape.where))
    names = list({compare.column.column for compare in asked})
    labels = {
        row["name"]: row["labels"] for row in await driver.fetch(_LABELS, shape.table.schema, shape.table.name, names)
    }
    for compare in asked:
        known = labels.get(compare.column.column)
        if known is not None and not _are_known(plan.params[compare.param], known):
            shown = ", ".join(known[:_LABELS_MAX]) + (", …" if len(known) > _LABELS_MAX else "")
            return _changed(
                failure,
                f"The field '{compare.column.name}' is compared with a value that its enum does not have",
                hint=f"Allowed values: {shown}.",
                field=compare.column.name,
            )
    return _named(failure, shape)


async def _of_comparison(driver: Any, failure: Failure, shape: Shape) -> LenswayError:
    asked = {each.column.column: each.column for each in _compared(shape.where)}
    asked |= {term.column.column: term.column for term in shape.order}
    table = shape.table
    for row in await driver.fetch(_KINDS, table.schema, table.name, list(asked)):
        if row["kind"] in NOT_COMPARED or not row["is_compared"]:
            field = asked[row["column"]].name
            return _changed(
                failure,
                f"The field '{field}' cannot be filtered or ordered: PostgreSQL cannot compare values of type {row['name']}",
                hint="Cast the column in a view (`column::text`), and declare a lens on the view. `$like`, `$contains` and "
                "`$exists` work on the column as it is.",
                field=field,
                dataType=row["name"],
            )
    return LenswayError(failure.code, failure.message, hint=failure.hint, details=failure.details)


def _within(failure: Failure, shape: Shape, what: str) -> LenswayError:
    """The lens and its table are right: the reason lies in what the table is made of."""
    return _changed(
        failure,
        f"{shape.table} uses {what}",
        hint="Correct the view, or the functions, policies and expressions that run when it is read.",
        table=str(shape.table),
    )


def _named(failure: Failure, shape: Shape) -> LenswayError:
    return _changed(failure, f"{failure.message}; reading {shape.table}", hint=failure.hint, table=str(shape.table))


def _changed(failure: Failure, message: str, *, hint: str | None, **facts: str) -> LenswayError:
    return LenswayError(
        failure.code,
        message,
        hint=hint,
        details={**facts, **failure.details},
        retry_after_seconds=failure.retry_after_seconds,
    )


def _are_known(value: object, labels: list[str]) -> bool:
    values = value if isinstance(value, list | tuple) else (value,)
    return all(each is None or each in labels for each in values)


def _columns(shape: Shape) -> list[PlanColumn]:
    """Every column that the plan names, once."""
    found = [*shape.output, *shape.keys, *(term.column for term in shape.order), *columns_of(shape.where)]
    return list({column.column: column for column in found}.values())


def _compared(node: Node | None) -> Iterator[Compare]:
    match node:
        case And(items=items) | Or(items=items):
            for item in items:
                yield from _compared(item)
        case Not(item=item):
            yield from _compared(item)
        case Compare(operator=operator) if operator in _EXACT:
            yield node
        case _:
            return
