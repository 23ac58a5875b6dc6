"""How a lens differs from its table. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from lensway.api.shapes import DriftCode, DriftFinding
from lensway.bridges.contract import TableColumn, TableDescription
from lensway.catalog.names import article
from lensway.catalog.records import Lens
from lensway.query.fields import Field
from lensway.usecases.scaffolding import key_of


def drift(lens: Lens, table: TableDescription) -> list[DriftFinding]:
    """Everything in which the lens differs from its table: what is wrong first."""
    columns = {column.name: column for column in table.columns}
    by_column = {field.column: _find(field.column, columns, table) for field in lens.definition.fields.values()}
    found = [
        *(finding for field in lens.definition.fields.values() for finding in _field(field, by_column[field.column])),
        *_key(lens, table, by_column),
        *_new_columns(table, {column.name for column in by_column.values() if column is not None}),
    ]
    return sorted(found, key=lambda finding: finding.level != "error")


def _find(name: str, columns: Mapping[str, TableColumn], table: TableDescription) -> TableColumn | None:
    if name in columns or not table.folds_case:
        return columns.get(name)
    return next((column for column in columns.values() if column.name.lower() == name.lower()), None)


def _field(field: Field, column: TableColumn | None) -> Iterator[DriftFinding]:
    def wrong(code: DriftCode, message: str) -> DriftFinding:
        return DriftFinding(level="error", code=code, message=message, field=field.name, column=field.column)

    if column is None:
        yield wrong("column_missing", f"Column {field.column} does not exist. Remove the field, or correct its column")
        return
    if column.is_list != field.is_list:
        has, says = ("is", "is not") if column.is_list else ("is not", "is")
        yield wrong("list_differs", f"Column {column.name} {has} a list, and the field {says}. Correct list")
    elif not _fits(field, column):
        fitting = f"Fitting types: {', '.join(column.types)}" if column.types else "Remove the field"
        has, shows = column.database_type, article(field.type.value)
        yield wrong(
            "type_differs", f"Column {column.name} has the type {has}, which {shows} field cannot show. {fitting}"
        )
    if column.nullable and not field.nullable and not field.primary_key:
        yield wrong(
            "nullable", f"Column {column.name} can hold NULL, but the field declares that it cannot. Remove nullable"
        )


def _fits(field: Field, column: TableColumn) -> bool:
    """A column without a type of its own can still take one that a lens gives it: untyped ones of SQLite take each."""
    return field.type.value in column.types if column.types else column.type is not None


def _key(lens: Lens, table: TableDescription, by_column: Mapping[str, TableColumn | None]) -> Iterator[DriftFinding]:
    key = [by_column[field.column] for field in lens.definition.primary_key]
    present = [column for column in key if column is not None]
    if not key or len(present) < len(key):
        return
    names = {column.name for column in present}
    shown = ", ".join(column.name for column in present)
    uniques = [each for each in (key_of(table), *table.unique_keys) if each]
    if not any(set(each) <= names for each in uniques):
        if table.kind != "table" and not uniques:
            message = f"The database cannot say whether ({shown}) is unique in a {table.kind}"
            yield DriftFinding(level="note", code="key_unknown", message=message)
            return
        message = f"The key ({shown}) is not unique in the table. Set primaryKey on the fields of a unique key"
        yield DriftFinding(level="error", code="key_not_unique", message=message)
    for column in present:
        if column.nullable:
            message = f"Column {column.name} is part of the key and can hold NULL. Choose a key without NULLs"
            yield DriftFinding(level="error", code="key_nullable", message=message, column=column.name)


def _new_columns(table: TableDescription, used: set[str]) -> Iterator[DriftFinding]:
    for column in table.columns:
        if column.name not in used:
            fit = "no lens type fits" if column.type is None else f"{column.type} fits"
            message = f"Column {column.name} ({column.database_type or 'no declared type'}; {fit}) is not in the lens"
            yield DriftFinding(level="note", code="column_unused", message=message, column=column.name)
