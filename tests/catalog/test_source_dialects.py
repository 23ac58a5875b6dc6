"""The dialect of a source: declared or the first of its bridge, kept, told to runners, and refused where it is unknown."""

from __future__ import annotations

import pytest

from lensway.catalog.definitions import read_source, read_source_patch, source_document
from lensway.catalog.records import Credentials, ExecutionMode, Source
from lensway.dialects.registry import capabilities_of
from lensway.errors import ErrorCode, LenswayError
from lensway.ids import EnvironmentId, SourceId
from lensway.kinds import BUILT_IN, Kind, Kinds

TWO = Kinds([Kind(name="files", adapter="package.module:Class", dialects=("sqlite", "duckdb"))])


def stored(**parts: object) -> Source:
    record = {
        "environment": EnvironmentId("env_1"),
        "id": SourceId("src_1"),
        "name": "main",
        "bridge": "files",
        "credentials": Credentials.MANAGED,
        "execution": ExecutionMode.AUTO,
        "config_version": 1,
        "created_at": "",
    }
    return Source(**{**record, **parts})  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", [kind.name for kind in BUILT_IN.served])
def test_a_source_without_a_dialect_has_the_first_of_its_bridge(kind: str) -> None:
    first = BUILT_IN.get(kind)
    assert first is not None
    draft = read_source("main", {"bridge": kind, "config": {"url": "x"}})
    assert draft.dialect == first.dialects[0]
    assert capabilities_of(kind, BUILT_IN, draft.dialect) == capabilities_of(kind)


def test_a_dialect_is_one_of_the_bridges() -> None:
    assert (
        read_source("main", {"bridge": "files", "dialect": "duckdb", "config": {"path": "x"}}, kinds=TWO).dialect
        == "duckdb"
    )
    with pytest.raises(LenswayError) as caught:
        read_source("main", {"bridge": "postgres", "dialect": "mysql", "config": {"url": "x"}})
    assert caught.value.code is ErrorCode.INVALID_REQUEST
    assert "dialect" in caught.value.failure.message
    assert "postgres" in caught.value.failure.message


def test_capabilities_are_those_of_the_declared_dialect() -> None:
    assert capabilities_of("files", TWO, "duckdb").dialect == "duckdb"
    assert capabilities_of("files", TWO, "sqlite").dialect == capabilities_of("files", TWO).dialect == "sqlite"
    with pytest.raises(LenswayError) as caught:
        capabilities_of("files", TWO, "postgres")
    assert caught.value.failure.hint == "available: sqlite, duckdb"


def test_a_patch_keeps_the_dialect_of_the_same_bridge() -> None:
    source = stored(dialect="duckdb")
    assert read_source_patch(source, {}, kinds=TWO).dialect == "duckdb"
    assert read_source_patch(source, {"dialect": "sqlite"}, kinds=TWO).dialect == "sqlite"
    both = TWO.joined(BUILT_IN.served)
    moved = read_source_patch(source, {"bridge": "postgres", "config": {"url": "x"}}, kinds=both)
    assert moved.dialect == "postgres"


def test_a_pulled_declaration_names_a_dialect_that_is_not_the_first() -> None:
    assert source_document(stored(bridge="postgres", dialect="postgres")) == {
        "bridge": "postgres",
        "credentials": "managed",
    }
    document = source_document(stored(dialect="duckdb"))
    assert document["dialect"] == "duckdb"
    assert read_source("main", {**document, "config": {"path": "x"}}, kinds=TWO).dialect == "duckdb"
