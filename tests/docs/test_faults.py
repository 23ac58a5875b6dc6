"""The page of faults names tests that exist."""

from __future__ import annotations

import pathlib
import re

TESTS = pathlib.Path(__file__).parents[1]
PAGE = (TESTS.parent / "docs" / "explanation" / "faults.md").read_text(encoding="utf-8")


def test_every_test_that_the_page_names_is_there() -> None:
    file = ""
    seen = 0
    for named in re.findall(r"`((?:[\w/]+\.py)?(?:(?:::)?test_[\w…\[\]]+)?)`", PAGE):
        path, _, function = (
            named.rpartition("::") if "::" in named else (named, "", "") if ".py" in named else ("", "", named)
        )
        file = path or file
        text = (TESTS / file).read_text(encoding="utf-8")
        start = function.partition("[")[0].partition("…")[0]
        assert f"def {start}" in text, f"{file} has no test {function}"
        seen += 1
    assert seen >= 50
