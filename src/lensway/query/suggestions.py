"""The known name that was probably meant. Its work is bounded, however long the word and however many the names."""

from __future__ import annotations

import bisect
import difflib
import itertools
from collections.abc import Iterable
from typing import Final

from lensway.limits import NAME_CHARACTERS_MAX, SUGGESTION_CANDIDATES_MAX, SUGGESTION_NAMES_MAX

_RATIO: Final = 0.6
"""Share of equal characters from which on two names are alike."""
_LENGTH_MAX: Final = 2 * NAME_CHARACTERS_MAX


def nearest(word: str, known: Iterable[str]) -> str | None:
    """The known name most similar to this word, compared without case, or None."""
    if not 0 < len(word) <= _LENGTH_MAX:
        return None
    folded = word.lower()
    shortest, longest = len(folded) * _RATIO / (2 - _RATIO), len(folded) * (2 - _RATIO) / _RATIO
    by_fold = {
        name.lower(): name for name in itertools.islice(known, SUGGESTION_NAMES_MAX) if shortest <= len(name) <= longest
    }
    if folded in by_fold:
        return by_fold[folded]
    candidates: Iterable[str] = by_fold
    if len(by_fold) > SUGGESTION_CANDIDATES_MAX:
        candidates = {
            *_beside(folded, by_fold),
            *(name[::-1] for name in _beside(folded[::-1], map(_reversed, by_fold))),
        }
    found = difflib.get_close_matches(folded, candidates, n=1, cutoff=_RATIO)
    return by_fold[found[0]] if found else None


def _beside(word: str, names: Iterable[str]) -> list[str]:
    """The names that have most of their beginning in common with the word."""
    ordered = sorted(names)
    at = bisect.bisect(ordered, word)
    reach = SUGGESTION_CANDIDATES_MAX // 4
    return ordered[max(0, at - reach) : at + reach]


def _reversed(name: str) -> str:
    return name[::-1]
