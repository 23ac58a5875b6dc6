"""The database as each place sees it: it answers, is slow, refuses, or says nothing; and every statement that it runs."""

from __future__ import annotations

import asyncio
import enum
from collections.abc import Hashable, Mapping
from typing import TYPE_CHECKING, Final

import msgspec

from lensway.bridges.contract import AddressPolicy, Execution, RowSink
from lensway.bridges.kit.failures import query_failed, unreachable
from lensway.errors import ErrorCode, LenswayError
from lensway.query.result import ResultEnd, RowFormat

if TYPE_CHECKING:
    from lensway.testing.simulation.witness import Witness

_CANCEL_SECONDS: Final = 0.02
"""A statement that is cancelled is gone a moment later."""
_SILENCE_SECONDS: Final = 2.0
"""After so long without a word the execution library gives a connection up."""
_SLOW_FACTOR: Final = 10


class Weather(enum.Enum):
    """How the database is, seen from one place."""

    FAIR = "fair"
    SLOW = "slow"
    REFUSED = "refused"
    SILENT = "silent"


class Ask(msgspec.Struct, frozen=True):
    """What one job asks of the database: so many parts of so many bytes, each after so many milliseconds; or a failure."""

    job: int
    parts: int
    size: int
    milliseconds: int
    is_wrong: bool = False

    def row(self, attempt: int, part: int) -> bytes:
        """One part of the result; it says what it belongs to."""
        return f"{self.job}.{attempt}.{part};".encode().ljust(self.size, b".")

    def rows(self, attempt: int) -> bytes:
        """The whole result, as this attempt gives it."""
        return b"".join(self.row(attempt, part) for part in range(self.parts))


encode_ask: Final = msgspec.msgpack.Encoder().encode
decode_ask: Final = msgspec.msgpack.Decoder(Ask).decode


class FakeLibrary:
    """Executes by waiting. The seam's fake of the execution library, for one process."""

    def __init__(self, place: str, witness: Witness, weather: Mapping[str, Weather]) -> None:
        self.place = place
        self.running: set[tuple[int, int]] = set()
        self._witness = witness
        self._weather = weather

    def encodings(self) -> tuple[str, ...]:
        """Every format."""
        return tuple(each.value for each in RowFormat)

    def installed(self) -> Mapping[str, str]:
        """One bridge."""
        return {"postgres": "fake"}

    def speaks(self, bridge: str, dialect: str) -> bool:
        """Every dialect."""
        return True

    def check(self, bridge: str, config: Mapping[str, object]) -> None:
        """Every setting is good."""

    def restrict(self, policy: AddressPolicy) -> None:
        """Every address is good."""

    def condition(self, key: Hashable) -> str:
        """Nothing holds a source back here."""
        return ""

    def open_keys(self) -> tuple[Hashable, ...]:
        """Nothing is kept."""
        return ()

    async def forget(self, key: Hashable) -> None:
        """Nothing is kept."""

    async def close(self) -> None:
        """Nothing is open."""

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
        """Wait and write, as the payload says."""
        if kind == "probe":
            await self._connect()
            return ResultEnd(rows=1, bytes=0)
        ask = decode_ask(payload)
        mark = (ask.job, int(execution.tag.rpartition("/")[2]))
        self._witness.statement_begins(self.place, *mark)
        self.running.add(mark)
        try:
            async with asyncio.timeout_at(execution.deadline):
                return await self._run(ask, mark[1], sink)
        except TimeoutError:
            raise LenswayError(ErrorCode.QUERY_TIMEOUT, "the deadline passed") from None
        except asyncio.CancelledError:
            await asyncio.sleep(_CANCEL_SECONDS)
            raise
        finally:
            self.running.discard(mark)

    async def _run(self, ask: Ask, attempt: int, sink: RowSink) -> ResultEnd:
        await self._connect()
        if ask.is_wrong:
            raise query_failed("undefined_column", "There is no such column")
        for part in range(ask.parts):
            weather = self._weather.get(self.place)
            await asyncio.sleep(ask.milliseconds * (_SLOW_FACTOR if weather is Weather.SLOW else 1) / 1000)
            await self._connect(then="reset")
            self._witness.step(self.place)
            await sink.write(ask.row(attempt, part))
        return ResultEnd(rows=ask.parts, bytes=ask.parts * ask.size)

    async def _connect(self, then: str = "refused") -> None:
        match self._weather.get(self.place):
            case Weather.REFUSED:
                await asyncio.sleep(0.005)
                raise unreachable("tcp", then)
            case Weather.SILENT:
                await asyncio.sleep(_SILENCE_SECONDS)
                raise unreachable("tcp", "timeout")
            case _:
                pass
