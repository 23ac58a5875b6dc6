"""From described tables to declarations of lenses. Pure: what a scaffold says depends on the tables and the present lenses only.

What people have decided in a present lens of a table stays: its name, the names of its fields, grants, limits, relations, and
types that still fit. So the scaffold of lenses that were pushed differs from them only where the tables do.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Final

from lensway.bridges.contract import ForeignKey, TableColumn, TableDescription
from lensway.catalog.definitions import lens_document, read_lens
from lensway.catalog.records import Lens
from lensway.errors import LenswayError
from lensway.query.fields import FieldType
from lensway.usecases.scaffold_names import field_names, relation_name, way_back_name

_WITHOUT_ORDER: Final = frozenset({FieldType.JSON.value})
_PROBE: Final = {"source": "probe", "table": "probe"}


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Note:
    """Something that people should know of a table: what was left out of its lens, and why."""

    table: str
    reason: str
    column: str | None = None


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Scaffold:
    """Declarations of lenses by name, and what people should know of them.

    ``relations`` are the foreign keys, by lens and by a name for the relation. The declarations leave them out.
    """

    lenses: Mapping[str, Mapping[str, Any]]
    relations: Mapping[str, Mapping[str, Any]]
    notes: Sequence[Note]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Related:
    """What relations need to know of a lens that exists already."""

    lens: str
    fields: Mapping[str, str]
    """Its fields by column."""


def key_of(table: TableDescription) -> tuple[str, ...]:
    """The columns of the primary key in its own order; in the order of the table where only that is known."""
    return tuple(table.key) or tuple(column.name for column in table.columns if column.primary_key)


def scaffold(
    source: str,
    tables: Sequence[TableDescription],
    names: Mapping[str, str],
    present: Mapping[str, Lens],
    others: Mapping[str, Lens],
) -> Scaffold:
    """The declarations for these tables.

    Args:
        source: The name of their source.
        tables: The tables to declare.
        names: The name of the lens of each table.
        present: The lenses of these names that exist, by table.
        others: Lenses of this source that exist, by table: relations can lead to them.
    """
    notes: list[Note] = []
    drafts = [_Draft(source, table, names[table.name], present.get(table.name), notes) for table in tables]
    drafts = [draft for draft in drafts if draft.is_declared]
    known = {table: Related(lens=lens.name, fields=_by_column(lens)) for table, lens in others.items()}
    known |= {draft.table.name: Related(lens=draft.lens, fields=draft.fields) for draft in drafts}
    by_table = {draft.table.name: draft for draft in drafts}
    for draft in drafts:
        for key in draft.table.foreign_keys:
            draft.refer(key, known.get(key.table))
    for draft in drafts:
        for key in draft.table.foreign_keys:
            if key.table in by_table:
                by_table[key.table].be_referred(key, draft)
    lenses: dict[str, Mapping[str, Any]] = {}
    for draft in sorted(drafts, key=lambda each: each.lens):
        document = draft.document()
        if (reason := _refusal(draft.lens, document)) is None:
            lenses[draft.lens] = document
        else:
            notes.append(Note(table=draft.table.name, reason=f"left out: {reason}"))
    relations = {draft.lens: draft.relations for draft in drafts if draft.relations and draft.lens in lenses}
    return Scaffold(lenses=lenses, relations=relations, notes=notes)


class _Draft:
    """One lens in the making."""

    def __init__(
        self, source: str, table: TableDescription, lens: str, present: Lens | None, notes: list[Note]
    ) -> None:
        self.table, self.lens, self._notes, self._source = table, lens, notes, source
        self._present: Mapping[str, Any] | None = None if present is None else lens_document(present, source=source)
        old = {} if present is None else {field.column: field for field in present.definition.fields.values()}
        columns = {column.name: column for column in table.columns if self._can_be_declared(column)}
        if not columns:
            self._note("left out: no column can be declared")
        names = field_names(list(columns), {column: field.name for column, field in old.items()})
        declared_key = [field.column for field in present.definition.primary_key] if present is not None else []
        key = self._choose_key(columns, declared_key) if columns else ()
        order = [*(column for column in old if column in columns), *(column for column in columns if column not in old)]
        if not old:
            order = _with_key_in_order(order, key)
        self.fields = {column: names[column] for column in order}
        kept_types = {column: field.type.value for column, field in old.items()}
        self._documents = {
            names[column]: _field_document(columns[column], names[column], kept_types.get(column), is_key=column in key)
            for column in order
        }
        self._kept: dict[str, Any] = self._kept_relations()
        self.relations: dict[str, Any] = {}

    @property
    def is_declared(self) -> bool:
        """False when no field is left."""
        return bool(self._documents)

    def refer(self, key: ForeignKey, target: Related | None) -> None:
        """Note a foreign key of this table as a relation, or say why not."""
        said = f"foreign key ({', '.join(key.columns)}) to {key.table} ({', '.join(key.references)})"
        if target is None:
            self._note(f"{said}: no lens of that table is declared")
        elif not all(column in self.fields for column in key.columns):
            self._note(f"{said}: a column of it was left out")
        elif not all(column in target.fields for column in key.references):
            self._note(f"{said}: lens {target.lens} lacks a column of it")
        else:
            own = [self.fields[column] for column in key.columns]
            on = {mine: target.fields[other] for mine, other in zip(own, key.references, strict=True)}
            name = relation_name(own, target.lens, {*self._documents, *self._kept, *self.relations})
            self._relate(name, {"lens": target.lens, "kind": "one", "on": on})

    def be_referred(self, key: ForeignKey, other: _Draft) -> None:
        """Note the way back of another table's foreign key to this one."""
        if not all(column in self.fields for column in key.references):
            return
        if not all(column in other.fields for column in key.columns):
            return
        pairs = zip(key.references, key.columns, strict=True)
        on = {self.fields[mine]: other.fields[theirs] for mine, theirs in pairs}
        unique = (key_of(other.table), *other.table.unique_keys)
        is_one = any(names and set(names) <= set(key.columns) for names in unique)
        kind = "one" if is_one else "many"
        name = way_back_name(
            [other.fields[column] for column in key.columns],
            other.lens,
            {*self._documents, *self._kept, *self.relations},
        )
        self._relate(name, {"lens": other.lens, "kind": kind, "on": on})

    def document(self) -> dict[str, Any]:
        """The declaration."""
        present = self._present or {}
        document: dict[str, Any] = {"source": self._source, "table": present.get("table", self.table.name)}
        document["grants"] = present.get("grants", {"query": "none"})
        document |= {part: present[part] for part in ("limits", "retry") if part in present}
        document["fields"] = self._documents
        if self._kept:
            document["relations"] = self._kept
        return document

    def _relate(self, name: str, relation: dict[str, Any]) -> None:
        others = (*self._kept.values(), *self.relations.values())
        if not any(each["lens"] == relation["lens"] and each["on"] == relation["on"] for each in others):
            self.relations[name] = relation

    def _kept_relations(self) -> dict[str, Any]:
        kept: dict[str, Any] = {}
        relations: Mapping[str, Any] = (self._present or {}).get("relations") or {}
        for name, relation in relations.items():
            if name not in self._documents and all(own in self._documents for own in relation["on"]):
                kept[name] = relation
            else:
                self._note(f"relation {name} was left out: one of its fields no longer exists")
        return kept

    def _choose_key(self, columns: Mapping[str, TableColumn], declared: Sequence[str]) -> tuple[str, ...]:
        primary = key_of(self.table)
        if primary and (reason := _why_no_key(primary, columns)) is None:
            return primary
        strict = [
            tuple(names)
            for names in self.table.unique_keys
            if _why_no_key(names, columns) is None and not any(columns[name].nullable for name in names)
        ]
        if declared and all(name in columns for name in declared):
            return tuple(declared)
        if strict:
            self._note(f"no primary key that a lens can use: the unique key ({', '.join(strict[0])}) replaces it")
            return strict[0]
        if primary:
            self._note(f"no primary key: {reason}. Pages have no cursor")
        else:
            self._note(
                f"no primary key: this {self.table.kind} has none, and pages have no cursor."
                " Set primaryKey on the fields that identify a row"
            )
        return ()

    def _can_be_declared(self, column: TableColumn) -> bool:
        if column.type is None:
            shown = column.database_type or "(none declared)"
            why = "" if column.reason is None else f". {column.reason}"
            self._note(f"left out: no lens type fits its type {shown}{why}", column=column.name)
            return False
        field = {"type": column.type, "column": column.name}
        reason = _refusal("probe", {**_PROBE, "fields": {"probe": field}})
        if reason is not None:
            self._note(f"left out: {reason.removeprefix('fields.probe.')}", column=column.name)
        return reason is None

    def _note(self, reason: str, *, column: str | None = None) -> None:
        self._notes.append(Note(table=self.table.name, column=column, reason=reason))


def _refusal(name: str, document: Mapping[str, Any]) -> str | None:
    """Why this lens cannot be declared, or None."""
    try:
        read_lens(name, document)
    except LenswayError as error:
        return error.failure.message
    return None


def _why_no_key(names: Sequence[str], columns: Mapping[str, TableColumn]) -> str | None:
    """Why these columns cannot be the key of a lens, or None."""
    for name in names:
        if name not in columns:
            return f"column {name} was left out"
        if columns[name].is_list or columns[name].type in _WITHOUT_ORDER:
            return f"column {name} has no order"
    return None


def _with_key_in_order(columns: Sequence[str], key: Sequence[str]) -> list[str]:
    """The columns; those of the key change places among themselves, so that they stand in the key's order."""
    ordered = iter(key)
    return [next(ordered) if column in key else column for column in columns]


def _field_document(column: TableColumn, name: str, kept: str | None, *, is_key: bool) -> dict[str, Any]:
    document: dict[str, Any] = {"type": kept if kept is not None and kept in column.types else column.type}
    if column.name != name:
        document["column"] = column.name
    if is_key:
        document["primaryKey"] = True
    elif not column.nullable:
        document["nullable"] = False
    if column.is_list:
        document["list"] = True
    return document


def _by_column(lens: Lens) -> dict[str, str]:
    return {field.column: field.name for field in lens.definition.fields.values()}
