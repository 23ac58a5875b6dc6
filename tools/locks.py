"""The lock files: `requirements.lock` holds every pinned package, the others are subsets of it for one purpose each."""

from __future__ import annotations

import pathlib
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

EVERYTHING: Final = pathlib.Path("requirements.lock")
EXTRAS: Final = pathlib.Path("requirements-extras.lock")
"""What users may install: every extra, without the developers' tools."""
SUBSETS: Final = (
    pathlib.Path("requirements-demo.lock"),
    EXTRAS,
    pathlib.Path("deploy/requirements-build.lock"),
    pathlib.Path("deploy/requirements-runner.lock"),
    pathlib.Path("deploy/requirements-server.lock"),
)
_PIN: Final = re.compile(r"^([A-Za-z0-9._-]+)==([^\s;\\]+)", re.MULTILINE)
_HASH: Final = re.compile(r"--hash=sha256:([0-9a-f]{64})")


def pins(lock: pathlib.Path) -> dict[str, frozenset[str]]:
    """The versions of each package of a lock file, by its canonical name; several where versions of Python differ."""
    found: dict[str, frozenset[str]] = {}
    for name, version in _PIN.findall(lock.read_text(encoding="utf-8")):
        found[canonicalize_name(name)] = found.get(canonicalize_name(name), frozenset()) | {version}
    return found


def hashes(lock: pathlib.Path) -> dict[tuple[str, str], list[str]]:
    """The SHA-256 sums that a lock file accepts for each package and version."""
    found: dict[tuple[str, str], list[str]] = {}
    for block in re.split(r"\n(?=\S)", lock.read_text(encoding="utf-8")):
        if pin := _PIN.match(block):
            found[canonicalize_name(pin[1]), pin[2]] = _HASH.findall(block)
    return found


def problems(project: Mapping[str, Any]) -> Iterator[str]:
    """Requirements of pyproject.toml that the lock lacks or contradicts, and subsets that differ from it."""
    locked = pins(EVERYTHING)
    for requirement in _requirements(project):
        versions = locked.get(canonicalize_name(requirement.name), frozenset())
        if not versions:
            yield f"{requirement.name} is in pyproject.toml and not in {EVERYTHING}: make lock"
        for version in versions:
            if not requirement.specifier.contains(version, prereleases=True):
                yield f"{EVERYTHING} has {requirement.name} {version}, pyproject.toml wants {requirement.specifier}: make lock"
    for subset in SUBSETS:
        for name, versions in pins(subset).items():
            for version in versions - locked.get(name, frozenset()):
                yield f"{subset} has {name} {version}, which {EVERYTHING} lacks: make lock"


def _requirements(project: Mapping[str, Any]) -> Iterator[Requirement]:
    groups: Sequence[Sequence[Any]] = (
        project["project"]["dependencies"],
        *project["project"]["optional-dependencies"].values(),
        *project["dependency-groups"].values(),
    )
    for group in groups:
        for text in group:
            # A group may include another one, and an extra of this package another extra of it.
            if isinstance(text, str) and Requirement(text).name != project["project"]["name"]:
                yield Requirement(text)
