"""The bad patterns, pointed out where they are made: closed codes, worked out from the catalog and a small view of the fleet.

The same function looks at a change before it is made (a preview) and after; another looks at the present state.
"""

from __future__ import annotations

import enum
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Protocol

import msgspec

from lensway.catalog.names import listed
from lensway.catalog.records import Assignment, Change, Credentials, ExecutionMode, Runner, Source
from lensway.catalog.snapshot import Snapshot
from lensway.ids import EnvironmentId, RunnerId, SourceId


class WarningCode(enum.StrEnum):
    """The closed list of warning codes."""

    SINGLE_RUNNER = "single_runner"
    REPLICAS_DIFFER = "replicas_differ"
    RUNNER_OFFLINE = "runner_offline"
    RUNNER_UNREACHABLE = "runner_unreachable"
    BRIDGE_MISSING = "bridge_missing"
    CREDENTIALS_MISSING = "credentials_missing"
    NO_LIVE_RUNNER_LEFT = "no_live_runner_left"
    GOES_INLINE = "goes_inline"


class Warning(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One warning: what is wrong and what to do. ``lenses`` are those that it touches."""

    code: WarningCode
    message: str
    source: str | None = None
    runner: str | None = None
    lenses: tuple[str, ...] = ()


class InstanceView(msgspec.Struct, frozen=True, kw_only=True):
    """One connected instance of a runner. ``is_live``: not suspect, not draining. ``source_states`` are the states that
    heartbeats report (``ready``, ``no_bridge``, ``no_credentials``, ``credentials_ambiguous``, ``refused``, ``unreachable``).
    ``encodings`` are the formats that it can encode rows in; an older runner names none."""

    is_live: bool
    bridges: Collection[str]
    source_states: Mapping[SourceId, str] = {}
    encodings: Collection[str] = ()


class FleetView(Protocol):
    """What warnings need to know of the fleet."""

    def instances(self, runner: RunnerId) -> Sequence[InstanceView]:
        """The connected instances of a runner, live or not."""


def warnings_of_change(
    before: Snapshot, after: Snapshot, changes: Iterable[Change], *, environment: EnvironmentId, fleet: FleetView
) -> tuple[Warning, ...]:
    """What to say about a change, worst first. As a preview, give ``snapshot.after(changes, revision=…)`` as ``after``."""
    sources, runners = _touched(before, after, changes, environment)
    view = _View(after, environment, fleet)
    found: list[Warning] = []
    for source in sources:
        if before.runners_of(environment, source.id) and not after.runners_of(environment, source.id):
            found.append(view.goes_inline(source))
        found.extend(view.of_source(source))
    differing = _Replicas(after, environment)
    found.extend(warning for runner in runners for warning in differing.of_runner(runner))
    return tuple(sorted(dict.fromkeys(found), key=_severity))


def warnings_now(snapshot: Snapshot, *, environment: EnvironmentId, fleet: FleetView) -> tuple[Warning, ...]:
    """Everything that is wrong at present in an environment, worst first."""
    steps = warnings_stepwise(snapshot, environment=environment, fleet=fleet)
    return sorted_warnings(warning for found in steps for warning in found)


def warnings_stepwise(
    snapshot: Snapshot, *, environment: EnvironmentId, fleet: FleetView
) -> Iterator[Sequence[Warning]]:
    """The warnings of one source or runner at a time, so that a caller with a large fleet can do other work in between."""
    view, differing = _View(snapshot, environment, fleet), _Replicas(snapshot, environment)
    for source in snapshot.sources(environment):
        yield tuple(view.of_source(source))
    for runner in snapshot.runners(environment):
        yield tuple(differing.of_runner(runner))


def sorted_warnings(warnings: Iterable[Warning]) -> tuple[Warning, ...]:
    """Worst first."""
    return tuple(sorted(warnings, key=_severity))


_ORDER = {
    code: number
    for number, code in enumerate(
        (
            WarningCode.NO_LIVE_RUNNER_LEFT,
            WarningCode.GOES_INLINE,
            WarningCode.RUNNER_OFFLINE,
            WarningCode.BRIDGE_MISSING,
            WarningCode.CREDENTIALS_MISSING,
            WarningCode.RUNNER_UNREACHABLE,
            WarningCode.SINGLE_RUNNER,
            WarningCode.REPLICAS_DIFFER,
        )
    )
}


def _severity(warning: Warning) -> tuple[int, str, str]:
    return _ORDER[warning.code], warning.source or "", warning.runner or ""


def _touched(
    before: Snapshot, after: Snapshot, changes: Iterable[Change], environment: EnvironmentId
) -> tuple[Sequence[Source], Sequence[Runner]]:
    """The sources and runners whose situation the change alters, as they are afterwards."""
    source_ids: dict[SourceId, None] = {}
    runner_ids: dict[RunnerId, None] = {}
    for change in changes:
        match change.record:
            case Source(id=source):
                source_ids[source] = None
            case Assignment(source=source, runner=runner):
                source_ids[source] = None
                runner_ids[runner] = None
            case Runner(id=runner) as record:
                present = before.runner(environment, runner)
                if present is not None and msgspec.structs.replace(present, set_revision=record.set_revision) == record:
                    # Only its set changed; the assignments in this change say how.
                    continue
                runner_ids[runner] = None
                source_ids |= dict.fromkeys(one.id for one in before.sources_of(environment, runner))
            case _:
                pass
    sources = (after.source(environment, source) for source in source_ids)
    runners = (after.runner(environment, runner) for runner in runner_ids)
    return [one for one in sources if one is not None], [one for one in runners if one is not None]


class _View:
    """Warnings about one source at a time."""

    def __init__(self, snapshot: Snapshot, environment: EnvironmentId, fleet: FleetView) -> None:
        self._snapshot = snapshot
        self._environment = environment
        self._fleet = fleet
        self._live_instances: dict[RunnerId, Sequence[InstanceView]] = {}

    def goes_inline(self, source: Source) -> Warning:
        """The source lost its last assignment."""
        if source.credentials is Credentials.RUNNER_LOCAL or source.execution is ExecutionMode.RUNNER_REQUIRED:
            message = (
                f"Source {source.name!r} lost its last runner, and the service cannot execute it: its queries fail with "
                "source_requires_runner until a runner is assigned."
            )
        else:
            message = (
                f"Source {source.name!r} lost its last runner: the service itself now executes its queries and must reach the "
                "database. Assign a runner if it cannot."
            )
        return self._warning(WarningCode.GOES_INLINE, message, source, lenses=self._lenses(source))

    def of_source(self, source: Source) -> Iterator[Warning]:
        """What is wrong with the runners of this source."""
        ids = self._snapshot.runners_of(self._environment, source.id)
        runners = [runner for runner in map(self._snapshot.runner_by_id, ids) if runner is not None]
        live = {runner.id: self._live(runner) for runner in runners}
        for runner in runners:
            yield from self._of_pair(source, runner, live[runner.id])
        yield from self._of_encodings(source, runners, live)
        if runners and not any(live.values()):
            yield self._warning(
                WarningCode.NO_LIVE_RUNNER_LEFT,
                f"No runner of source {source.name!r} is online: queries fail with no_runners_online until one comes online. "
                "They never fall back to the service.",
                source,
                lenses=self._lenses(source),
            )
        # A runner that is offline counts as one: it is expected back, and has its own warning. A revoked one is not.
        expected = [runner for runner in runners if not runner.is_revoked]
        if sum(max(1, len(live[runner.id])) for runner in expected) == 1:
            only = expected[0]
            what = f"a single instance of runner {only.name!r}" if live[only.id] else f"runner {only.name!r} alone"
            yield self._warning(
                WarningCode.SINGLE_RUNNER,
                f"Source {source.name!r} depends on {what}. "
                "Assign a second runner, or start a second instance, so that queries continue when one is lost.",
                source,
                only,
            )

    def _of_encodings(
        self, source: Source, runners: Sequence[Runner], live: Mapping[RunnerId, Sequence[InstanceView]]
    ) -> Iterator[Warning]:
        """Formats that only some of the live instances can encode survive the loss of fewer of them than the others do."""
        known = {frozenset(each.encodings) for instances in live.values() for each in instances if each.encodings}
        every = frozenset().union(*known)
        for runner in runners:
            lacking = {name for each in live[runner.id] if each.encodings for name in every.difference(each.encodings)}
            if lacking:
                yield self._warning(
                    WarningCode.REPLICAS_DIFFER,
                    f"Runner {runner.name!r} cannot encode {', '.join(sorted(lacking))}, but another runner of source "
                    f"{source.name!r} can. Run `pip install 'lensway[arrow]'` on the runner's machine, and restart it.",
                    source,
                    runner,
                )

    def _of_pair(self, source: Source, runner: Runner, live: Sequence[InstanceView]) -> Iterator[Warning]:
        if not live:
            yield self._warning(
                WarningCode.RUNNER_OFFLINE,
                f"Runner {runner.name!r} is assigned source {source.name!r} and {self._absence(runner)}.",
                source,
                runner,
            )
            return
        states = [instance.source_states.get(source.id, "") for instance in live]
        if any(source.bridge not in instance.bridges for instance in live) or "no_bridge" in states:
            yield self._warning(
                WarningCode.BRIDGE_MISSING,
                f"Runner {runner.name!r} has no {source.bridge} bridge for source {source.name!r}. "
                "Install its driver on the runner's machine; `lensway runner doctor` names it.",
                source,
                runner,
            )
        if "no_credentials" in states or "credentials_ambiguous" in states:
            yield self._warning(
                WarningCode.CREDENTIALS_MISSING,
                f"Runner {runner.name!r} has no usable credentials for source {source.name!r}. "
                f"Set {_variable(source)} in the runner's environment.",
                source,
                runner,
            )
        if "invalid_settings" in states:
            yield self._warning(
                WarningCode.CREDENTIALS_MISSING,
                f"Runner {runner.name!r} has settings for source {source.name!r} that are invalid. "
                "`lensway runner doctor` on its machine names the variable, and what is wrong with it.",
                source,
                runner,
            )
        if "unreachable" in states:
            yield self._warning(
                WarningCode.RUNNER_UNREACHABLE,
                f"Runner {runner.name!r} cannot reach the database of source {source.name!r}. "
                "Test the connection: it names the stage that fails.",
                source,
                runner,
            )

    def _live(self, runner: Runner) -> Sequence[InstanceView]:
        if runner.is_revoked or runner.is_draining:
            return ()
        # A runner may serve thousands of sources; its instances are looked at once.
        if runner.id not in self._live_instances:
            found = [instance for instance in self._fleet.instances(runner.id) if instance.is_live]
            self._live_instances[runner.id] = found
        return self._live_instances[runner.id]

    def _absence(self, runner: Runner) -> str:
        if runner.is_revoked:
            return "is revoked; rotate its token to reactivate it"
        if runner.is_draining:
            return "is draining; resume it to give it work again"
        return "is not online; start it, or see `lensway runners show` for the cause"

    def _lenses(self, source: Source) -> tuple[str, ...]:
        return tuple(lens.name for lens in self._snapshot.lenses_of(self._environment, source.id))

    def _warning(
        self,
        code: WarningCode,
        message: str,
        source: Source,
        runner: Runner | None = None,
        *,
        lenses: tuple[str, ...] = (),
    ) -> Warning:
        name = None if runner is None else runner.name
        return Warning(code=code, message=message, source=source.name, runner=name, lenses=lenses)


def _variable(source: Source) -> str:
    return f"LENSWAY_SOURCE_{source.name.upper().replace('-', '_')}_URL"


class _Replicas:
    """Which runners should cover the same sources, and do not.

    Replicas bear the same network label, or, without labels, share at least one source. Wholly disjoint runners are separate
    networks. Only the groups that are asked for are looked at, and within one sets are compared by distinct set, so that ten
    thousand equal runners cost little more than one.
    """

    def __init__(self, snapshot: Snapshot, environment: EnvironmentId) -> None:
        self._snapshot = snapshot
        self._environment = environment
        self._sets: dict[RunnerId, frozenset[str]] = {}
        self._groups: dict[tuple[str, str], Mapping[frozenset[str], str]] = {}

    def of_runner(self, runner: Runner) -> Iterator[Warning]:
        """At most one warning: the first replica, by name, whose set differs from this runner's."""
        if runner.is_revoked:
            return
        own = self._set(runner)
        others = {name: names for group in self._groups_of(runner) for names, name in group.items() if names != own}
        if not others:
            return
        name = min(others)
        why = f"are in network {runner.network!r}" if runner.network is not None else "share sources"
        parts = [
            f"{one!r} lacks {listed(lacking)}"
            for one, lacking in ((runner.name, others[name] - own), (name, own - others[name]))
            if lacking
        ]
        yield Warning(
            code=WarningCode.REPLICAS_DIFFER,
            message=f"Runners {runner.name!r} and {name!r} {why}, but {' and '.join(parts)}: "
            "only sources that both serve survive the loss of one runner.",
            runner=runner.name,
        )

    def _groups_of(self, runner: Runner) -> Iterator[Mapping[frozenset[str], str]]:
        if runner.network is not None:
            yield self._group("network", runner.network)
            return
        for source in self._snapshot.sources_of(self._environment, runner.id):
            yield self._group("source", source.id)

    def _group(self, kind: str, id: str) -> Mapping[frozenset[str], str]:
        """One runner's name for each distinct set among the replicas of a network, or of a source without labels."""
        if (kind, id) not in self._groups:
            group: dict[frozenset[str], str] = {}
            for runner in self._members(kind, id):
                group.setdefault(self._set(runner), runner.name)
            self._groups[kind, id] = group
        return self._groups[kind, id]

    def _members(self, kind: str, id: str) -> Iterator[Runner]:
        if kind == "network":
            members: Iterable[Runner] = self._snapshot.runners(self._environment)
            label: str | None = id
        else:
            ids = self._snapshot.runners_of(self._environment, SourceId(id))
            members = (one for one in map(self._snapshot.runner_by_id, ids) if one is not None)
            label = None
        return (one for one in members if one.network == label and not one.is_revoked)

    def _set(self, runner: Runner) -> frozenset[str]:
        if runner.id not in self._sets:
            sources = self._snapshot.sources_of(self._environment, runner.id)
            self._sets[runner.id] = frozenset(source.name for source in sources)
        return self._sets[runner.id]
