"""One document for an environment: the same twice changes nothing, what is wrong is named by its path, nothing is half done."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lensway.catalog import declaration, rules
from lensway.catalog.declaration import Effect, Minting, Push
from lensway.catalog.records import Environment, Put, Source
from lensway.catalog.snapshot import Snapshot
from lensway.errors import ErrorCode, LenswayError
from lensway.ids import new_environment_id, new_lens_id, new_runner_id, new_source_id

DOCUMENT: dict[str, Any] = {
    "sources": {"main": {"bridge": "postgres", "config": {"host": "h", "password": "secret"}}},
    "lenses": {
        "orders": {
            "source": "main",
            "table": "public.orders",
            "fields": {"id": {"type": "integer", "primaryKey": True}, "total": {"type": "decimal"}},
        }
    },
    "assignments": {"main": ["alpha"]},
}


class Site:
    """An environment with two runners, and the configs that a store would keep."""

    def __init__(self) -> None:
        self.environment = new_environment_id()
        self.configs: dict[object, bytes] = {}
        self.snapshot = Snapshot.of([Environment(id=self.environment, name="default", created_at="")], revision=1)
        for name in ("alpha", "beta"):
            self._apply(
                rules.create_runner(
                    self.snapshot, self.environment, name, id=new_runner_id(), token_hash=name.encode(), at=""
                )
            )

    def plan(self, document: object, *, prune: bool = False) -> Push:
        return declaration.plan(
            self.snapshot,
            self.environment,
            declaration.read(document),
            prune=prune,
            stored_config=lambda _environment, source: self.configs.get(source),
            minting=Minting(source_id=new_source_id, lens_id=new_lens_id),
            at="",
        )

    def push(self, document: object, *, prune: bool = False) -> list[tuple[str, str, str]]:
        push = self.plan(document, prune=prune)
        self._apply(push.changes)
        return [(one.kind, one.name, one.effect.value) for one in push.differences]

    def _apply(self, changes) -> None:
        if not changes:
            return
        self.snapshot = self.snapshot.after(changes, revision=self.snapshot.revision + 1)
        for change in changes:
            if isinstance(change, Put) and isinstance(change.record, Source) and change.config is not None:
                self.configs[change.record.id] = change.config


def changed(path: str, value: object) -> dict[str, Any]:
    """The document with one member replaced; None as value removes it."""
    document = copy.deepcopy(DOCUMENT)
    *parents, last = path.split(".")
    section = document
    for parent in parents:
        section = section[parent]
    if value is None:
        del section[last]
    else:
        section[last] = value
    return document


def test_pushing_the_same_twice_changes_nothing() -> None:
    site = Site()
    assert {effect for _, _, effect in site.push(DOCUMENT)} == {"created"}
    again = site.plan(DOCUMENT)
    assert again.changes == ()
    assert {one.effect for one in again.differences} == {Effect.UNCHANGED}


def test_what_is_exported_can_be_pushed_and_changes_nothing() -> None:
    site = Site()
    site.push(DOCUMENT)
    document = declaration.export(site.snapshot, site.environment)
    assert "secret" not in repr(document)
    assert site.plan(document, prune=True).changes == ()


def test_a_diff_never_shows_settings() -> None:
    site = Site()
    site.push(DOCUMENT)
    push = site.plan(changed("sources.main.config", {"host": "h", "password": "another secret"}))
    assert [one.parts for one in push.differences if one.kind == "source"] == [("config",)]
    assert "secret" not in repr(push)


def test_absent_settings_and_assignments_stay_as_they_are() -> None:
    site = Site()
    site.push(DOCUMENT)
    document = changed("sources.main.config", None)
    del document["assignments"]
    assert site.plan(document, prune=True).changes == ()


def test_assignments_are_exactly_those_of_the_document_when_it_has_them() -> None:
    site = Site()
    site.push(DOCUMENT)
    site.push(changed("assignments.main", ["beta"]))
    source = rules.require_source(site.snapshot, site.environment, "main")
    names = [site.snapshot.runner_by_id(id).name for id in site.snapshot.runners_of(site.environment, source.id)]  # type: ignore[union-attr]
    assert names == ["beta"]


def test_pruning_removes_what_is_not_named_and_refuses_what_is_still_assigned() -> None:
    site = Site()
    site.push(DOCUMENT)
    with pytest.raises(LenswayError) as refused:
        site.plan({"sources": {}, "lenses": {}}, prune=True)
    assert refused.value.code is ErrorCode.CONFLICT
    assert site.push({"sources": {}, "lenses": {}, "assignments": {}}, prune=True) == [
        ("assignment", "main -> alpha", "removed"),
        ("lens", "orders", "removed"),
        ("source", "main", "removed"),
    ]


@pytest.mark.parametrize(
    ("path", "value", "named"),
    [
        ("lenses.orders.fields.total.type", "decimel", "lenses.orders.fields.total.type"),
        ("lenses.orders.fields.total.typ", "decimal", "lenses.orders.fields.total.typ"),
        ("lenses.orders.source", "main_", "lenses.orders.source"),
        ("lenses.orders.grants", {"query": "everybody"}, "lenses.orders.grants.query"),
        ("lenses.orders.limits", {"maxRows": 0}, "lenses.orders.limits.maxRows"),
        ("lenses.orders.fields", {}, "lenses.orders.fields"),
        ("lenses.orders.retry", "sometimes", "lenses.orders.retry"),
        ("sources.main.bridge", "postgres_", "sources.main.bridge"),
        ("sources.main.config", {"host": "${HOST}"}, "sources.main.config.host"),
        ("sources.main.config", None, "sources.main.config"),
        ("assignments.main", ["alpha_"], "assignments.main.0"),
        ("assignments.main", "alpha", "assignments.main"),
        ("sources.all", {"bridge": "postgres"}, "sources.all"),
        ("assignments_", {}, "assignments_"),
    ],
)
def test_what_is_wrong_is_named_by_its_path(path: str, value: object, named: str) -> None:
    site = Site()
    before = sorted(map(repr, site.snapshot.records()))
    with pytest.raises(LenswayError) as refused:
        site.plan(changed(path, value))
    assert refused.value.code is ErrorCode.INVALID_REQUEST
    assert refused.value.failure.details["path"] == named
    assert sorted(map(repr, site.snapshot.records())) == before


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
PATHS = st.sampled_from(
    (
        "sources",
        "lenses",
        "assignments",
        "sources.main",
        "sources.main.config",
        "lenses.orders",
        "lenses.orders.fields",
        "lenses.orders.fields.id",
        "lenses.orders.limits",
        "lenses.orders.relations",
        "lenses.orders.table",
    )
)


@settings(max_examples=300)
@given(path=PATHS, value=JSON.filter(lambda value: value is not None))
def test_any_rubbish_anywhere_is_refused_with_a_typed_error_or_taken(path: str, value: object) -> None:
    codes = set()
    try:
        Site().plan(changed(path, value))
    except LenswayError as refused:
        codes.add(refused.code)
    assert codes <= {ErrorCode.INVALID_REQUEST, ErrorCode.CONFLICT}
