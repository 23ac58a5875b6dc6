"""What a statement may do on a connection to SQLite: read tables, views and virtual tables, and call functions that only compute.

Everything else is refused by an authorizer, the second belt behind the file's own mode. A virtual table is the odd one: when its
module connects, it prepares statements that look like writes. So modules connect before the authorizer stands, and again when the
schema has changed.
"""

from __future__ import annotations

import functools
import sqlite3
import time
from typing import Final

from lensway.bridges.sqlite.keys import PRAGMAS
from lensway.dialects.sqlite_functions import FUNCTIONS
from lensway.dialects.sqlite_patterns import ILIKE, LIKE, NAMES, matches

_READING: Final = frozenset({sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_RECURSIVE})
_WRITING: Final = frozenset({sqlite3.SQLITE_INSERT, sqlite3.SQLITE_UPDATE, sqlite3.SQLITE_DELETE})
_PRAGMAS_READ: Final = frozenset({"data_version", "page_size"})
"""Full-text modules ask for these; with a value they would set something."""
_EPONYMOUS: Final = ("json_each('[1]')", "json_tree('[1]')")

# https://www.sqlite.org/lang_corefunc.html and its neighbours. Left out is what loads code, reads or writes beyond the database,
# tells of this connection instead of the data, or gives another value each time, so that no page could follow another.
_CORE: Final = """
    abs char coalesce concat concat_ws format glob hex if ifnull iif instr length like likelihood likely lower ltrim
    max min nullif octet_length printf quote replace round rtrim sign soundex substr substring trim typeof unhex
    unicode unistr unistr_quote unlikely upper zeroblob
"""
_AGGREGATE: Final = """
    avg count cume_dist dense_rank first_value group_concat lag last_value lead median nth_value ntile percent_rank
    percentile percentile_cont percentile_disc rank row_number string_agg sum total
"""
_DATES: Final = """
    current_date current_time current_timestamp date datetime julianday strftime time timediff unixepoch
"""
_MATHS: Final = """
    acos acosh asin asinh atan atan2 atanh ceil ceiling cos cosh degrees exp floor ln log log10 log2 mod pi pow
    power radians sin sinh sqrt tan tanh trunc
"""
_JSON: Final = """
    -> ->> json json_array json_array_insert json_array_length json_each json_error_position json_extract
    json_group_array json_group_object json_insert json_object json_patch json_pretty json_quote json_remove
    json_replace json_set json_tree json_type json_valid jsonb jsonb_array jsonb_array_insert jsonb_each
    jsonb_extract jsonb_group_array jsonb_group_object jsonb_insert jsonb_object jsonb_patch jsonb_remove
    jsonb_replace jsonb_set jsonb_tree subtype
"""
_FULL_TEXT: Final = """
    bm25 highlight match matchinfo offsets snippet
"""
_FUNCTIONS: Final = frozenset(f"{_CORE} {_AGGREGATE} {_DATES} {_MATHS} {_JSON} {_FULL_TEXT}".split()) | frozenset(
    (*FUNCTIONS, *NAMES)
)


class GuardedConnection(sqlite3.Connection):
    """A connection whose statements only read. `guard` it before it is used."""

    _refused: str | None = None
    _has_refused_writing = False
    _is_ending = False
    _deadline = float("inf")

    def limit_time(self, deadline: float, steps_per_check: int) -> None:
        """End what runs from now on at this monotonic time."""
        self._deadline = deadline
        self._is_ending = False
        self.set_progress_handler(lambda: time.monotonic() > deadline, steps_per_check)

    def interrupt(self) -> None:
        """End the statement that runs, and the function that it runs in. From any thread."""
        self._is_ending = True
        super().interrupt()

    def add_functions(self) -> None:
        """Register what the dialect calls. Raises sqlite3.Error."""
        for name, function in FUNCTIONS.items():
            self.create_function(name, 1, function, deterministic=True)
        for name in (LIKE, ILIKE):
            self.create_function(name, 2, functools.partial(self._matches, name == ILIKE), deterministic=True)

    def guard(self) -> None:
        """Let the modules of virtual tables connect, then refuse everything but reading. Raises sqlite3.Error."""
        self.set_authorizer(None)
        for table in (*_EPONYMOUS, *self._virtual_tables()):
            try:
                self.execute(f"SELECT 1 FROM {table} LIMIT 0").fetchall()  # noqa: S608 - quoted, and of our own
            except sqlite3.OperationalError as error:
                if getattr(error, "sqlite_errorcode", None) != sqlite3.SQLITE_ERROR:
                    raise
                # A module that is not here; queries on that table are told so.
        self.set_authorizer(self._authorize)

    def forget_refusals(self) -> None:
        """A new statement begins."""
        self._refused = None
        self._has_refused_writing = False

    @property
    def refused_function(self) -> str | None:
        """The function that a view of this statement calls and must not."""
        return self._refused

    @property
    def has_refused_writing(self) -> bool:
        """True when something looked like a write: a module that connects anew, because the schema has changed."""
        return self._has_refused_writing

    def _matches(self, folds_case: bool, pattern: str | None, stored: bytes | None) -> bool | None:
        if pattern is None or stored is None:
            return None
        found = matches(pattern, stored, folds_case=folds_case, must_end=self._must_end)
        if found is None:
            # The statement ends as one that was interrupted, not as one whose function failed.
            self.interrupt()
        return found

    def _must_end(self) -> bool:
        return self._is_ending or time.monotonic() > self._deadline

    def _virtual_tables(self) -> list[str]:
        found = self.execute(
            "SELECT name FROM sqlite_master WHERE type = 'table' AND sql LIKE 'CREATE VIRTUAL TABLE%'"
        ).fetchall()
        return ['"' + name.replace('"', '""') + '"' for (name,) in found]

    def _authorize(
        self, action: int, first: str | None, second: str | None, _database: str | None, _trigger: str | None
    ) -> int:
        if action in _READING:
            return sqlite3.SQLITE_OK
        if action == sqlite3.SQLITE_FUNCTION:
            if (second or "").lower() in _FUNCTIONS:
                return sqlite3.SQLITE_OK
            self._refused = second
        elif action == sqlite3.SQLITE_PRAGMA:
            name = (first or "").lower()
            if name in PRAGMAS or (name in _PRAGMAS_READ and second is None):
                return sqlite3.SQLITE_OK
        elif action in _WRITING:
            self._has_refused_writing = True
        return sqlite3.SQLITE_DENY
