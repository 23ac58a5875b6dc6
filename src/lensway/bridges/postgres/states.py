"""SQLSTATEs of PostgreSQL → code, class, meaning, what to do, and whether the same statement may succeed when repeated.

The reference page of errors is generated from this table.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Final

from lensway.bridges.kit.failures import TABLE_HINT
from lensway.errors import ErrorCode


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """What a SQLSTATE means to a caller."""

    cause: str
    message: str
    hint: str | None = None
    code: ErrorCode = ErrorCode.SOURCE_QUERY_FAILED
    is_repeatable: bool = False


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """The structured fields of an error of the server. ``is_fatal``: the server ended the connection with it."""

    sqlstate: str
    is_fatal: bool = False
    schema: str | None = None
    table: str | None = None
    column: str | None = None
    constraint: str | None = None
    data_type: str | None = None

    def facts(self) -> Mapping[str, str]:
        """The objects that the server named, as details carry them."""
        named = {
            "schema": self.schema,
            "table": self.table,
            "column": self.column,
            "constraint": self.constraint,
            "dataType": self.data_type,
        }
        return {name: value[:_NAME_CHARACTERS_MAX] for name, value in named.items() if value}

    def where(self) -> str:
        """The named objects in words, to stand behind a message; empty without any."""
        found = self.facts()
        table = ".".join(found[part] for part in ("schema", "table") if part in found) if "table" in found else ""
        words = [
            f"{word} {name}"
            for word, name in (
                ("column", found.get("column")),
                ("table", table),
                ("constraint", found.get("constraint")),
                ("type", found.get("dataType")),
            )
            if name
        ]
        return f" ({', '.join(words)})" if words else ""


_NAME_CHARACTERS_MAX: Final = 128
QUERY_CANCELED: Final = "57014"
_MISMATCH: Final = State(
    cause="type_mismatch",
    message="A field is declared with a type that its column does not have",
    hint="Correct `type` in the lens.",
)
_VALUE: Final = (
    "Correct the value in `where`. If `where` is correct, a view or a computed column reads such a value from the data."
)
_TABLE: Final = "Correct `table` in the lens. " + TABLE_HINT
_REPEAT: Final = "Repeat the request."
_REPEATED: Final = "The bridge repeats a page once if the lens allows it. " + _REPEAT

STATES: Final[Mapping[str, State]] = {
    "08000": State(
        cause="foreign_server",
        message="The database cannot reach a server that the table reads from",
        hint="Check the foreign server behind the table: its address, its network, and that it is running.",
    ),
    "0A000": State(
        cause="unsupported",
        message="The database does not support this operation on a column of this kind",
        hint="For example, a pattern on a column with a nondeterministic collation needs PostgreSQL 18.",
    ),
    # The driver itself refuses to send a value that its column's type does not have.
    "22000": State(
        cause="invalid_value", message="A value of the query does not fit the type of its column", hint=_VALUE
    ),
    "22003": State(cause="out_of_range", message="A number is out of the range of its type", hint=_VALUE),
    "22007": State(cause="invalid_value", message="A date or time does not exist", hint=_VALUE),
    "22008": State(cause="out_of_range", message="A date or time is out of the range of its type", hint=_VALUE),
    "22012": State(
        cause="division_by_zero",
        message="An expression of the view or table divides by zero",
        hint="Correct the view, for example with `NULLIF(divisor, 0)`, or exclude those rows with `where`.",
    ),
    "22021": State(
        cause="invalid_text",
        message="A text holds bytes that are not valid in the encoding of the database",
        hint="Correct the text in the database, or leave the field out with `select`.",
    ),
    "22P02": State(cause="invalid_value", message="A value is not valid for its type", hint=_VALUE),
    "22P05": State(
        cause="invalid_text",
        message="A text holds a character that UTF-8 has no equivalent for",
        hint="Correct the text in the database, or leave the field out with `select`.",
    ),
    "21000": State(
        cause="cardinality",
        message="A subquery of the view returns more than one row where one is expected",
        hint="Correct the view.",
    ),
    "25006": State(
        cause="read_only",
        message="The statement writes, but connections are read-only",
        hint="A function that the view calls writes. Use a view that only reads.",
    ),
    "3F000": State(
        cause="undefined_table",
        message="The schema of the lens does not exist",
        hint=_TABLE,
    ),
    "40001": State(
        cause="serialization_failure",
        message="The database ended the statement because it conflicted with another one, or with recovery on a standby",
        hint=_REPEATED + " On a standby, max_standby_streaming_delay and hot_standby_feedback make this rarer.",
        is_repeatable=True,
    ),
    "40P01": State(
        cause="deadlock_detected",
        message="The database ended the statement to resolve a deadlock",
        hint=_REPEATED,
        is_repeatable=True,
    ),
    "42501": State(
        cause="permission_denied",
        message="The source's login lacks a privilege that the statement needs",
        hint="GRANT SELECT on the table, USAGE on its schema, and EXECUTE on the functions that its view calls.",
    ),
    "42703": State(
        cause="undefined_column", message="A column of the lens does not exist", hint="Correct `column` in the lens."
    ),
    "42704": State(
        cause="undefined_object",
        message="The view uses an object that does not exist, such as a session setting or a type",
        hint="Lensway's sessions define no custom settings. Read one with `current_setting(name, true)`, or set it with "
        "`ALTER ROLE … SET`.",
    ),
    "42804": _MISMATCH,
    "42846": _MISMATCH,
    "42883": State(
        cause="type_mismatch",
        message="The column does not support this comparison: a field is declared with another type, or a function is missing",
        hint="Correct `type` in the lens, or restore the function that the view calls.",
    ),
    "42P01": State(
        cause="undefined_table",
        message="The table of the lens does not exist",
        hint=_TABLE,
    ),
    "55000": State(
        cause="not_ready",
        message="The table, or an object that it uses, cannot be read in its present state",
        hint="A materialized view must be populated first: REFRESH MATERIALIZED VIEW.",
    ),
    "55P03": State(
        cause="lock_not_available",
        message="The statement waited for a lock longer than the login's lock_timeout allows",
        hint=_REPEAT,
        is_repeatable=True,
    ),
    QUERY_CANCELED: State(
        cause="cancelled",
        message="An administrator of the database cancelled the statement",
        hint="The deadline had not passed, and Lensway did not end the statement. Ask the database's administrators why.",
        code=ErrorCode.CANCELLED,
    ),
    "57P01": State(
        cause="reset",
        message="The database ended the connection: an administrator's command, or a shutdown",
        hint=_REPEATED,
        code=ErrorCode.SOURCE_UNREACHABLE,
        is_repeatable=True,
    ),
    "P0001": State(
        cause="raised",
        message="A function that the view or table calls raised an error",
        hint="The database's log has the error text. Correct the function, or exclude those rows with `where`.",
    ),
    "XX000": State(
        cause="internal",
        message="The database reports an internal error of its own",
        hint="The database's log has the error text.",
    ),
}
"""What a SQLSTATE means. One that is not here means what its class means."""

_FOREIGN: Final = STATES["08000"]
_RESOURCES: Final = State(
    cause="resources",
    message="The database lacks the resources to run this statement now",
    hint="Repeat the request later, request less data, or raise the limits of the database (work_mem, temp_file_limit, disk).",
    code=ErrorCode.OVERLOADED,
    is_repeatable=True,
)
CLASSES: Final[Mapping[str, State]] = {
    "08": _FOREIGN,
    "HV": _FOREIGN,
    "22": State(cause="invalid_value", message="A value in the query or in the data is not valid", hint=_VALUE),
    "38": State(
        cause="function_failed",
        message="A function that the view or table calls failed",
        hint="The database's log has the error text. Correct the function.",
    ),
    "40": State(cause="rollback", message="The database rolled the transaction back", hint=_REPEAT, is_repeatable=True),
    "53": _RESOURCES,
    # The backend's own end comes as FATAL; inside a statement it is that of a foreign server.
    "57": _FOREIGN,
    "54": State(
        cause="too_complex",
        message="The statement exceeds a limit of the database",
        hint="Use fewer conditions in `where`, or simplify the view.",
    ),
    "58": State(
        cause="system",
        message="The database's operating system reported an error",
        hint="The database's log has the error text.",
    ),
    "P0": State(
        cause="raised",
        message="A function that the view or table calls raised an error",
        hint="The database's log has the error text. Correct the function.",
    ),
    "XX": State(
        cause="internal",
        message="The database reports an internal error or damaged data",
        hint="The database's log has the error text.",
    ),
}
"""What the first two characters mean."""


def meaning(sqlstate: str) -> State:
    """What this SQLSTATE of a failed statement means."""
    found = STATES.get(sqlstate) or CLASSES.get(sqlstate[:2])
    if found is not None:
        return found
    return State(
        cause=f"sqlstate_{sqlstate[:2]}",
        message=f"The database failed the statement with SQLSTATE {sqlstate}",
        hint="The database's log has the error text.",
    )
