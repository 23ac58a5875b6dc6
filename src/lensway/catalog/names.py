"""Names of objects: which are allowed, what to suggest for one that does not exist, and how to list many of them."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from typing import Final

from lensway.errors import ErrorCode, LenswayError
from lensway.limits import NAME_CHARACTERS_MAX, NAMES_SHOWN_MAX
from lensway.query.suggestions import nearest

_OBJECT_NAME: Final = re.compile(r"[A-Za-z][A-Za-z0-9_-]*", re.ASCII)
_FIELD_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)
_ID: Final = re.compile(r"(env|src|lens|run|key|req|ins)_[0-9a-z]{20}", re.ASCII)
_RESERVED_OBJECTS: Final = frozenset({"inline", "none", "null", "all"})
"""``inline`` is a place, the others read as absence or as everything, in commands, answers and events."""
_RESERVED_FIELDS: Final = frozenset({"__proto__", "constructor", "prototype"})
"""Keys that do harm in JavaScript callers that merge objects."""
_LISTED_BY: Final[Mapping[str, str]] = {
    "audit row": "audit",
    "sign-in": "sign-ins list",
    "environment": "environments list",
    "key": "keys list",
    "lens": "lenses list",
    "request": "requests",
    "runner": "runners list",
    "source": "sources list",
}


def check_name(name: object, *, kind: str, path: str) -> str:
    """The name, when an object of this kind may bear it.

    Raises:
        LenswayError: INVALID_REQUEST saying why not; ``path`` says where it stands.
    """
    if not isinstance(name, str) or not _OBJECT_NAME.fullmatch(name) or len(name) > NAME_CHARACTERS_MAX:
        raise invalid(
            path,
            f"{shown(name)} cannot be the name of {article(kind)}",
            hint=f"Use a letter, then letters, digits, '-' and '_': at most {NAME_CHARACTERS_MAX} characters.",
        )
    if name.lower() in _RESERVED_OBJECTS:
        raise invalid(path, f"{name!r} is a reserved word", hint="Choose another name.")
    if _ID.fullmatch(name):
        raise invalid(path, f"{name!r} looks like an id", hint="Choose a name that does not look like an id.")
    return name


def check_field_name(name: object, *, path: str) -> str:
    """The name, when a field may bear it. Raises LenswayError INVALID_REQUEST saying why not."""
    if not isinstance(name, str) or not _FIELD_NAME.fullmatch(name) or len(name) > NAME_CHARACTERS_MAX:
        raise invalid(
            path,
            f"{shown(name)} cannot be the name of a field",
            hint=f"Use a letter or '_', then letters, digits and '_': at most {NAME_CHARACTERS_MAX} characters. "
            "`column` maps the field to a column of another name.",
        )
    if name in _RESERVED_FIELDS:
        raise invalid(path, f"{name!r} is a reserved word", hint="Choose another name and set `column`.")
    return name


def not_found(kind: str, name: str, known: Iterable[str] = (), *, hint: str | None = None) -> LenswayError:
    """The error for an object that does not exist in this environment; ``known`` are the names to suggest from."""
    meant = nearest(name, known)
    if meant is not None:
        hint = f"Did you mean {meant!r}?" + ("" if hint is None else f" {hint}")
    return LenswayError(
        ErrorCode.NOT_FOUND,
        f"No {kind} {shown(name)}",
        hint=hint or f"`lensway {_LISTED_BY[kind]}` lists the existing ones.",
        details={"kind": kind, "name": clipped(name)} | ({} if meant is None else {"nearest": meant}),
    )


def invalid(path: str, message: str, *, hint: str | None = None, nearest: str | None = None) -> LenswayError:
    """The error for a part of a request or file; ``path`` says which part, empty for the whole."""
    return LenswayError(
        ErrorCode.INVALID_REQUEST,
        f"{path}: {message}" if path else message,
        hint=hint if hint is not None or nearest is None else f"Did you mean {nearest!r}?",
        details={"path": path} | ({} if nearest is None else {"nearest": nearest}),
    )


def conflict(message: str, *, hint: str, **details: object) -> LenswayError:
    """The error for a change that contradicts the present state."""
    return LenswayError(ErrorCode.CONFLICT, message, hint=hint, details=details)


def clipped(text: str) -> str:
    """The text, short enough to be quoted in an answer."""
    return text if len(text) <= NAME_CHARACTERS_MAX else text[: NAME_CHARACTERS_MAX - 1] + "…"


def shown(value: object) -> str:
    """A caller's value as it may stand in a message: quoted and short."""
    return repr(clipped(value)) if isinstance(value, str) else "a value that is not text"


def listed(names: Collection[str]) -> str:
    """Names for a message: the first few, then how many more there are."""
    ordered = sorted(names)
    first = ", ".join(ordered[:NAMES_SHOWN_MAX])
    more = len(ordered) - NAMES_SHOWN_MAX
    return first if more <= 0 else f"{first} and {more} more"


def counted(number: int, word: str) -> str:
    """``1 lens``, ``2 lenses``, ``1,000 rows``."""
    if number == 1:
        return f"1 {word}"
    return f"{number:,} {word}es" if word.endswith("s") else f"{number:,} {word}s"


def article(kind: str) -> str:
    """``a source``, ``an environment``, ``a uuid``."""
    return f"an {kind}" if kind[0] in "aeio" else f"a {kind}"
