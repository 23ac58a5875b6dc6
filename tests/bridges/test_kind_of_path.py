"""Which kind of file a path means, where several kinds are files."""

from __future__ import annotations

import pytest

from lensway.kinds import Kind, Kinds

KINDS = Kinds(
    [
        Kind(name="first", adapter="a:B", is_path=True),
        Kind(name="second", adapter="a:B", is_path=True, suffixes=(".second", ".2nd")),
        Kind(name="unserved", is_path=True, suffixes=(".third",)),
    ]
)


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/a/b.second", "second"),
        ("/a/B.2ND", "second"),
        ("/a/b.db", "first"),
        ("/a/b", "first"),
        ("/a/b.third", "first"),
    ],
)
def test_the_ending_of_a_path_tells_its_kind(path: str, name: str) -> None:
    found = KINDS.of_settings({"path": path})
    assert found is not None
    assert found.name == name
    assert Kinds([]).of_settings({"path": path}) is None
