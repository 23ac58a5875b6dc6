"""For each warning what helps: which runners could serve its sources, what to set or install, what to assign where."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from lensway import limits
from lensway.auth.caller import Caller
from lensway.catalog import rules
from lensway.catalog.records import Runner, Source
from lensway.catalog.snapshot import Snapshot
from lensway.catalog.warnings import Warning as CatalogWarning
from lensway.catalog.warnings import WarningCode
from lensway.errors import ErrorCode, LenswayError
from lensway.usecases.desk import Desk
from lensway.usecases.fleet_pages import FleetPages, natural

_CANDIDATES_MAX: Final = 12


class Remedies:
    """What to do about a warning."""

    def __init__(self, desk: Desk, fleet: FleetPages) -> None:
        self._desk = desk
        self._fleet = fleet

    async def find(self, caller: Caller, code: str, *, runner: str = "", source: str = "") -> dict[str, Any]:
        """What helps against the warnings of one code on a runner, on a source, or on a runner for a source.

        ``sources`` are those that the warnings are about. ``candidates`` are the runners that are there and could serve them,
        the likeliest first. Raises LenswayError NOT_FOUND, INVALID_REQUEST.
        """
        environment = caller.environment.id
        if code not in set(WarningCode):
            raise LenswayError(ErrorCode.INVALID_REQUEST, f"There is no warning with the code {code[:40]!r}")
        standing = await self._fleet.standing(environment)
        snapshot = standing.snapshot
        subject = rules.require_runner(snapshot, environment, runner) if runner else None
        named = rules.require_source(snapshot, environment, source) if source else None
        if named is not None:
            sources = [named]
        elif subject is not None:
            sources = self._sources(snapshot, subject, standing.of_source, standing.of_runner, WarningCode(code))
        else:
            raise LenswayError(ErrorCode.INVALID_REQUEST, "A remedy is for a runner or for a source")
        shown = sources[: limits.CONSOLE_REMEDY_SOURCES_MAX]
        return {
            "code": code,
            "runner": None if subject is None else subject.name,
            "is_draining": subject is not None and subject.is_draining,
            "is_revoked": subject is not None and subject.is_revoked,
            "sources": [each.name for each in shown],
            "more": len(sources) - len(shown),
            "candidates": self._candidates(snapshot, shown),
            "variables": [_variable(each) for each in shown],
            "extras": sorted({extra for each in shown if (extra := self._extra(each.bridge))}),
            "gaps": [] if subject is None else _gaps(snapshot, subject),
        }

    def _sources(
        self,
        snapshot: Snapshot,
        runner: Runner,
        of_source: Mapping[str, Sequence[CatalogWarning]],
        of_runner: Mapping[str, Sequence[CatalogWarning]],
        code: WarningCode,
    ) -> list[Source]:
        names = {warning.source for warning in of_runner.get(runner.name, ()) if warning.code is code}
        mine = snapshot.sources_of(runner.environment, runner.id)
        for source in mine:
            if any(one.code is code and one.runner is None for one in of_source.get(source.name, ())):
                names.add(source.name)
        if not names and code is WarningCode.RUNNER_UNREACHABLE:
            # A test of all its sources finds what degrades a runner.
            names.update(source.name for source in mine)
        return sorted((source for source in mine if source.name in names), key=lambda source: natural(source.name))

    def _candidates(self, snapshot: Snapshot, sources: Sequence[Source]) -> list[dict[str, Any]]:
        """Runners that are there and serve not all of the sources yet: those with the bridges first, then those of the same
        networks, then those that serve the least."""
        if not sources:
            return []
        environment = sources[0].environment
        serving = [snapshot.runners_of(environment, source.id) for source in sources]
        networks = {
            found.network for ids in serving for each in ids if (found := snapshot.runner_by_id(each)) and found.network
        }
        bridges = {source.bridge for source in sources}
        ranked: list[tuple[tuple[Any, ...], dict[str, Any]]] = []
        for runner in snapshot.runners(environment):
            lacking = [source.name for source, ids in zip(sources, serving, strict=True) if runner.id not in ids]
            live = [each for each in self._desk.fleet.instances(runner.id) if each.is_live]
            if not lacking or not live or runner.is_revoked or runner.is_draining:
                continue
            has_bridges = all(bridges.issubset(each.bridges) for each in live)
            load = len(snapshot.sources_of(environment, runner.id))
            order = (not has_bridges, runner.network not in networks, load, natural(runner.name))
            ranked.append(
                (
                    order,
                    {
                        "name": runner.name,
                        "network": runner.network,
                        "lacking": lacking,
                        "serves": load,
                        "has_bridges": has_bridges,
                    },
                )
            )
        ranked.sort(key=lambda item: item[0])
        return [document for _, document in ranked[:_CANDIDATES_MAX]]

    def _extra(self, bridge: str) -> str | None:
        kind = self._desk.kinds.get(bridge)
        return None if kind is None else kind.extra


def _gaps(snapshot: Snapshot, runner: Runner) -> list[dict[str, Any]]:
    """What each of the replicas lacks that another of them serves."""
    group = list(_replicas(snapshot, runner))
    sets = {
        each.name: {source.name for source in snapshot.sources_of(runner.environment, each.id)}
        for each in (runner, *group)
    }
    union = set().union(*sets.values())
    gaps = [
        {"runner": name, "lacking": sorted(union - names, key=natural)[: limits.CONSOLE_REMEDY_SOURCES_MAX]}
        for name, names in sets.items()
        if union - names
    ]
    return gaps[:_CANDIDATES_MAX]


def _replicas(snapshot: Snapshot, runner: Runner) -> Iterable[Runner]:
    """Runners of the same network, or, without labels, those that share a source."""
    if runner.network is not None:
        for each in snapshot.runners(runner.environment):
            if each.network == runner.network and each.id != runner.id and not each.is_revoked:
                yield each
        return
    ids = {
        id
        for source in snapshot.sources_of(runner.environment, runner.id)
        for id in snapshot.runners_of(runner.environment, source.id)
    }
    for id in sorted(ids):
        found = snapshot.runner_by_id(id)
        if found is not None and found.id != runner.id and found.network is None and not found.is_revoked:
            yield found


def _variable(source: Source) -> str:
    return f"LENSWAY_SOURCE_{source.name.upper().replace('-', '_')}_URL"
