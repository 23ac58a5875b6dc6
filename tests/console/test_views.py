"""Addresses of lists read back as they were written, and rows keep few words for many warnings."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from lensway import limits
from lensway.console import views
from lensway.console.visits import safe_next
from lensway.usecases.fleet_pages import ListQuery

NAMES = st.text("abcz019_-", min_size=1, max_size=8)


@given(st.text("ab é<&+ ", max_size=20), st.booleans(), st.integers(1, 99_999), st.sets(NAMES, max_size=5))
def test_a_list_query_survives_its_address(text: str, only_problems: bool, page: int, opened: set[str]) -> None:
    query = ListQuery(text=text.strip(), only_problems=only_problems, page=page, opened=tuple(sorted(opened)))
    assert views.read_query(views.address_values(query)) == query


@given(st.dictionaries(st.sampled_from(["q", "page", "problems", "open"]), st.text(max_size=200)))
def test_any_address_is_a_list_within_its_bounds(values: dict[str, str]) -> None:
    query = views.read_query(values)
    assert query.page >= 1
    assert len(query.text) <= limits.NAME_CHARACTERS_MAX
    assert len(query.opened) <= limits.CONSOLE_ROWS_MAX


@given(st.text("/\\.:@%2ex?#&=\r\n console", max_size=40))
def test_the_way_back_never_leaves_the_console(wanted: str) -> None:
    found = safe_next(wanted)
    assert found.startswith("/console/")
    assert not set(found) & set("\\\r\n#@")
    assert ".." not in found.partition("?")[0].split("/")
    assert "%" not in found.partition("?")[0]


def test_two_hundred_warnings_of_one_cause_are_one_line() -> None:
    cause = {"code": "runner_offline", "mark": "", "names": [f"s{number}" for number in range(200)], "message": ""}
    (line,) = views.causes_of([cause])
    assert (line["count"], line["names"]) == (200, "s0, s1, s2 and 197 more")
    assert views.causes_of([{**cause, "mark": "draining"}])[0]["word"] == "runner draining"


def test_every_state_has_an_icon_of_its_own() -> None:
    assert len(set(views.ICONS.values())) == len(views.ICONS)
