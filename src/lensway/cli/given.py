"""Secrets of the server from its environment: each in a variable, or in a file that `…_FILE` names."""

from __future__ import annotations

import pathlib
from collections.abc import Mapping
from typing import Final

from lensway.auth.secret import bare
from lensway.errors import ErrorCode, LenswayError

_FILE: Final = "_FILE"
_SECRET_BYTES_MAX: Final = 64 * 1024


def secret_given(environment: Mapping[str, str], name: str) -> str | None:
    """The secret without what editors and shells leave around it (a byte-order mark, line ends, quotes), or None.

    Raises:
        LenswayError: INVALID_REQUEST naming the variable when its file cannot be read, or both variables are set.
    """
    value, path = environment.get(name), environment.get(name + _FILE)
    if not path:
        return bare(value) or None if value else None
    if value:
        raise LenswayError(
            ErrorCode.INVALID_REQUEST, f"{name} and {name}{_FILE} are both set", hint="Unset one of the two."
        )
    try:
        with pathlib.Path(path).open("rb") as file:
            text = file.read(_SECRET_BYTES_MAX + 1).decode("utf-8")
    except (OSError, UnicodeDecodeError):
        raise LenswayError(
            ErrorCode.INVALID_REQUEST,
            f"{name}{_FILE} names {path}, which cannot be read as text",
            hint="Check the path and its permissions.",
        ) from None
    if not (found := bare(text)):
        raise LenswayError(
            ErrorCode.INVALID_REQUEST, f"{name}{_FILE} names {path}, which is empty", hint="Write the secret into it."
        )
    return found
