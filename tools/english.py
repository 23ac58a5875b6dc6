"""Plain English: the phrases that this project does not use, and where they stand.

Writing for engineers who have thirty seconds: the subject acts, software is called by its name, and a sentence says one thing.
`python -m tools.english [PATH…]` lists what to rewrite; `make check` refuses any of them in the pages for readers.
"""

from __future__ import annotations

import pathlib
import re
import subprocess
import sys
from collections.abc import Iterator
from typing import Final

PHRASES: Final[tuple[tuple[str, str], ...]] = (
    (r"\b(?:whoever|whomever|whatever|nobody|somebody|anybody|everybody)\b", "name the component that acts"),
    (r"(?-i:\bnone of\b|\b(?<!there )(?:is|are|be) none\b|\bare no\b(?! longer))", "say it positively"),
    (r"\bunless said\b|\bwhere (?:nothing|none) is said\b", "state the default"),
    (
        r"\bso since\b|\bfor known\b|\bfor lost\b|\bfor dead\b|\btaken for\b|\btake for\b",
        "use the field's word: treated as, considered",
    ),
    (r"\bis behind the\b|\bgone behind\b", "say after"),
    (
        r"(?:^|[.:] )What (?:is|are|was|were|has|have|the \w+) [a-z ]{3,60}? (?:is|are|was|were)\b",
        "start with the subject",
    ),
    (r"\bremembers? of\b|\bwhat (?:is|was) \w+ of\b|\bkept of\b", "name the part that is kept or shown"),
    (r"(?:^|[.:|] )So (?:often|long|much|many|soon|far)\b(?! as\b)", "start with the subject"),
    (r"(?:^|[.:] )What the \w+ \w+s\.", "say what the caller gets or does"),
    (r"\bis what there is\b|\b(?:way|one|thing) that there is\b", "say what this version supports"),
    (
        r"\b(?:compile|do|need|cost|know|tell)s? nothing (?:to|but|of)\b",
        "say what happens, or name what is switched off",
    ),
    (r"\bwhile it executed\b", "name the object"),
    (r"\bha(?:s|ve) an end\b", "say limited in size"),
    (r"\b(?:cheap|shown|found|done|made|kept) so\b(?! that\b)", "put the result first: this keeps X cheap"),
    (r"\bby which it (?:goes|is)\b|\bof which nothing\b|\bto which nothing\b", "make it two sentences"),
)
"""A pattern, and what to do instead."""

_TEXT_SUFFIXES: Final = frozenset({".py", ".md", ".html", ".js", ".toml", ".css"})
PAGES: Final = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md", "docs", "src/lensway/console/templates")
"""The pages that `make check` reads. Generated parts are left out: their text stands in the code."""
_GENERATED: Final = re.compile(r"<!-- (generated|end): ")
_LEFT_OUT: Final = ("docs/proofs.md", "tools/english.py", "LICENSE", "requirements.lock")
_PATTERN: Final = re.compile("|".join(f"({pattern})" for pattern, _ in PHRASES), re.IGNORECASE)


def problems(paths: list[pathlib.Path] | None = None) -> Iterator[str]:
    """One line for each phrase to rewrite."""
    for path in paths if paths is not None else _tracked():
        is_generated = False
        for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), 1):
            if path.suffix == ".md" and (mark := _GENERATED.match(line)):
                is_generated = mark[1] == "generated"
            if not is_generated:
                yield from (f"{path}:{number}: {problem}" for problem in found_in(line))


def found_in(text: str) -> Iterator[str]:
    """Each phrase of a text to rewrite, with the advice for it."""
    for match in _PATTERN.finditer(text):
        assert match.lastindex is not None
        yield f"{match[0].strip()!r}: {PHRASES[match.lastindex - 1][1]}"


def problems_of_pages() -> Iterator[str]:
    """One line for each phrase to rewrite in the documentation and the Console's templates."""
    for place in map(pathlib.Path, PAGES):
        inside = [place] if place.is_file() else sorted(place.rglob("*"))
        yield from problems(
            [path for path in inside if path.suffix in _TEXT_SUFFIXES and path.as_posix() not in _LEFT_OUT]
        )


def _tracked() -> list[pathlib.Path]:
    listed = subprocess.run(["git", "ls-files", "-z"], capture_output=True, text=True, check=True).stdout
    found = [pathlib.Path(name) for name in listed.split("\0") if name and name not in _LEFT_OUT]
    return [path for path in found if path.suffix in _TEXT_SUFFIXES and path.is_file()]


def main() -> int:
    """0 when nothing is to be rewritten."""
    given = [pathlib.Path(name) for name in sys.argv[1:]]
    paths = [
        path
        for name in given
        for path in ([name] if name.is_file() else [each for each in _tracked() if name in each.parents])
    ]
    lines = list(problems(paths if given else None))
    print("\n".join([*lines, f"{len(lines)} phrases to rewrite"]))
    return 1 if lines else 0


if __name__ == "__main__":
    sys.exit(main())
