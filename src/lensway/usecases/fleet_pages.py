"""The fleet a page at a time: what lists of runners and sources show, without HTTP and without holding up the loop.

The work is proportional to what a page shows, plus one pass over the environment for states and warnings. That pass is kept
until something happens, and gives way to queries every few milliseconds.
"""

from __future__ import annotations

import asyncio
import dataclasses
import functools
import re
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, Final, TypeVar

from lensway import limits
from lensway.auth.caller import Caller
from lensway.catalog import rules
from lensway.catalog.records import Change, Runner, Source
from lensway.catalog.snapshot import Snapshot
from lensway.catalog.warnings import Warning as CatalogWarning
from lensway.catalog.warnings import WarningCode, sorted_warnings, warnings_of_change, warnings_stepwise
from lensway.clock import Clock
from lensway.fleet import RunnerState, RunnerStatus
from lensway.ids import EnvironmentId, RunnerId
from lensway.usecases.desk import Desk
from lensway.usecases.fleet_view import runner_document, status_of
from lensway.usecases.sources import source_answer

_NUMBERS: Final = re.compile("([0-9]+)")
_NAMES_KEPT: Final = 32_768
ADVICE: Final = (WarningCode.SINGLE_RUNNER, WarningCode.REPLICAS_DIFFER, WarningCode.GOES_INLINE)
"""What may go wrong, as against what is wrong."""
SOUND: Final = (RunnerState.HEALTHY, RunnerState.CONNECTING)
Record = TypeVar("Record")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ListQuery:
    """What a list shows: rows with this text, only problems, which page. ``opened`` are the rows that show everything."""

    text: str = ""
    only_problems: bool = False
    page: int = 1
    opened: tuple[str, ...] = ()
    size: int = limits.CONSOLE_ROWS_MAX


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """The states and warnings of one environment, and the moment that they belong to."""

    snapshot: Snapshot
    sequence: int
    taken_at: float
    statuses: Mapping[RunnerId, RunnerStatus]
    of_runner: Mapping[str, Sequence[CatalogWarning]]
    of_source: Mapping[str, Sequence[CatalogWarning]]
    problems: int
    """Causes, not symptoms: runners that are not as they should be, and sources that no runner serves."""


class FleetPages:
    """Pages of runners and sources of one environment, with their warnings."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._standings: dict[EnvironmentId, Standing] = {}
        self._locks: defaultdict[EnvironmentId, asyncio.Lock] = defaultdict(asyncio.Lock)

    def mark(self) -> tuple[int, int]:
        """A value that differs as soon as the catalog changed or something happened."""
        return self._desk.snapshot().revision, self._desk.hub.sequence

    def check_room(self, caller: Caller) -> None:
        """Raises LenswayError OVERLOADED when `changes` would."""
        self._desk.hub.check_room(caller.environment.id, caller.identity.key)

    def until_ended(self, caller: Caller, call: Callable[[], None]) -> AbstractContextManager[None]:
        """Within the block, ``call`` is called as soon as the caller's key or environment ends."""
        return self._desk.endings.watched(call, caller.identity.key, caller.environment.id)

    async def changes(self, caller: Caller) -> AsyncIterator[None]:
        """One item for each thing that happens in the caller's environment. Raises LenswayError OVERLOADED."""
        async for _ in self._desk.hub.watch(caller.environment.id, caller.identity.key):
            yield None

    async def problems(self, caller: Caller) -> int:
        """How many runners and sources of the environment have a fault."""
        return (await self.standing(caller.environment.id)).problems

    async def runners(self, caller: Caller, query: ListQuery) -> dict[str, Any]:
        """One page of runners with counts by state; each with its sources, instances and warnings."""
        pace = Pace(self._desk.clock)
        standing = await self.standing(caller.environment.id)
        snapshot = standing.snapshot
        matching: list[Runner] = []
        everyone = sorted(
            snapshot.runners(caller.environment.id), key=lambda each: (each.network or "", natural(each.name))
        )
        for runner in everyone:
            if query.only_problems and not _is_problem(snapshot, standing, runner):
                continue
            if has_text(query.text, _texts_of(snapshot, standing, runner)):
                matching.append(runner)
            await pace.give_way()
        documents = []
        for runner in page_of(matching, query):
            document = runner_document(snapshot, runner, self._desk.dispatcher, self._desk.clock)
            names = {source["name"] for source in document["sources"]}
            found = [*standing.of_runner.get(runner.name, ()), *_unnamed(standing, names)]
            document["causes"] = causes(snapshot, runner.environment, sorted_warnings(found), source_name)
            documents.append(document)
            await pace.give_way()
        states: dict[str, int] = {}
        for status in standing.statuses.values():
            states[status.state.value] = states.get(status.state.value, 0) + 1
        return {
            "runners": documents,
            "total": len(everyone),
            "matching": len(matching),
            "states": states,
            "problems": standing.problems,
            "sources": len(snapshot.sources(caller.environment.id)),
        }

    async def sources(self, caller: Caller, query: ListQuery) -> dict[str, Any]:
        """One page of sources, each with where it is executed and its warnings."""
        pace = Pace(self._desk.clock)
        standing = await self.standing(caller.environment.id)
        snapshot = standing.snapshot
        everything = snapshot.sources(caller.environment.id)
        matching: list[Source] = []
        for source in sorted(everything, key=lambda each: natural(each.name)):
            if query.only_problems and not has_fault(standing.of_source.get(source.name, ())):
                continue
            runners = map(snapshot.runner_by_id, snapshot.runners_of(source.environment, source.id))
            if has_text(query.text, (source.name, source.bridge, *(each.name for each in runners if each))):
                matching.append(source)
            await pace.give_way()
        documents = []
        for source in page_of(matching, query):
            document = source_answer(snapshot, source)
            warnings = standing.of_source.get(source.name, ())
            document["causes"] = causes(snapshot, source.environment, warnings, runner_name)
            document["states"] = {
                runner.name: standing.statuses[runner.id].state.value
                for runner in map(snapshot.runner_by_id, snapshot.runners_of(source.environment, source.id))
                if runner is not None and runner.id in standing.statuses
            }
            documents.append(document)
            await pace.give_way()
        return {
            "sources": documents,
            "total": len(everything),
            "matching": len(matching),
            "problems": standing.problems,
        }

    def free_sources(self, caller: Caller, runner: str, text: str, *, limit: int) -> dict[str, Any]:
        """Sources that the runner does not serve yet, by part of their names. Raises LenswayError NOT_FOUND."""
        snapshot = self._desk.snapshot()
        found = rules.require_runner(snapshot, caller.environment.id, runner)
        taken = {source.id for source in snapshot.sources_of(found.environment, found.id)}
        names = sorted(
            source.name
            for source in snapshot.sources(caller.environment.id)
            if source.id not in taken and has_text(text, (source.name,))
        )
        return {"runner": found.name, "names": names[:limit], "more": max(0, len(names) - limit)}

    def consequences(
        self, caller: Caller, runner: str, sources: Sequence[str], *, is_assigning: bool
    ) -> dict[str, Any]:
        """The warnings that a change would add, and the lenses of its sources. Raises LenswayError NOT_FOUND."""
        environment = caller.environment.id

        def rule(snapshot: Snapshot) -> Sequence[Change]:
            if is_assigning:
                return rules.assign(snapshot, environment, runner, sources, at=self._desk.now_text())
            return rules.unassign(snapshot, environment, runner, sources)

        before = self._desk.snapshot()
        changes = rule(before)
        after = before.after(changes, revision=before.revision + 1)
        fleet = self._desk.fleet
        standing = warnings_of_change(before, before, changes, environment=environment, fleet=fleet)
        coming = warnings_of_change(before, after, changes, environment=environment, fleet=fleet)
        found = [rules.require_source(before, environment, source) for source in sources]
        lenses = [lens.name for source in found for lens in before.lenses_of(environment, source.id)]
        new = causes(after, environment, [one for one in coming if one not in standing], source_name)
        moves = [
            {"source": source.name, "before": places_of(before, source), "after": places_of(after, source)}
            for source in found
        ]
        return {"causes": new, "lenses": lenses, "moves": moves}

    async def standing(self, environment: EnvironmentId) -> Standing:
        """The states and warnings of an environment as they are now; collected once for all who ask."""
        async with self._locks[environment]:
            kept = self._standings.get(environment)
            desk, now = self._desk, self._desk.clock.monotonic()
            if (
                kept is not None
                and kept.snapshot is desk.snapshot()
                and kept.sequence == desk.hub.sequence
                and now - kept.taken_at < limits.CONSOLE_STANDING_SECONDS
            ):
                return kept
            self._standings[environment] = found = await self._take(environment, now)
            return found

    async def _take(self, environment: EnvironmentId, now: float) -> Standing:
        pace = Pace(self._desk.clock)
        snapshot, sequence = self._desk.snapshot(), self._desk.hub.sequence
        statuses: dict[RunnerId, RunnerStatus] = {}
        problems = 0
        for runner in snapshot.runners(environment):
            statuses[runner.id] = status_of(snapshot, runner, self._desk.dispatcher, now)
            state = statuses[runner.id].state
            is_idle = state is RunnerState.NEVER_CONNECTED and not snapshot.sources_of(environment, runner.id)
            problems += state not in SOUND and not is_idle
            await pace.give_way()
        warnings: list[CatalogWarning] = []
        for found in warnings_stepwise(snapshot, environment=environment, fleet=self._desk.fleet):
            warnings += found
            await pace.give_way()
        of_runner: defaultdict[str, list[CatalogWarning]] = defaultdict(list)
        of_source: defaultdict[str, list[CatalogWarning]] = defaultdict(list)
        for warning in sorted_warnings(warnings):
            if warning.runner is not None:
                of_runner[warning.runner].append(warning)
            if warning.source is not None:
                of_source[warning.source].append(warning)
            problems += warning.code is WarningCode.NO_LIVE_RUNNER_LEFT
            await pace.give_way()
        return Standing(
            snapshot=snapshot,
            sequence=sequence,
            taken_at=now,
            statuses=statuses,
            of_runner=of_runner,
            of_source=of_source,
            problems=problems,
        )


class Pace:
    """Gives way to the loop's other work after each slice of time."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._since = clock.monotonic()

    async def give_way(self) -> None:
        """Let the loop do other work if this slice of time is over."""
        if self._clock.monotonic() - self._since >= limits.CONSOLE_SLICE_SECONDS:
            await asyncio.sleep(limits.CONSOLE_SLICE_SECONDS)
            self._since = self._clock.monotonic()


def places_of(snapshot: Snapshot, source: Source) -> Sequence[str]:
    """The names of the runners that execute a source; none for the service itself."""
    runners = map(snapshot.runner_by_id, snapshot.runners_of(source.environment, source.id))
    return sorted(runner.name for runner in runners if runner is not None)


def causes(
    snapshot: Snapshot,
    environment: EnvironmentId,
    warnings: Iterable[CatalogWarning],
    subject: Callable[[CatalogWarning], str | None],
) -> list[dict[str, Any]]:
    """The warnings by code: how many and on what; one alone with its message.

    Runners that were taken out on purpose are a cause of their own, with their own remedy.
    """
    groups: dict[tuple[str, str], list[CatalogWarning]] = {}
    for warning in warnings:
        groups.setdefault((warning.code.value, _mark(snapshot, environment, warning)), []).append(warning)
    return [
        {
            "code": code,
            "mark": mark,
            "names": sorted({name for one in members if (name := subject(one)) is not None}),
            "message": members[0].message if len(members) == 1 else "",
        }
        for (code, mark), members in groups.items()
    ]


def _mark(snapshot: Snapshot, environment: EnvironmentId, warning: CatalogWarning) -> str:
    """Why a runner is away on purpose: ``draining``, ``revoked``, or nothing."""
    if warning.code is not WarningCode.RUNNER_OFFLINE or warning.runner is None:
        return ""
    runner = snapshot.runner(environment, warning.runner)
    if runner is None:
        return ""
    if runner.is_revoked:
        return "revoked"
    return "draining" if runner.is_draining else ""


def source_name(warning: CatalogWarning) -> str | None:
    """The source that a warning names."""
    return warning.source


def runner_name(warning: CatalogWarning) -> str | None:
    """The runner that a warning names."""
    return warning.runner


def page_of(records: Sequence[Record], query: ListQuery) -> Sequence[Record]:
    """The records on the page that the query asks for."""
    start = (query.page - 1) * query.size
    return records[start : start + query.size]


@functools.lru_cache(maxsize=_NAMES_KEPT)
def natural(name: str) -> tuple[tuple[int, str], ...]:
    """Sorts fra-2 before fra-10. Lists of thousands are sorted at every rendering, so keys are kept."""
    return tuple((int(part), "") if part.isdecimal() else (0, part) for part in _NUMBERS.split(name))


def has_text(text: str, candidates: Iterable[str]) -> bool:
    """True when one of the candidates contains the text; upper and lower case are the same."""
    wanted = text.casefold()
    return not wanted or any(wanted in each.casefold() for each in candidates)


def _texts_of(snapshot: Snapshot, standing: Standing, runner: Runner) -> Iterable[str]:
    yield runner.name
    yield runner.network or ""
    yield standing.statuses[runner.id].state.value.replace("_", " ")
    for source in snapshot.sources_of(runner.environment, runner.id):
        yield source.name


def _unnamed(standing: Standing, sources: Iterable[str]) -> Iterable[CatalogWarning]:
    """The warnings of these sources that name no runner."""
    for name in sources:
        for warning in standing.of_source.get(name, ()):
            if warning.runner is None:
                yield warning


def _is_problem(snapshot: Snapshot, standing: Standing, runner: Runner) -> bool:
    state = standing.statuses[runner.id].state
    if state is RunnerState.NEVER_CONNECTED:
        return bool(snapshot.sources_of(runner.environment, runner.id))
    return state not in SOUND or has_fault(standing.of_runner.get(runner.name, ()))


def has_fault(warnings: Iterable[CatalogWarning]) -> bool:
    """True when one of the warnings says what is wrong, as against what may go wrong."""
    return any(warning.code not in ADVICE for warning in warnings)
