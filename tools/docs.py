"""Checks of the documentation: links resolve. Reference pages are checked against the code by the tests."""

from __future__ import annotations

import pathlib
import re
from collections.abc import Iterator
from typing import Final

_LINK: Final = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
_HEADING: Final = re.compile(r"^#+\s+(.*)$", re.MULTILINE)


def pages() -> list[pathlib.Path]:
    """Every page of the project."""
    return [
        page
        for page in (pathlib.Path("README.md"), pathlib.Path("CONTRIBUTING.md"), pathlib.Path("CHANGELOG.md"))
        if page.exists()
    ] + sorted(pathlib.Path("docs").rglob("*.md"))


def problems() -> Iterator[str]:
    """Broken relative links and anchors, one line each."""
    for page in pages():
        for target in _LINK.findall(page.read_text(encoding="utf-8")):
            if re.match(r"[a-z]+:", target):
                continue
            path, _, anchor = target.partition("#")
            linked = (page.parent / path).resolve() if path else page.resolve()
            if not linked.exists():
                yield f"{page}: {target} does not exist"
            elif anchor and linked.suffix == ".md" and anchor not in _anchors(linked):
                yield f"{page}: {target} has no such heading"


def _anchors(page: pathlib.Path) -> set[str]:
    headings = _HEADING.findall(page.read_text(encoding="utf-8"))
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
