"""Finds a dialect by its name, and what the databases of a kind can do."""

from __future__ import annotations

import functools
import importlib
from types import ModuleType

import msgspec

from lensway import kinds
from lensway.dialects.base import Dialect
from lensway.errors import ErrorCode, LenswayError
from lensway.kinds import BUILT_IN, Kinds
from lensway.query.capabilities import Capabilities


def dialect_of(name: str) -> type[Dialect]:
    """The dialect of this name. Raises KeyError for an undeclared one."""
    dialect: type[Dialect] = _module(name).Dialect
    return dialect


@functools.cache
def capabilities_of(bridge: str, kinds: Kinds = BUILT_IN, dialect: str = "") -> Capabilities:
    """What databases of this kind can do: the capabilities of their dialect that the bridge can serve.

    ``dialect`` is one of the kind's; empty for its first.

    Raises:
        LenswayError: INVALID_REQUEST for a kind or a dialect that this installation does not serve.
    """
    kind = kinds.get(bridge)
    if kind is None or not kind.is_served:
        raise LenswayError(
            ErrorCode.INVALID_REQUEST,
            f"bridge {bridge!r} is not available in this version",
            hint=f"available: {', '.join(sorted(each.name for each in kinds.served))}",
        )
    if dialect and dialect not in kind.dialects:
        raise LenswayError(
            ErrorCode.INVALID_REQUEST,
            f"bridge {bridge!r} does not speak the dialect {dialect!r} in this version",
            hint=f"available: {', '.join(kind.dialects)}",
        )
    known: Capabilities = _module(dialect or kind.dialects[0]).CAPABILITIES
    operators = frozenset(each for each in known.operators if each.value not in kind.lacks)
    return msgspec.structs.replace(known, bridge=kind.name, operators=operators)


@functools.cache
def _module(dialect: str) -> ModuleType:
    return importlib.import_module(kinds.DIALECTS[dialect])
