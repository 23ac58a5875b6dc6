"""Names of tables, as lenses declare them and introspection lists them: ``schema.table``, each part quoted where it must be.

A part in double quotes holds any character, a double quote as ``""``. A part without quotes holds no dot and does not begin with
a quote; it is taken letter by letter, as a quoted one is.
"""

from __future__ import annotations

import re
from typing import Final

_PART: Final = re.compile(r'"((?:[^"]|"")+)"|([^".][^.]*)', re.DOTALL)
_SPECIAL: Final = re.compile(r'[."]')
GRAMMAR: Final = (
    'Write `table` or `schema.table`; put a part with a dot or a quote in double quotes: "my.schema"."a ""b""".'
)


def parts_of(name: str) -> tuple[str, ...] | None:
    """The parts of the name, without quotes; None for a text that is no such name."""
    parts: list[str] = []
    at = 0
    while found := _PART.match(name, at):
        quoted, plain = found.groups()
        parts.append(plain if quoted is None else quoted.replace('""', '"'))
        at = found.end()
        if at == len(name):
            return tuple(parts)
        if name[at] != ".":
            return None
        at += 1
    return None


def written(*parts: str) -> str:
    """The one form in which a name of these parts is listed and kept: quotes only where they are needed."""
    return ".".join(f'"{part.replace(chr(34), chr(34) * 2)}"' if _SPECIAL.search(part) else part for part in parts)
