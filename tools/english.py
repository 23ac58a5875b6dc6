"""Plain English: the phrases that this project does not use, and where they stand.

Writing for engineers who have thirty seconds: the subject acts, software is called by its name, and a sentence says one thing.
`python -m tools.english [PATH…]` lists what to rewrite; `make check` refuses any of it.
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
    (r"(?-i:\b[Nn]one of\b|\b(?:is|are|be) none\b|\bare no\b)", "say it positively"),
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
    (r"\bby which it (?:goes|is)\b|\bof which nothing\b|\bto which nothing\b", "make it two sentences"),
)
"""A pattern, and what to do instead."""

_TEXT_SUFFIXES: Final = frozenset({".py", ".md", ".html", ".js", ".toml", ".css"})
_LEFT_OUT: Final = ("docs/proofs.md", "tools/english.py", "LICENSE", "requirements.lock")
_PATTERN: Final = re.compile("|".join(f"({pattern})" for pattern, _ in PHRASES), re.IGNORECASE)


def problems(paths: list[pathlib.Path] | None = None) -> Iterator[str]:
    """One line for each phrase to rewrite."""
    for path in paths if paths is not None else _tracked():
        for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), 1):
            for match in _PATTERN.finditer(line):
                assert match.lastindex is not None
                yield f"{path}:{number}: {match[0].strip()!r}: {PHRASES[match.lastindex - 1][1]}"


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
