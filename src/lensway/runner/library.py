"""What a runner needs of its executor: the execution library, or a fake of it in a simulation."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Protocol

from lensway.bridges.contract import AddressPolicy, Execution, RowSink
from lensway.query.result import ResultEnd


class Library(Protocol):
    """Executes jobs on sources that are told apart by a key; everything of one key shares connections."""

    def installed(self) -> Mapping[str, str]:
        """The bridges that can be used here, with their drivers' versions."""

    def encodings(self) -> Sequence[str]:
        """The formats that rows can be encoded in here."""

    def speaks(self, bridge: str, dialect: str) -> bool:
        """Whether the bridge speaks this dialect; an empty one is whichever it speaks first."""

    def check(self, bridge: str, config: Mapping[str, object]) -> None:
        """Refuse settings that cannot work or that the policy forbids. Contacts nothing. Raises LenswayError."""

    def restrict(self, policy: AddressPolicy) -> None:
        """Sources that are opened from now on obey this policy."""

    async def perform(
        self,
        key: Hashable,
        bridge: str,
        config: Mapping[str, object],
        *,
        kind: str,
        payload: bytes,
        execution: Execution,
        sink: RowSink,
    ) -> ResultEnd:
        """Do one job and write what it gives. Cancelling the task ends the statement first. Raises LenswayError."""

    def condition(self, key: Hashable) -> str:
        """What holds the source of this key back although it answers; empty for nothing."""

    async def forget(self, key: Hashable) -> None:
        """Close the connections of this key once what runs on them is over."""

    async def close(self) -> None:
        """Close everything; what runs is cancelled."""
