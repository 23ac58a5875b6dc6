"""Declarations as TOML text that `push` reads. The standard library reads TOML and writes none."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from lensway.cli import screen

_BARE_KEY: Final = re.compile(r"[A-Za-z0-9_-]+", re.ASCII)
_EXPANDED: Final = re.compile(r"\$(?=[${])")
_ALIGNED_MAX: Final = 24


def unexpanded(text: str) -> str:
    """The text as it must stand in a file, so that `push`, which expands ``${VAR}`` and ``$$``, reads it as it is."""
    return _EXPANDED.sub("$$", text)


def lens_lines(name: str, document: Mapping[str, Any]) -> Iterator[str]:
    """One lens as a table with its parts as subtables, one line for each field and relation."""
    yield f"[lenses.{_key(name)}]"
    nested = [part for part in ("fields", "relations") if part in document]
    for part, value in document.items():
        if part not in nested:
            yield f"{_key(part)} = {_value(value)}"
    for part in nested:
        yield f"[lenses.{_key(name)}.{part}]"
        yield from member_lines(document[part])


def member_lines(members: Mapping[str, Any]) -> Iterator[str]:
    """One line for each member of a table."""
    width = min(_ALIGNED_MAX, max((len(_key(member)) for member in members), default=0))
    for member, value in members.items():
        yield f"{_key(member):<{width}} = {_value(value)}"


def comment(text: str) -> str:
    """The text as one comment, with control characters made visible."""
    return f"# {screen.text_of(text)}"


def _key(key: str) -> str:
    return key if _BARE_KEY.fullmatch(key) else _text(key)


def _value(value: object) -> str:
    match value:
        case bool():
            return "true" if value else "false"
        case int():
            return str(value)
        case str():
            return _text(unexpanded(value))
        case Mapping():
            members = ", ".join(f"{_key(str(key))} = {_value(member)}" for key, member in value.items())
            return f"{{ {members} }}" if members else "{}"
        case Sequence():
            return f"[{', '.join(map(_value, value))}]"
        case _:
            raise AssertionError(f"declarations hold no {type(value).__name__}")


def _text(text: str) -> str:
    # A basic string takes the escapes of JSON, and allows every character that JSON does but DEL.
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
