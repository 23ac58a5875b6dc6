"""LIKE for large values on SQLite, as a function that a bridge registers: linear where it can be, and it can be interrupted.

SQLite's own LIKE takes pattern times value, and looks neither at interrupts nor at the progress handler meanwhile.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

from lensway import limits

LIKE: Final = "lensway_like"
"""Minds case."""
ILIKE: Final = "lensway_ilike"
"""Folds ASCII case, as SQLite's LIKE does."""
NAMES: Final = (LIKE, ILIKE)
_ESCAPE: Final = "\\"
_ANY: Final = None
"""Stands for `_` in a part of a pattern."""

_Part = tuple[str | None, ...]


def matches(pattern: str, stored: bytes, *, folds_case: bool, must_end: Callable[[], bool]) -> bool | None:
    """Whether the text matches the bound pattern; None when ``must_end`` said so meanwhile.

    ``stored`` is UTF-8. SQLite's LIKE reads a text up to its first NUL, and so does this.
    """
    text_bytes = stored.partition(b"\0")[0]
    if folds_case:
        text_bytes, pattern = text_bytes.lower(), pattern.encode().lower().decode()
    text = text_bytes.decode(errors="replace")
    first, *rest = _parts(pattern)
    if not rest:
        return len(text) == len(first) and _fits(first, text, 0)
    last = rest.pop()
    end = len(text) - len(last)
    if end < len(first) or not _fits(first, text, 0) or not _fits(last, text, end):
        return False
    at = len(first)
    for part in rest:
        # The leftmost place is the best one: it leaves most of the text to the parts that follow.
        if must_end():
            return None
        found = _found(part, text, at, end, must_end)
        if found is None or found < 0:
            return None if found is None else False
        at = found + len(part)
    return True


def _parts(pattern: str) -> list[_Part]:
    """What stands between the `%`."""
    parts: list[list[str | None]] = [[]]
    characters: Iterator[str] = iter(pattern)
    for character in characters:
        if character == "%":
            parts.append([])
        elif character == "_":
            parts[-1].append(_ANY)
        else:
            parts[-1].append(next(characters, _ESCAPE) if character == _ESCAPE else character)
    return [tuple(part) for part in parts]


def _fits(part: _Part, text: str, at: int) -> bool:
    return all(wanted is _ANY or text[at + position] == wanted for position, wanted in enumerate(part))


def _found(part: _Part, text: str, start: int, end: int, must_end: Callable[[], bool]) -> int | None:
    """The first place of the part in the text between the two, -1 without one, None when it must end."""
    if _ANY not in part:
        return text.find("".join(each for each in part if each is not None), start, end)
    if all(each is _ANY for each in part):
        return start if start + len(part) <= end else -1
    # Shift-And: a bit for each position of the part that the text read so far may stand at.
    everywhere = sum(1 << position for position, wanted in enumerate(part) if wanted is _ANY)
    masks = {
        letter: everywhere | sum(1 << position for position, wanted in enumerate(part) if wanted == letter)
        for letter in set(part)
        if letter is not None
    }
    state, whole = 0, 1 << (len(part) - 1)
    for piece in range(start, end, limits.PATTERN_STEPS_PER_CHECK):
        if must_end():
            return None
        for position in range(piece, min(end, piece + limits.PATTERN_STEPS_PER_CHECK)):
            state = ((state << 1) | 1) & masks.get(text[position], everywhere)
            if state & whole:
                return position - len(part) + 1
    return -1
