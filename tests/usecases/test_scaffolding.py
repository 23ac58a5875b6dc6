"""What a scaffold declares and what a check finds, from described tables alone."""

from __future__ import annotations

import contextlib
import string
import tomllib

import hypothesis
import pytest
from hypothesis import strategies

from lensway.bridges.contract import ForeignKey, TableColumn, TableDescription
from lensway.catalog.definitions import read_lens
from lensway.catalog.names import check_field_name
from lensway.catalog.records import Lens
from lensway.cli import push, toml
from lensway.errors import LenswayError
from lensway.ids import new_environment_id, new_lens_id, new_source_id
from lensway.usecases.drift import drift
from lensway.usecases.scaffold_names import field_names, lens_names
from lensway.usecases.scaffolding import Scaffold, scaffold


def column(name: str, type: str | None = "integer", **more: object) -> TableColumn:
    types = more.pop("types", [type] if type else [])
    return TableColumn(name=name, database_type=f"<{type}>", type=type, types=types, **more)


def table(name: str, *columns: TableColumn, kind: str = "table", **more: object) -> TableDescription:
    return TableDescription(name=name, kind=kind, columns=columns, **more)


def made(*tables: TableDescription, present: dict[str, Lens] | None = None) -> Scaffold:
    kept = {name: lens.name for name, lens in (present or {}).items()}
    names = lens_names([each.name for each in tables], prefix="", kept=kept, taken=())
    return scaffold("main", tables, names, present or {}, present or {})


def stored(name: str, document: object) -> Lens:
    draft = read_lens(name, document)
    return Lens(
        environment=new_environment_id(),
        id=new_lens_id(),
        name=name,
        source=new_source_id(),
        definition=draft.definition,
        query_grant=draft.query_grant,
        limits=draft.limits,
        retry=draft.retry,
        created_at="",
    )


def codes(lens: Lens, found: TableDescription) -> list[tuple[str, str | None]]:
    return [(each.code, each.column) for each in drift(lens, found)]


TEXTS = strategies.text(min_size=1, max_size=80)
DESCRIBED = strategies.builds(
    lambda name, columns, key: table(
        name, *(column(each, nullable=each not in columns[:key]) for each in columns), key=columns[:key]
    ),
    TEXTS,
    strategies.lists(TEXTS, min_size=1, max_size=6, unique=True),
    strategies.integers(0, 3),
)


@hypothesis.given(strategies.lists(DESCRIBED, max_size=6, unique_by=lambda each: each.name))
def test_whatever_tables_are_called_their_lenses_can_be_pushed_and_stay_the_same(tables) -> None:
    found = made(*tables)
    text = "\n".join(line for name, lens in found.lenses.items() for line in toml.lens_lines(name, lens))
    read = push._expand(tomllib.loads(text), {}, [])
    assert read.get("lenses", {}) == found.lenses
    present = {lens["table"]: stored(name, lens) for name, lens in found.lenses.items()}
    again = made(*tables, present=present)
    assert again.lenses == found.lenses
    missing = {each.name for each in tables} - set(present)
    assert missing <= {note.table for note in found.notes}, "what is left out has a reason"
    by_name = {each.name: each for each in tables}
    for name, lens in present.items():
        assert [each for each in drift(lens, by_name[name]) if each.level == "error"] == []


@hypothesis.given(strategies.lists(strategies.text(string.ascii_letters + " 1é", min_size=1), unique=True))
def test_field_names_are_unique_and_a_valid_column_keeps_its_own(columns) -> None:
    names = field_names(columns, {})
    assert list(names) == columns
    assert len(set(names.values())) == len(columns)
    for each in columns:
        with contextlib.suppress(LenswayError):
            # A reserved word is no field's name either.
            assert names[check_field_name(each, path="")] == each


def test_lens_names() -> None:
    assert lens_names(["public.a", "x.a", "x.b", "c"], prefix="p_", kept={"c": "mine"}, taken={"p_b"}) == {
        "public.a": "p_public_a",
        "x.a": "p_x_a",
        "x.b": "p_b_2",
        "c": "mine",
    }
    assert lens_names(["all", "run_aaaaaaaaaaaaaaaaaaaa", "価格", "1"], prefix="", kept={}, taken=()) == {
        "all": "all_2",
        "run_aaaaaaaaaaaaaaaaaaaa": "run_aaaaaaaaaaaaaaaaaaaa_2",
        "価格": "lens",
        "1": "lens_1",
    }


@pytest.mark.parametrize(
    ("description", "key", "noted"),
    [
        (table("t", column("a"), column("b"), key=["b", "a"]), ["b", "a"], ""),
        (table("t", column("a", primary_key=True), column("b")), ["a"], ""),
        (table("t", column("a", nullable=False), unique_keys=[["a"]]), ["a"], "replaces it"),
        (table("t", column("a"), unique_keys=[["a"]]), [], "has none"),
        (table("t", column("a", "json"), column("b"), key=["a"]), [], "a has no order"),
        (table("t", column("a", is_list=True), column("b"), key=["a"]), [], "a has no order"),
        (table("t", column("a", None), column("b"), key=["a", "b"]), [], "a was left out"),
        (table("t", column("a"), kind="view"), [], "this view has none"),
    ],
)
def test_the_key_of_a_lens(description: TableDescription, key: list[str], noted: str) -> None:
    found = made(description)
    fields = found.lenses["t"]["fields"]
    assert [name for name, field in fields.items() if field.get("primaryKey")] == key
    reasons = [note.reason for note in found.notes if note.column is None]
    assert (noted in reasons[0]) if noted else reasons == []


def test_a_foreign_key_that_cannot_be_a_relation_says_why() -> None:
    keys = [
        ForeignKey(columns=["a"], table="elsewhere", references=["id"]),
        ForeignKey(columns=["odd"], table="u", references=["id"]),
        ForeignKey(columns=["a"], table="u", references=["odd"]),
    ]
    found = made(
        table("t", column("id"), column("a"), column("odd", None), key=["id"], foreign_keys=keys),
        table("u", column("id"), column("odd", None), key=["id"]),
    )
    assert found.relations == {}
    assert [note.reason.partition(": ")[2] for note in found.notes if note.column is None] == [
        "no lens of that table is declared",
        "a column of it was left out",
        "lens u lacks a column of it",
    ]


def test_relations_take_no_name_of_a_field_and_both_ways_of_a_key() -> None:
    child = table(
        "t",
        column("id"),
        column("u_id"),
        column("u"),
        column("other_id"),
        key=["id"],
        unique_keys=[["other_id"]],
        foreign_keys=[
            ForeignKey(columns=["u_id"], table="u", references=["id"]),
            ForeignKey(columns=["other_id"], table="u", references=["id"]),
        ],
    )
    found = made(child, table("u", column("id"), key=["id"]))
    assert found.relations["t"] == {
        "u_by_u_id": {"lens": "u", "kind": "one", "on": {"u_id": "id"}},
        "other": {"lens": "u", "kind": "one", "on": {"other_id": "id"}},
    }
    assert found.relations["u"] == {
        "t": {"lens": "t", "kind": "many", "on": {"id": "u_id"}},
        "t_by_other_id": {"lens": "t", "kind": "one", "on": {"id": "other_id"}},
    }


def test_a_kept_type_stays_while_it_fits() -> None:
    lens = stored(
        "mine",
        {
            "source": "main",
            "table": "t",
            "fields": {"n": {"type": "text", "column": "a"}, "old": {"type": "text"}},
        },
    )
    fits = made(table("t", column("a", types=["text", "integer"])), present={"t": lens})
    assert fits.lenses["mine"]["fields"] == {"n": {"type": "text", "column": "a"}}
    changed = made(table("t", column("a", "boolean")), present={"t": lens})
    assert changed.lenses["mine"]["fields"] == {"n": {"type": "boolean", "column": "a"}}


def test_what_a_check_finds() -> None:
    lens = stored(
        "t",
        {
            "source": "main",
            "table": "t",
            "fields": {
                "id": {"type": "integer", "primaryKey": True},
                "b": {"type": "text", "nullable": False},
                "c": {"type": "json"},
            },
        },
    )
    whole = [column("id", nullable=False), column("b", "text", nullable=False), column("c", "json")]
    assert codes(lens, table("t", *whole, key=["id"])) == []
    assert codes(lens, table("t", *whole, unique_keys=[["id"]])) == []
    assert codes(lens, table("t", *whole, key=["b"])) == [("key_not_unique", None)]
    assert codes(lens, table("t", *whole)) == [("key_not_unique", None)]
    assert codes(lens, table("t", *whole, kind="view")) == [("key_unknown", None)]
    nullable = [column("id"), column("b", "text"), column("c", "json")]
    assert codes(lens, table("t", *nullable, unique_keys=[["id"]])) == [("nullable", "b"), ("key_nullable", "id")]
    other = [column("ID", nullable=False), column("b", "text", nullable=False, is_list=True), column("c", None)]
    assert codes(lens, table("t", *other, key=["ID"])) == [
        ("column_missing", "id"),
        ("list_differs", "b"),
        ("type_differs", "c"),
        ("column_unused", "ID"),
    ]
    folded = table("t", *other, key=["ID"], folds_case=True)
    assert codes(lens, folded) == [("list_differs", "b"), ("type_differs", "c")]
    untyped = [whole[0], whole[1], column("c", None, types=["text", "json"])]
    assert codes(lens, table("t", *untyped, key=["id"])) == []
    # A runner of an earlier version says neither all types nor keys.
    earlier = [
        column("id", types=[], primary_key=True),
        column("b", "integer", types=[]),
        column("c", "json", types=[]),
    ]
    assert codes(lens, table("t", *earlier)) == [("nullable", "b"), ("key_nullable", "id")]
