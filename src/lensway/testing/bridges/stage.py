"""A stage is one real database of one kind: how the conformance suite starts it, fills it, watches it and makes it fail.

The module of a built-in kind's stage is `lensway.testing.bridges.<kind>`; its attribute `STAGE` is the class. Adding one touches
no other file. A package with a bridge of its own keeps its stage to itself and hands it to `BridgeSuite`.
"""

from __future__ import annotations

import abc
import dataclasses
import enum
import importlib
import importlib.util
import pathlib
import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Final

import psutil

from lensway import limits
from lensway.bridges.contract import Stage as TestStage
from lensway.dialects.registry import capabilities_of
from lensway.errors import ErrorCode
from lensway.kinds import BUILT_IN, Kind, Kinds
from lensway.query.capabilities import Capabilities
from lensway.query.fields import FieldType

FAILING: Final = "failing"
"""The table that the suite makes before it causes a failure."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """One column as a lens sees it; the stage chooses the type that its database has for it."""

    name: str
    type: FieldType
    is_list: bool = False
    nullable: bool = True
    primary_key: bool = False


@dataclasses.dataclass(frozen=True, slots=True)
class Stored:
    """A value as the database holds it: the column's type and a literal. ``arrow_type`` overrides that of the cell."""

    column_type: str
    literal: str
    arrow_type: str | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class OddColumn:
    """A column of odd values: the lens's type, the column's, and what makes a literal. ``is_list`` for a column of lists."""

    type: FieldType
    column_type: str
    literal: Callable[[random.Random], str]
    is_list: bool = False


class Situation(enum.StrEnum):
    """What can go wrong with a source. A stage makes each of them happen, or says in `Stage.lacks` why its database has none."""

    UNKNOWN_TABLE = "unknown table"
    UNKNOWN_COLUMN = "unknown column"
    WRONG_TYPE = "wrong type"
    NO_PERMISSION = "no permission"
    WRONG_LOGIN = "wrong login"
    NO_DATABASE = "no database"
    REFUSED = "refused"
    UNKNOWN_HOST = "unknown host"
    NOT_A_DATABASE = "not a database"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """What a caller is told in one situation, and how to bring it about.

    The suite makes the table `FAILING` (``id`` 1, ``note`` 'x') and asks for it: for another table, an unknown column, or with
    ``note`` as a timestamp in the first three situations.

    Attributes:
        code: The code of the error.
        cause: The class in its details.
        stage: The stage in its details, for a source that cannot be reached.
        config: Settings to open the source with, in place of the stage's own.
        statements: What the owner executes first.
    """

    code: ErrorCode
    cause: str
    stage: TestStage | None = None
    config: Mapping[str, object] | None = None
    statements: Sequence[str] = ()


class Stage(abc.ABC):
    """One database for one run of the suite. Its methods wait, so that they work beside a statement that runs.

    Attributes:
        kind: The declaration of the kind.
        title: The database's name in the docs.
        lacks: Situations that cannot happen here, each with the reason.
        types: The lens types that the bridge serves.
        skipped_stages: Stages of the connection test that do not apply to `config`.
        memory_bytes_max: What this process may hold while a result of 64 MiB passes through.
        notices_seconds: The time in which `is_connected` tells that a connection was closed; 0 for what this process sees itself.
        cells: The values of the table of types that this database has, by `Cell.key`.
        odd_columns: Columns of odd values, by name. Names that several stages share are of one type: ``words`` (text),
            ``big`` (integer), ``double``, ``exact``, ``flag``, ``moment``.
    """

    kind: ClassVar[Kind]
    title: ClassVar[str]
    lacks: ClassVar[Mapping[Situation, str]] = {}
    types: ClassVar[frozenset[FieldType]] = frozenset(FieldType)
    skipped_stages: ClassVar[frozenset[TestStage]] = frozenset()
    memory_bytes_max: ClassVar[int] = 32 * limits.MIB
    notices_seconds: ClassVar[float] = 1.0
    cells: ClassVar[Mapping[str, Stored]] = {}
    odd_columns: ClassVar[Mapping[str, OddColumn]] = {}

    @classmethod
    def capabilities(cls) -> Capabilities:
        """What databases of this kind can do."""
        return capabilities_of(cls.kind.name, BUILT_IN if cls.kind.name in _SERVED else Kinds((cls.kind,)))

    # --- life -----------------------------------------------------------------------------------------------------------------

    @abc.abstractmethod
    async def start(self, directory: pathlib.Path) -> None:
        """Start the database with its files in this empty directory."""

    @abc.abstractmethod
    async def stop(self) -> None:
        """Stop it."""

    @property
    @abc.abstractmethod
    def config(self) -> Mapping[str, object]:
        """The settings of a source that can read every table made here."""

    @property
    def writer_config(self) -> Mapping[str, object]:
        """The settings of a source whose login may write, so that only the bridge keeps it from writing."""
        return self.config

    # --- what stands in it ----------------------------------------------------------------------------------------------------

    @abc.abstractmethod
    async def execute(self, *statements: str) -> None:
        """Run statements as the owner. Each is committed when this returns."""

    @abc.abstractmethod
    async def fetch(self, statement: str) -> list[tuple[Any, ...]]:
        """The rows of one statement, asked as the owner and not through the bridge."""

    @abc.abstractmethod
    def column_type(self, column: Column) -> str:
        """The database's type for a column: one that holds every value of `query_model`."""

    @abc.abstractmethod
    def literal(self, value: object, column: Column) -> str:
        """The SQL literal for a value as callers write it (bytes in base64, moments as RFC 3339), or None."""

    async def create_table(self, name: str, columns: Sequence[Column], rows: Sequence[Sequence[object]]) -> None:
        """A table with these rows, which `config` may read. The columns with ``primary_key`` are its primary key."""
        lines = [
            f"{quoted(each.name)} {self.column_type(each)}{'' if each.nullable else ' NOT NULL'}" for each in columns
        ]
        key = [quoted(each.name) for each in columns if each.primary_key]
        if key:
            lines.append(f"PRIMARY KEY ({', '.join(key)})")
        statements = [f"CREATE TABLE {quoted(name)} ({', '.join(lines)})"]
        for at in range(0, len(rows), _ROWS_PER_INSERT):
            values = ", ".join(
                "(" + ", ".join(self.literal(value, column) for value, column in zip(row, columns, strict=True)) + ")"
                for row in rows[at : at + _ROWS_PER_INSERT]
            )
            statements.append(f"INSERT INTO {quoted(name)} VALUES {values}")
        await self.execute(*statements)

    @abc.abstractmethod
    async def create_series(self, name: str, rows: int, text_bytes: int) -> None:
        """A table with the columns ``id`` (integer, primary key, 1 to ``rows``) and ``note`` (``text_bytes`` times 'x')."""

    @abc.abstractmethod
    async def create_slow_view(self, name: str) -> None:
        """A view with an integer column ``id`` whose first row takes longer than 20 s."""

    async def create_writing_view(self, name: str) -> str | None:
        """A view with an integer column ``id`` that writes when it is read, and a statement that counts what it wrote.

        None where no query can write.
        """
        del name
        return None

    # --- what it shows --------------------------------------------------------------------------------------------------------

    @abc.abstractmethod
    async def is_executing(self) -> bool:
        """True while the database works on a statement of a source."""

    async def is_connected(self) -> bool:
        """True while a source holds a connection. For the file of a path source: while this process has it open."""
        path = pathlib.Path(str(self.config["path"])).resolve()
        return any(pathlib.Path(each.path) == path for each in psutil.Process().open_files())

    @abc.abstractmethod
    async def failure(self, situation: Situation) -> Failure:
        """How a situation that is not in `lacks` comes about, and what a caller is told."""

    def described_as(self, column: Column) -> str | None:
        """The lens type that introspection gives for `column_type`; None where no type fits."""
        return column.type.value

    def described_name(self, table: str) -> str:
        """The name under which introspection shows a table made here."""
        return table


_ROWS_PER_INSERT: Final = 200
_SERVED: Final = frozenset(kind.name for kind in BUILT_IN.served)


def quoted(name: str) -> str:
    """The name as a quoted SQL identifier."""
    return '"' + name.replace('"', '""') + '"'


def text_literal(text: str) -> str:
    """The text as a standard SQL literal."""
    return "'" + text.replace("'", "''") + "'"


def stage_classes() -> dict[str, type[Stage]]:
    """The stage of each built-in kind that has one, by the kind's name."""
    found: dict[str, type[Stage]] = {}
    for kind in BUILT_IN.served:
        name = f"lensway.testing.bridges.{kind.name}"
        if importlib.util.find_spec(name) is not None:
            found[kind.name] = importlib.import_module(name).STAGE
    return found
