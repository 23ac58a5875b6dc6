"""Text values of pattern operators, as they are bound, so that only the wildcards meant as such are wildcards."""

from __future__ import annotations

import enum
import re
from collections.abc import Mapping
from typing import Final

from lensway.query.conditions import Operator


class Transform(enum.Enum):
    """What becomes of a text value before it is bound."""

    NONE = "none"
    LIKE = "like"
    """`%` and `_` are wildcards, backslash is itself."""
    GLOB = "glob"
    """The same in GLOB's alphabet."""
    LIKE_PREFIX = "like_prefix"
    """The text before the first wildcard, and `%`: every match of LIKE matches this too, and an index serves it."""
    GLOB_PREFIX = "glob_prefix"
    """The same in GLOB's alphabet."""
    CONTAINS = "contains"
    STARTS_WITH = "starts_with"
    ENDS_WITH = "ends_with"
    SPELLINGS = "spellings"
    """A UUID, or a list of them, as a list in every way that it may be stored as text."""


FOLDING: Final[Mapping[Operator, Transform]] = {
    Operator.ILIKE: Transform.LIKE,
    Operator.CONTAINS: Transform.CONTAINS,
    Operator.STARTS_WITH: Transform.STARTS_WITH,
    Operator.ENDS_WITH: Transform.ENDS_WITH,
}
"""The operators that do not mind case."""

_GLOB: Final = str.maketrans({"%": "*", "_": "?", "*": "[*]", "?": "[?]", "[": "[[]"})
_BACKSLASH: Final = str.maketrans({"\\": "\\\\"})
_WILDCARD: Final = re.compile("[%_]")
_LITERAL: Final = str.maketrans({"\\": "\\\\", "%": "\\%", "_": "\\_"})


def bind_text(value: str, transform: Transform) -> str:
    """The value as it is bound under its transform. LIKE's escape character is the backslash."""
    match transform:
        case Transform.NONE | Transform.SPELLINGS:
            return value
        case Transform.LIKE:
            return value.translate(_BACKSLASH)
        case Transform.GLOB:
            return value.translate(_GLOB)
        case Transform.LIKE_PREFIX:
            return f"{_prefix(value).translate(_LITERAL)}%"
        case Transform.GLOB_PREFIX:
            return f"{_prefix(value).translate(_GLOB)}*"
        case Transform.CONTAINS:
            return f"%{value.translate(_LITERAL)}%"
        case Transform.STARTS_WITH:
            return f"{value.translate(_LITERAL)}%"
        case Transform.ENDS_WITH:
            return f"%{value.translate(_LITERAL)}"


def _prefix(pattern: str) -> str:
    return _WILDCARD.split(pattern, maxsplit=1)[0]
