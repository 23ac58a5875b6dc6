"""What the scenarios must meet between them: a state that no seed ever reaches is a state that nothing is known about."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

OFTEN: Final = (
    "completed by inline",
    "completed by a runner",
    "no_runners_online",
    "source_requires_runner",
    "SOURCE_UNREACHABLE",
    "SOURCE_QUERY_FAILED",
    "QUERY_TIMEOUT",
    "overloaded",
    "gave up",
    "connection cut",
    "cut after rows were released",
    "a page overflowed",
    "limit_exceeded",
    "lost then completed",
    "repeated after rows were held",
    "unanswered then completed",
    "queued then completed",
    "waited then completed",
    "refused:not_assigned then completed",
    "refused:stale then completed",
    "failed:SOURCE_UNREACHABLE then completed",
    "a suspect is back",
    "a suspect was tried",
    "late accept",
    "stopped_rows",
    "lost by heartbeat_lost",
    "lost by closed_by_runner",
    "lost by revoked",
    "lost by unauthenticated",
    "lost by protocol_error",
    "node_stalled",
    "a runner fenced itself",
    "crashed at a step",
    "server crashed at a step",
    "server stopped",
    "paused",
    "frozen to gateway",
    "frozen to runner",
    "frozen to gateway to runner",
    "message repeat",
    "message overtake",
    "message lose",
    "drained by an operator",
    "unassigned",
    "completed after it was unassigned",
)
"""Reached many times in a thousand seeds."""
RARELY: Final = (
    "poison",
    "handed_back then completed",
    "an ejected pair was tried",
    "a slow pair was chosen",
    "forgotten_attempt",
    "lost by superseded",
    "a crowd",
)
"""Reached in some thousands of seeds."""


def never_reached(reached: Mapping[str, int], *, rarely_too: bool = True) -> Iterator[str]:
    """The states that these counts leave out."""
    for what in OFTEN + (RARELY if rarely_too else ()):
        if not reached.get(what):
            yield what
