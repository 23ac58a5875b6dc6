"""The kinds of databases that this installation knows: the built-in ones, and those that other packages declare."""

from __future__ import annotations

import importlib.metadata

from lensway.errors import ErrorCode, LenswayError
from lensway.kinds import BUILT_IN, ENTRY_POINTS, Kind, Kinds


def installed_kinds() -> Kinds:
    """The declarations, read once at the start of a program.

    Raises:
        LenswayError: INVALID_REQUEST naming a package whose declaration cannot be used.
    """
    found = []
    for point in importlib.metadata.entry_points(group=ENTRY_POINTS):
        kind = point.load()
        if not isinstance(kind, Kind):
            package = point.dist.name if point.dist else "?"
            raise LenswayError(
                ErrorCode.INVALID_REQUEST,
                f"The entry point '{point.name}' of the package '{package}' is not a `lensway.kinds.Kind`",
                hint="Correct the package, or uninstall it.",
            )
        found.append(kind)
    try:
        return BUILT_IN.joined(found)
    except ValueError as error:
        raise LenswayError(ErrorCode.INVALID_REQUEST, f"The installed bridges conflict: {error}") from None
