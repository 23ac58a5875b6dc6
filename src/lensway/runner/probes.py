"""Which sources a runner looks at by itself: those of which no query has told it lately, in turns when there are very many."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

from lensway import limits
from lensway.runner.sources import READY, ServedSource


class Probes:
    """What was looked at, and what is being looked at now."""

    def __init__(self) -> None:
        self._contacts: dict[str, int] = {}
        self._under_way: set[str] = set()
        self._next = 0

    def due(self, served: Sequence[ServedSource]) -> list[ServedSource]:
        """The sources to look at now; asked once each period."""
        found: list[ServedSource] = []
        start = self._next % max(1, len(served))
        for step, source in enumerate((*served[start:], *served[:start])):
            if len(found) + len(self._under_way) >= limits.PROBES_AT_ONCE_MAX:
                self._next = start + step
                break
            if source.refusal is None and source.id not in self._under_way and not self._has_told(source):
                found.append(source)
        self._contacts = {source.id: source.contacts for source in served}
        return found

    @contextlib.contextmanager
    def under_way(self, source: ServedSource) -> Iterator[None]:
        """While a source is looked at, it is not due."""
        self._under_way.add(source.id)
        try:
            yield
        finally:
            self._under_way.discard(source.id)
            self._contacts[source.id] = source.contacts

    def _has_told(self, source: ServedSource) -> bool:
        """A query has reached it since the last period. An unreachable source is probed all the same."""
        return source.state == READY and source.contacts != self._contacts.get(source.id, source.contacts)
