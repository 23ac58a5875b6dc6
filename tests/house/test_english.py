"""The check of the English: it finds the phrases that the project does not use, and accepts their plain forms."""

from __future__ import annotations

import pathlib

import pytest

from tools import english

AS_FOUND = (
    ("Remember of a failure what is shown of it", "Keep only the displayed part of a failure"),
    (
        "So often the kernel is asked whether a caller is gone that is not read",
        "How often to poll for a disconnect while a pipelined request pauses reading",
    ),
    ("What is shown of it is so since now.", "The displayed state starts now."),
    ("What whoever answers wants to remember until it is done.", "Per-connection scratch slot, initially None"),
    ("What the work gives.", "Await `work`; call `cancel` if the client disconnects first."),
    ("key values that are none of this order", "key values that do not match the order"),
    ("Whoever executed this answered what cannot be read", "The executor returned an unreadable answer"),
    ("one node with SQLite is what there is", "this version supports a single node on SQLite only"),
    ("Rows are available in none of these formats here", "None of the accepted formats is available"),
    ("2 runners were lost while it executed", "Two runners were lost while executing this query"),
    (
        "Trailers of a request are no headers, and have an end",
        "Request trailers are ignored and limited in size",
    ),
    ("PostgreSQL compiles nothing to machine code", "Sessions disable PostgreSQL's JIT"),
    ("is shown so since then", "Runner status shows when each source was lost"),
    (
        "unless said: what the caller samples, and all without one",
        "Default: follow the caller's sampling decision; sample everything when there is none",
    ),
    ("it must be taken for known", "it must be treated as compromised"),
    ("Thousands of links that do nothing but keep alive are cheap so", "This keeps thousands of idle links cheap"),
)


@pytest.mark.parametrize(("found", "plain"), AS_FOUND)
def test_the_phrase_is_found_and_its_plain_form_is_accepted(found: str, plain: str) -> None:
    assert list(english.found_in(found)), found
    assert list(english.found_in(plain)) == [], plain


def test_a_page_names_the_line_and_leaves_out_generated_parts(tmp_path: pathlib.Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("Plain.\n\n<!-- generated: x -->\nnobody\n<!-- end: x -->\n\nWhoever reads.\n")
    assert list(english.problems([page])) == [f"{page}:7: 'Whoever': name the component that acts"]


def test_the_pages_of_the_project_have_none() -> None:
    assert list(english.problems_of_pages()) == []
