"""What one process of a node showed of a connected instance, for the next process to go on with. For people only."""

from __future__ import annotations

import math
from collections.abc import Mapping

import msgspec

from lensway.ids import SourceId


class Standing(msgspec.Struct, frozen=True, kw_only=True):
    """An instance's state and the moments (monotonic) since which things are as they are."""

    is_draining: bool
    since: float
    marked_at: float
    """When an operator last drained or resumed it."""
    ready_since: float
    """Since when the last of its ready sources is ready."""
    sources: Mapping[SourceId, tuple[str, str, float]]
    """State, detail and since of the sources that are not ready."""

    def moved(self, seconds: float, *, latest: float = math.inf) -> Standing:
        """The same on a clock that is ahead by so much; ``latest`` is the last moment that can have been."""
        return Standing(
            is_draining=self.is_draining,
            since=min(self.since + seconds, latest),
            marked_at=min(self.marked_at + seconds, latest),
            ready_since=min(self.ready_since + seconds, latest),
            sources={id: (state, why, min(at + seconds, latest)) for id, (state, why, at) in self.sources.items()},
        )
