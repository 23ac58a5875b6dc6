"""Whose limit a failed request met: that of the key, the lens, the runner's local policy, or the server; and what to do. Pure."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Final, NamedTuple

import msgspec

from lensway.catalog.records import KeyLimits, Lens
from lensway.errors import POLICY_LIMIT, ErrorCode, Failure
from lensway.usecases.bounds import Bounds


class _Limit(NamedTuple):
    """One kind of limit: its attribute, its name in declarations, and the option of `lensway keys create`."""

    attribute: str
    declared: str
    option: str


_ROWS: Final = _Limit("max_rows", "maxRows", "--max-rows")
_BYTES: Final = _Limit("max_bytes", "maxBytes", "--max-bytes")
_ROW_BYTES: Final = _Limit("max_row_bytes", "maxRowBytes", "--max-row-bytes")
_TIME: Final = _Limit("timeout_ms", "timeoutMs", "--timeout-ms")
_OF: Final[Mapping[object, _Limit]] = {"rows": _ROWS, "bytes": _BYTES}


class WhoseLimit(msgspec.Struct, frozen=True, gc=False):
    """Explains the failures of one request."""

    lens: Lens
    key: KeyLimits
    bounds: Bounds
    is_export: bool

    def __call__(self, failure: Failure) -> Failure:
        """The failure, with the owner of the limit and what to do about it; other failures as they are."""
        match failure.code:
            case ErrorCode.LIMIT_EXCEEDED if (kind := _OF.get(failure.details.get("of"))) is not None:
                return self._attributed(failure, kind, failure.details.get("limit"), self._less(kind))
            case ErrorCode.ROW_TOO_LARGE:
                return self._attributed(failure, _ROW_BYTES, failure.details.get("maxRowBytes"), "Select fewer fields")
            case ErrorCode.QUERY_TIMEOUT if "class" not in failure.details:
                kept = "Request less data, add an index for the filter and the order"
                return self._attributed(failure, _TIME, self.bounds.timeout_ms, kept)
            case _:
                return failure

    def _less(self, kind: _Limit) -> str:
        ways = ["Narrow it with `where`"]
        if kind is not _ROWS:
            ways.append("select fewer fields")
        if not self.is_export:
            ways.append("request a smaller page")
        return ", ".join(ways)

    def _attributed(self, failure: Failure, kind: _Limit, limit: object, less: str) -> Failure:
        owner, whose, remedy = self._owner(failure, kind, limit)
        if not owner:
            return failure
        return dataclasses.replace(
            failure,
            message=f"{failure.message}: {whose}",
            hint=f"{less}, or {remedy}.",
            details={**failure.details, "limitOf": owner},
        )

    def _owner(self, failure: Failure, kind: _Limit, limit: object) -> tuple[str, str, str]:
        if failure.details.get("limitOf") == POLICY_LIMIT:
            rule = f"{kind.attribute.removeprefix('max_')}_max"
            return (
                POLICY_LIMIT,
                f"the limit of the runner's local policy (`{rule}`)",
                f"ask the owner of the runner's network to raise `{rule}`",
            )
        if getattr(self.key, kind.attribute) == limit:
            return "key", f"the limit of this key ({kind.option})", "use a key with a higher limit"
        declared = f"limits.{kind.declared}"
        if getattr(self.lens.limits, kind.attribute) == limit:
            return "lens", f"the limit of lens '{self.lens.name}' ({declared})", f"raise {declared} of the lens"
        if kind is _TIME:
            return "", "", ""
        if kind is _BYTES and not self.is_export:
            return "server", "the server's limit of a page", "export it"
        default = f"the server's default for lenses without {declared}"
        return "server", default, f"set {declared} of lens '{self.lens.name}'"
