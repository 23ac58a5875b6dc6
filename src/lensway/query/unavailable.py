"""What callers ask for by name that this version does not have: refused by that name, with another way, and never suggested."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from lensway.errors import ErrorCode, LenswayError

_VIEW: Final = "Declare a view that does it in the database, and a lens on the view"
_ARROW: Final = "or read the rows as Arrow and do it in DuckDB"
_MEMBERS: Final = f"Declare a view with the member as a column of its own, and a lens on the view, {_ARROW}."
_PATTERN: Final = (
    f"Use $like, $ilike, $contains, $startsWith or $endsWith. For more: {_VIEW[0].lower()}{_VIEW[1:]}, {_ARROW}."
)
MEMBERS_HINT: Final = _MEMBERS
"""For conditions on, and orders by, what lies inside a json or list field."""

KEYS: Final[Mapping[str, str]] = {
    "include": f"Declare a view that joins the tables, and a lens on the view, {_ARROW}; or query the other lens by its key.",
    "groupBy": f"{_VIEW}, {_ARROW}.",
    "measures": f"{_VIEW}, {_ARROW}. `POST /v1/count/LENS` counts rows.",
    "having": f"{_VIEW}, {_ARROW}.",
}
"""Keys of a request body."""

PATHS: Final[Mapping[str, str]] = {
    "/v1/aggregate/": f"This version does not support aggregates. {_VIEW}, {_ARROW}. `POST /v1/count/LENS` counts rows.",
}
"""Beginnings of paths."""
OPERATORS: Final[Mapping[str, str]] = {
    **dict.fromkeys(("$regex", "$regexp", "$iregex", "$options", "$match", "$imatch", "$similar", "$glob"), _PATTERN),
    **dict.fromkeys(("$search", "$text", "$fts"), _PATTERN),
    **dict.fromkeys(
        ("$elemMatch", "$all", "$any", "$size", "$type", "$has", "$hasAny", "$hasAll", "$overlaps"), _MEMBERS
    ),
    **dict.fromkeys(("$expr", "$where", "$mod", "$near", "$geoWithin"), f"{_VIEW}, {_ARROW}."),
    "$nor": 'Write {"$not": {"$or": […]}}.',
    "$between": 'Write {"$gte": …, "$lte": …}.',
    **dict.fromkeys(
        ("$isNull", "$null", "$is"), 'Write {"$exists": false} for NULL, {"$exists": true} for anything else.'
    ),
}
"""Operators of other query languages."""


def key_refusal(key: str) -> LenswayError:
    """The error for one of `KEYS`."""
    return LenswayError(
        ErrorCode.INVALID_REQUEST,
        f"{key}: this version of Lensway does not support {key!r}",
        hint=KEYS[key],
        details={"path": key},
    )


def relations_refusal(path: str) -> LenswayError:
    """The error for a lens with relations."""
    return LenswayError(
        ErrorCode.INVALID_REQUEST,
        f"{path}: this version of Lensway does not support relations between lenses",
        hint=f"Leave `relations` out. Declare a view that joins the tables, and a lens on the view, {_ARROW}.",
        details={"path": path},
    )
