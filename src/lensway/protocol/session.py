"""What the session machines of both peers share: tables of transitions, assignment sets in parts, numbered heartbeats.

`gateway_session` and `runner_session` hold the two machines. Each has one entry, ``handle(stimulus, now)``, that gives back
instructions; a stimulus that its table does not list raises and changes nothing.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Sequence
from typing import TypeVar

import msgspec

from lensway.limits import (
    ASSIGNMENT_PART_BYTES_MAX,
    ASSIGNMENT_PARTS_MAX,
    CONTROL_FRAME_BYTES_MAX,
    SOURCES_PER_RUNNER_MAX,
)
from lensway.protocol.errors import ProtocolError
from lensway.protocol.frames import AssignedSource, AssignmentSet
from lensway.transitions import Table

State = TypeVar("State", bound=enum.Enum)
Stimulus = TypeVar("Stimulus", bound=enum.Enum)


class HeartbeatNumbers:
    """Numbers of our own heartbeats and when each was sent, until the peer has acknowledged them."""

    def __init__(self) -> None:
        self.last = 0
        self.acknowledged = 0
        self._sent_at: dict[int, float] = {}

    def next(self, now: float) -> int:
        """The number of a heartbeat that is sent now."""
        self.last += 1
        self._sent_at[self.last] = now
        return self.last

    def acknowledge(self, sequence: int) -> float | None:
        """When the heartbeat that the peer acknowledges was sent; None when it acknowledges nothing new.

        Raises:
            ProtocolError: when it acknowledges what was never sent.
        """
        if sequence > self.last:
            raise ProtocolError("ack_of_the_future")
        if sequence <= self.acknowledged:
            return None
        sent_at = self._sent_at[sequence]
        for number in range(self.acknowledged + 1, sequence + 1):
            del self._sent_at[number]
        self.acknowledged = sequence
        return sent_at


class SetAssembler:
    """Parts of assignment sets → whole sets. The link keeps order, so a part that is not the next one is a broken peer."""

    def __init__(self) -> None:
        self._revision = 0
        self._parts = 0
        self._sources: list[AssignedSource] = []
        self._next = 0

    def add(self, part: AssignmentSet) -> tuple[AssignedSource, ...] | None:
        """The whole set when this part completes it, else None. A first part always starts a new set.

        Raises:
            ProtocolError: for a part out of its order, or of a set of too many parts.
        """
        if not 1 <= part.parts <= ASSIGNMENT_PARTS_MAX or part.part >= part.parts:
            raise ProtocolError("assignment_part")
        if part.part == 0:
            self._revision, self._parts, self._sources, self._next = part.revision, part.parts, [], 0
        if (part.revision, part.parts, part.part) != (self._revision, self._parts, self._next):
            raise ProtocolError("assignment_part")
        if len(self._sources) + len(part.sources) > SOURCES_PER_RUNNER_MAX:
            raise ProtocolError("assignment_set_too_large")
        self._sources.extend(part.sources)
        self._next += 1
        if self._next < self._parts:
            return None
        sources, self._sources, self._parts = tuple(self._sources), [], 0
        return sources


def parts_of(revision: int, sources: Sequence[AssignedSource]) -> tuple[AssignmentSet, ...]:
    """The set in as many parts as its size needs; an empty set is one empty part.

    Raises:
        ProtocolError: when one source, or the set, is larger than the limits.
    """
    groups: list[list[AssignedSource]] = [[]]
    group_bytes = 0
    for source in sources:
        size = len(msgspec.msgpack.encode(source))
        if size > CONTROL_FRAME_BYTES_MAX // 2:
            raise ProtocolError("assigned_source_too_large")
        if groups[-1] and group_bytes + size > ASSIGNMENT_PART_BYTES_MAX:
            groups.append([])
            group_bytes = 0
        groups[-1].append(source)
        group_bytes += size
    if len(groups) > ASSIGNMENT_PARTS_MAX or len(sources) > SOURCES_PER_RUNNER_MAX:
        raise ProtocolError("assignment_set_too_large")
    return tuple(
        AssignmentSet(revision=revision, part=number, parts=len(groups), sources=tuple(group))
        for number, group in enumerate(groups)
    )


def draw(table: Table[State, Stimulus], states: Iterable[State]) -> str:
    """The table as a Mermaid state diagram for the docs. Stimuli that lead to the same state share an arrow."""
    lines = [f"%% {table.name}", "stateDiagram-v2", f"    [*] --> {table.initial.value}"]
    for state in states:
        by_target: dict[State, list[str]] = {}
        for (start, stimulus), target in table.rows.items():
            if start is state:
                by_target.setdefault(target, []).append(stimulus.value)
        lines += [f"    {state.value} --> {target.value}: {', '.join(names)}" for target, names in by_target.items()]
        if not by_target:
            lines.append(f"    {state.value} --> [*]")
    return "\n".join(lines)
