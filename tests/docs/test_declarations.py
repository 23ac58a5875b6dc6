"""The page on declarations describes every key that is read, and its examples are declarations."""

from __future__ import annotations

import pathlib
import re
import tomllib

import pytest

from lensway.catalog import declaration, definitions
from lensway.errors import LenswayError
from tools import declarations

PAGE = pathlib.Path("docs/reference/declarations.md")
SECTIONS = {
    "": declaration.DOCUMENT_KEYS,
    "sources.main": definitions.SOURCE_KEYS,
    "lenses.orders": definitions.LENS_KEYS,
    "lenses.orders.fields.id": definitions.FIELD_KEYS,
    "lenses.orders.limits": definitions.LIMIT_KEYS,
}


def document() -> dict:
    """The example of the page, its variables replaced."""
    (example,) = re.findall(r"```toml\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    return tomllib.loads(example.replace("${MAIN_URL}", "postgresql://reader@localhost/shop"))


def test_the_example_is_a_declaration() -> None:
    read = declaration.read(document())
    assert (list(read.sources), list(read.lenses), read.assignments) == (
        ["main"],
        ["orders"],
        {"main": ("alpha", "beta")},
    )


@pytest.mark.parametrize("path", SECTIONS)
def test_the_known_keys_of_an_error_are_those_of_the_page(path: str) -> None:
    wrong = document()
    target = wrong
    for part in filter(None, path.split(".")):
        target = target[part]
    target["zzzzzz"] = 1
    with pytest.raises(LenswayError) as error:
        declaration.read(wrong)
    shown = str(error.value).partition("known keys: ")[2].split(", ")
    assert set(shown) == SECTIONS[path]
    described = re.findall(r"^\| `(\w+)` \|", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    assert set(shown) <= set(described)


@pytest.mark.parametrize("name", declarations.TABLES)
def test_a_key_that_is_read_and_not_described_fails(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    rows, known = declarations.TABLES[name]
    assert list(declarations.table(name))
    monkeypatch.setitem(declarations.TABLES, name, (rows, {*known, "new"}))  # type: ignore[misc]
    with pytest.raises(ValueError, match="new"):
        list(declarations.table(name))


@pytest.mark.parametrize("key", ["runners", "keys", "environments"])
def test_what_is_not_declared_names_its_command(key: str) -> None:
    with pytest.raises(LenswayError, match=f"{key}: is not part of a declaration") as error:
        declaration.read(document() | {key: {}})
    assert f"`lensway {key} create" in (error.value.failure.hint or "")


def test_relations_are_comments_and_refused() -> None:
    refused = document()
    refused["lenses"]["orders"]["relations"] = {"customer": {"lens": "customers", "kind": "one", "on": {"id": "id"}}}
    with pytest.raises(LenswayError, match="relations"):
        declaration.read(refused)
    scaffold = pathlib.Path("docs/how-to/scaffold-lenses.md").read_text(encoding="utf-8")
    assert "`push` refuses a `relations` table" in scaffold
    (example,) = re.findall(r"```toml\n(.*?)```", scaffold, re.DOTALL)
    assert "relations" not in tomllib.loads(example)["lenses"]["orders"]
