"""A secret as a type: its text is redacted wherever it could be printed."""

from __future__ import annotations

from typing import Final, NoReturn

_QUOTES: Final = ('"', "'")


def bare(text: str) -> str:
    """The text without what editors and shells leave around it: a byte-order mark, line ends, quotes."""
    text = text.removeprefix("\ufeff").strip()
    if len(text) > 1 and text[0] in _QUOTES and text[-1] == text[0]:
        text = text[1:-1].strip()
    return text


class Secret:
    """Holds a text that only `reveal` gives."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def reveal(self) -> str:
        """The text itself. Call it only where it must leave."""
        return self._text

    def __repr__(self) -> str:
        return "Secret(redacted)"

    __str__ = __repr__

    def __format__(self, spec: str) -> str:
        return repr(self)

    def __reduce__(self) -> NoReturn:
        raise TypeError("secrets are not pickled")
