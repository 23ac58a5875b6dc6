"""One runner, one source, the matrix of both, and the problems of an environment: what detail pages of the fleet show."""

from __future__ import annotations

import enum
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final

from lensway import limits
from lensway.auth.caller import Caller
from lensway.catalog import rules
from lensway.catalog.records import Credentials, ExecutionMode, Runner, Source
from lensway.catalog.snapshot import Snapshot
from lensway.catalog.warnings import sorted_warnings
from lensway.usecases.desk import Desk
from lensway.usecases.events import HubEvent
from lensway.usecases.fleet_pages import (
    FleetPages,
    ListQuery,
    Pace,
    causes,
    has_fault,
    has_text,
    natural,
    page_of,
    runner_name,
    source_name,
)
from lensway.usecases.fleet_view import runner_document
from lensway.usecases.sources import source_answer


class RunnerAct(enum.StrEnum):
    """What can be done to a runner as a whole."""

    DRAIN = "drain"
    RESUME = "resume"
    ROTATE = "rotate"
    REVOKE = "revoke"
    DELETE = "delete"


_TAKES_OUT: Final = frozenset({RunnerAct.DRAIN, RunnerAct.REVOKE, RunnerAct.DELETE})


class FleetDetails:
    """What detail pages show. The work is proportional to one runner, one source or one page of the matrix."""

    def __init__(self, desk: Desk, fleet: FleetPages) -> None:
        self._desk = desk
        self._fleet = fleet

    async def runner(self, caller: Caller, name: str) -> dict[str, Any]:
        """A runner with its warnings, what shares its sources, and its latest events. Raises LenswayError NOT_FOUND."""
        standing = await self._fleet.standing(caller.environment.id)
        snapshot = standing.snapshot
        runner = rules.require_runner(snapshot, caller.environment.id, name)
        document = runner_document(snapshot, runner, self._desk.dispatcher, self._desk.clock)
        names = {source["name"] for source in document["sources"]}
        alone = (each for name in names for each in standing.of_source.get(name, ()) if each.runner is None)
        found = sorted_warnings([*standing.of_runner.get(runner.name, ()), *alone])
        document["causes"] = causes(snapshot, runner.environment, found, source_name)
        for source in document["sources"]:
            record = rules.require_source(snapshot, runner.environment, source["name"])
            source["lenses"] = len(snapshot.lenses_of(runner.environment, record.id))
            source["others"] = [each.name for each in self._runners_of(snapshot, record) if each.id != runner.id]
        document["events"] = list(self._events(caller, runner=runner.name))
        return document

    def effects(self, caller: Caller, name: str, act: RunnerAct) -> dict[str, Any]:
        """What an act on a runner does to each of its sources. Raises LenswayError NOT_FOUND."""
        snapshot = self._desk.snapshot()
        runner = rules.require_runner(snapshot, caller.environment.id, name)
        rows: list[dict[str, Any]] = []
        for source in snapshot.sources_of(runner.environment, runner.id):
            before = [each.name for each in self._runners_of(snapshot, source) if self._is_live(each)]
            after = list(before)
            if act in _TAKES_OUT:
                after = [each for each in before if each != runner.name]
            elif act is RunnerAct.RESUME and self._is_connected(runner):
                after = sorted({*before, runner.name}, key=natural)
            is_last = act is RunnerAct.DELETE and len(snapshot.runners_of(source.environment, source.id)) == 1
            rows.append(
                {
                    "source": source.name,
                    "before": before,
                    "after": after,
                    "is_inline": is_last and not _needs_runner(source),
                    "is_down": bool(before) and not after and not (is_last and not _needs_runner(source)),
                    "lenses": [lens.name for lens in snapshot.lenses_of(source.environment, source.id)],
                }
            )
        rows.sort(key=lambda row: (not row["is_down"], not row["is_inline"], len(row["after"]), natural(row["source"])))
        jobs = sum(session.load.outstanding for session in self._desk.dispatcher.fleet.sessions_of(runner.id))
        return {
            "runner": runner.name,
            "sources": rows,
            "lenses_down": sum(len(row["lenses"]) for row in rows if row["is_down"]),
            "jobs": jobs,
            "instances": len(list(self._desk.dispatcher.fleet.sessions_of(runner.id))),
            "overlap_hours": limits.TOKEN_OVERLAP_SECONDS // 3600,
        }

    def runner_names(self, caller: Caller) -> list[str]:
        """The names of the environment's runners, at most as many as a list to choose from shows."""
        snapshot = self._desk.snapshot()
        names = sorted((each.name for each in snapshot.runners(caller.environment.id)), key=natural)
        return names[: limits.CONSOLE_CHIPS_OPEN_MAX]

    async def source(self, caller: Caller, name: str) -> dict[str, Any]:
        """A source with where it executes, its warnings, its lenses and its latest tests. Raises LenswayError NOT_FOUND."""
        standing = await self._fleet.standing(caller.environment.id)
        snapshot = standing.snapshot
        source = rules.require_source(snapshot, caller.environment.id, name)
        document = source_answer(snapshot, source)
        warnings = standing.of_source.get(source.name, ())
        document["causes"] = causes(snapshot, source.environment, warnings, runner_name)
        document["places"] = [
            _place(
                runner_document(snapshot, each, self._desk.dispatcher, self._desk.clock, only=source.id), source.name
            )
            for each in self._runners_of(snapshot, source)
        ]
        document["lens_facts"] = [
            {
                "name": lens.name,
                "table": str(lens.definition.table),
                "fields": len(lens.definition.fields),
            }
            for lens in snapshot.lenses_of(source.environment, source.id)
        ]
        events = list(self._events(caller, source=source.name))
        document["tests"] = [each for each in events if each["kind"] == "test"][: limits.CONSOLE_EVENTS_MAX]
        document["events"] = events
        return document

    async def matrix(self, caller: Caller, query: ListQuery) -> dict[str, Any]:
        """One page of sources with the state at every runner that serves one of them; the worst first.

        The columns are the runners of the rows on show, so that a large fleet stays readable.
        """
        pace = Pace(self._desk.clock)
        standing = await self._fleet.standing(caller.environment.id)
        snapshot = standing.snapshot
        matching: list[Source] = []
        everything = snapshot.sources(caller.environment.id)
        for source in everything:
            warnings = standing.of_source.get(source.name, ())
            if query.only_problems and not has_fault(warnings):
                continue
            runners = self._runners_of(snapshot, source)
            if has_text(query.text, (source.name, source.bridge, *(each.name for each in runners))):
                matching.append(source)
            await pace.give_way()
        matching.sort(
            key=lambda one: (not has_fault(standing.of_source.get(one.name, ())), natural(one.name)),
        )
        shown = page_of(matching, query)
        columns: dict[str, Runner] = {}
        for source in shown:
            columns |= {each.name: each for each in self._runners_of(snapshot, source)}
        names = sorted(columns, key=lambda name: (columns[name].network or "", natural(name)))
        kept = names[: limits.CONSOLE_MATRIX_MAX]
        cells: dict[tuple[str, str], dict[str, Any]] = {}
        states: dict[str, str] = {}
        for name in kept:
            document = runner_document(snapshot, columns[name], self._desk.dispatcher, self._desk.clock)
            states[name] = document["status"]
            for each in document["sources"]:
                cells[each["name"], name] = {"since": document["since"], **each}
            await pace.give_way()
        return {
            "runners": [{"name": name, "state": states[name], "network": columns[name].network} for name in kept],
            "hidden_runners": len(names) - len(kept),
            "sources": [
                {
                    "name": source.name,
                    "bridge": source.bridge,
                    "cells": [cells.get((source.name, name)) for name in kept],
                }
                for source in shown
            ],
            "total": len(everything),
            "matching": len(matching),
        }

    def recent(self, caller: Caller, *, count: int = limits.CONSOLE_EVENTS_MAX) -> list[dict[str, Any]]:
        """The latest events of the environment, newest first."""
        return list(self._events(caller, count=count))

    def _events(
        self, caller: Caller, *, runner: str | None = None, source: str | None = None, count: int = 0
    ) -> Iterator[dict[str, Any]]:
        left = count or limits.CONSOLE_EVENTS_MAX
        for event in self._desk.hub.recent(caller.environment.id):
            if runner is not None and not _is_about_runner(event, runner):
                continue
            if source is not None and event.data.get("source") != source:
                continue
            yield {"sequence": event.sequence, "at": event.at.isoformat(), "kind": event.kind, "data": dict(event.data)}
            left -= 1
            if not left:
                return

    def _runners_of(self, snapshot: Snapshot, source: Source) -> Sequence[Runner]:
        found = map(snapshot.runner_by_id, snapshot.runners_of(source.environment, source.id))
        return sorted((each for each in found if each is not None), key=lambda each: natural(each.name))

    def _is_connected(self, runner: Runner) -> bool:
        return any(each.is_live for each in self._desk.fleet.instances(runner.id))

    def _is_live(self, runner: Runner) -> bool:
        return not (runner.is_revoked or runner.is_draining) and self._is_connected(runner)


def _needs_runner(source: Source) -> bool:
    return source.credentials is Credentials.RUNNER_LOCAL or source.execution is ExecutionMode.RUNNER_REQUIRED


def _place(document: dict[str, Any], source: str) -> dict[str, Any]:
    """A runner as a place that executes one source."""
    health: dict[str, Any] = next((each for each in document["sources"] if each["name"] == source), {})
    kept = ("name", "network", "status", "since", "cause", "hint", "instances")
    return {name: document[name] for name in kept} | {"health": health}


def _is_about_runner(event: HubEvent, runner: str) -> bool:
    if event.data.get("runner") == runner:
        return True
    results: Iterable[dict[str, Any]] = event.data.get("results", ())
    return event.kind == "test" and any(each.get("runner") == runner for each in results)
