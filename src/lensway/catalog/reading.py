"""Strict reading of decoded documents: every error names the path of the offending part, unknown keys the nearest known one."""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from typing import TypeVar

from lensway.catalog.names import clipped, invalid, shown
from lensway.query.suggestions import nearest

Choice = TypeVar("Choice", bound=enum.StrEnum)


def joined(path: str, key: str) -> str:
    """The path of a member."""
    key = clipped(key)
    return f"{path}.{key}" if path else key


def mapping(value: object, path: str) -> Mapping[str, object]:
    """The value, when it is an object with text keys. Raises LenswayError INVALID_REQUEST."""
    if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
        raise invalid(path, f"{'' if path else 'The body '}must be an object, not {described(value)}")
    return value


def described(value: object) -> str:
    """What kind of value a caller gave, in the words of JSON and TOML."""
    match value:
        case None:
            return "null"
        case bool():
            return "a boolean"
        case int() | float():
            return "a number"
        case str():
            return "text"
        case list() | tuple():
            return "a list"
        case Mapping():
            return "an object"
        case _:
            return "such a value"


class Section:
    """One object of a document with a closed set of keys.

    Every method that reads a key gives the default when it is absent, and raises LenswayError INVALID_REQUEST when it is there
    and wrong.
    """

    def __init__(
        self, value: object, path: str, known: frozenset[str], *, unlisted: frozenset[str] = frozenset()
    ) -> None:
        """``unlisted`` keys may be there, so that the reader can refuse them by name, and are never suggested."""
        self._members = mapping(value, path)
        self._path = path
        for key in self._members:
            if key not in known and key not in unlisted:
                raise invalid(
                    joined(path, key),
                    f"unknown key; known keys: {', '.join(sorted(known))}",
                    nearest=nearest(key, known),
                )

    def __contains__(self, key: str) -> bool:
        return key in self._members

    def path(self, key: str) -> str:
        """The path of a member of this section."""
        return joined(self._path, key)

    def get(self, key: str) -> object:
        """The member as it is, None when absent."""
        return self._members.get(key)

    def required(self, key: str) -> object:
        """The member as it is; it must be there."""
        if key not in self._members:
            raise invalid(self._path, f"{key!r} is missing")
        return self._members[key]

    def text(self, key: str) -> str:
        """A text that must be there and not be empty."""
        value = self.required(key)
        if not isinstance(value, str):
            raise invalid(self.path(key), f"must be text, not {described(value)}")
        if not value:
            raise invalid(self.path(key), "must not be empty")
        return value

    def choice(self, key: str, choices: type[Choice], default: Choice | None = None) -> Choice:
        """One member of an enum; without a default it must be there."""
        return choices(self.word(key, [choice.value for choice in choices], None if default is None else default.value))

    def word(self, key: str, known: Sequence[str], default: str | None = None) -> str:
        """One of the known words; without a default it must be there."""
        if key not in self._members and default is not None:
            return default
        value = self.required(key)
        if not isinstance(value, str):
            raise invalid(self.path(key), f"must be one of {', '.join(known)}, not {described(value)}")
        if value not in known:
            raise invalid(
                self.path(key), f"{shown(value)} is not one of {', '.join(known)}", nearest=nearest(value, known)
            )
        return value

    def flag(self, key: str, *, default: bool) -> bool:
        """A boolean."""
        value = self._members.get(key, default)
        if not isinstance(value, bool):
            raise invalid(self.path(key), f"must be true or false, not {described(value)}")
        return value

    def whole(self, key: str, *, maximum: int) -> int | None:
        """A whole number from 1 to ``maximum``, or None when absent."""
        if key not in self._members:
            return None
        value = self._members[key]
        if isinstance(value, bool) or not isinstance(value, int):
            raise invalid(self.path(key), f"must be a whole number, not {described(value)}")
        if not 1 <= value <= maximum:
            raise invalid(self.path(key), f"must be from 1 to {maximum:,}")
        return value
