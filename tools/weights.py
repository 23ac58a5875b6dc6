"""`python -m tools.weights`: what each extra adds to an environment, as the table of the install page."""

from __future__ import annotations

import importlib.metadata
import pathlib
import re
import sys
from collections.abc import Iterator, Sequence
from typing import Final

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

_MB: Final = 1_000_000
_NAMED: Final = 4
"""Packages named for each extra, the largest first."""
_NAMED_MB_MIN: Final = 0.5
_COMPILED: Final = re.compile(r"__pycache__|\.pyc$")


def main() -> int:
    """Print the table for this environment, which must hold every extra."""
    for line in table():
        print(line)
    return 0


def table() -> Iterator[str]:
    """The table's lines, in the order of the extras in pyproject.toml."""
    project = importlib.metadata.distribution("lensway")
    base = packages(Requirement("lensway"))
    yield "| extra | packages | MB | largest |"
    yield "| --- | --- | --- | --- |"
    yield _row("the base: the Python client", base)
    for extra in project.metadata.get_all("Provides-Extra") or ():
        # What it adds to an environment that has the client; the server's row holds the runner's packages too.
        yield _row(f"`{extra}`", packages(Requirement(f"lensway[{extra}]")) - base)


def packages(wanted: Requirement) -> frozenset[str]:
    """Canonical names of everything that ``wanted`` installs beside itself, as far as this platform needs it."""
    found: set[str] = set()
    seen: set[tuple[str, str]] = set()
    ahead = [wanted]
    while ahead:
        requirement = ahead.pop()
        name = canonicalize_name(requirement.name)
        for extra in ("", *requirement.extras):
            if (name, extra) in seen:
                continue
            seen.add((name, extra))
            for text in importlib.metadata.requires(name) or ():
                needed = Requirement(text)
                if needed.marker is None or needed.marker.evaluate({"extra": extra}):
                    ahead.append(needed)
        found.add(name)
    return frozenset(found - {"lensway"})


def megabytes(package: str) -> float:
    """The size of a package's files, without the bytecode that Python adds: 10^6 bytes."""
    files = importlib.metadata.distribution(package).files or ()
    paths = (each.locate() for each in files if not _COMPILED.search(str(each)))
    return sum(path.stat().st_size for path in map(_real, paths) if path.exists()) / _MB


def _real(path: object) -> pathlib.Path:
    return pathlib.Path(str(path))


def _row(title: str, names: frozenset[str]) -> str:
    sizes: Sequence[tuple[float, str]] = sorted(((megabytes(each), each) for each in names), reverse=True)
    largest = ", ".join(f"{name} {size:.1f}" for size, name in sizes[:_NAMED] if size >= _NAMED_MB_MIN)
    return f"| {title} | {len(names)} | {sum(size for size, _ in sizes):.0f} | {largest} |"


if __name__ == "__main__":
    sys.exit(main())
