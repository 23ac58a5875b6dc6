"""A cache with two bounds, entries and bytes, for what is made from a shape.

Callers choose how large shapes are, so a bound on entries alone would not bound memory. Two generations instead of an exact
order of use: each step is one operation on a dict, so that threads need no lock, and a race costs at most one more making.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Generic, TypeVar

_Key = TypeVar("_Key", bound=Hashable)
_Value = TypeVar("_Value")


class BoundedCache(Generic[_Key, _Value]):
    """Keeps what was used lately. Holds at most ``entries_max`` entries whose sizes add up to at most ``bytes_max``."""

    def __init__(self, *, entries_max: int, bytes_max: int) -> None:
        # Each generation may fill half of the bounds.
        self._entries_max = max(1, entries_max // 2)
        self._bytes_max = bytes_max // 2
        self._young: dict[_Key, tuple[_Value, int]] = {}
        self._old: dict[_Key, tuple[_Value, int]] = {}
        self._young_bytes = 0

    def __len__(self) -> int:
        return len(self._young.keys() | self._old.keys())

    def get(self, key: _Key) -> _Value | None:
        """What was put under this key, or None."""
        found = self._young.get(key)
        if found is not None:
            return found[0]
        found = self._old.get(key)
        if found is None:
            return None
        self.put(key, *found)
        return found[0]

    def put(self, key: _Key, value: _Value, size_bytes: int) -> None:
        """Keep this value; one that is too large for its generation is not kept."""
        if size_bytes > self._bytes_max:
            return
        if len(self._young) >= self._entries_max or self._young_bytes + size_bytes > self._bytes_max:
            self._old, self._young, self._young_bytes = self._young, {}, 0
        if key not in self._young:
            self._young_bytes += size_bytes
        self._young[key] = (value, size_bytes)
