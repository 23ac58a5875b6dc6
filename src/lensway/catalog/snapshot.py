"""The immutable state of the catalog that every reader works on, with the indexes that make each look-up one step.

A snapshot is never changed: `Snapshot.after` gives a new one, which shares every table that the changes do not touch. Tables
are copied whole when touched: 10,000 entries cost well under a millisecond, and reads, which are a thousand times as
frequent, stay plain dictionary look-ups. Everything is keyed by environment first.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from lensway.catalog.records import (
    AnyRecord,
    Assignment,
    Change,
    Environment,
    Key,
    Lens,
    Put,
    RetiredKey,
    Runner,
    Source,
)
from lensway.catalog.tables import EVERYWHERE, NO_SPACE, Draft, Space, Tables
from lensway.ids import EnvironmentId, KeyId, RunnerId, SourceId


class Snapshot:
    """The whole catalog at one revision. Safe to share between threads and tasks: nothing in it is ever changed."""

    __slots__ = ("_tables", "revision")

    def __init__(self, tables: Tables, *, revision: int) -> None:
        self._tables = tables
        self.revision = revision

    @classmethod
    def of(cls, records: Iterable[AnyRecord], *, revision: int) -> Snapshot:
        """A snapshot with exactly these records, given in any order."""
        return cls(Tables(), revision=0).after([Put(record=record) for record in records], revision=revision)

    def after(self, changes: Sequence[Change], *, revision: int) -> Snapshot:
        """The snapshot that these changes make of this one, at ``revision``. This one stays as it is."""
        draft = Draft(self._tables)
        for change in changes:
            if isinstance(change, Put):
                draft.put(change.record)
            else:
                draft.remove(change.record)
        return Snapshot(draft.finish(), revision=revision)

    def environment(self, name_or_id: str) -> Environment | None:
        """The environment of this name or id."""
        return self._tables.environments.find(name_or_id)

    def environments(self) -> Sequence[Environment]:
        """Every environment, by name."""
        return self._tables.environments.in_order()

    def source(self, environment: EnvironmentId, name_or_id: str) -> Source | None:
        """The environment's source of this name or id."""
        return self._space(environment).sources.find(name_or_id)

    def sources(self, environment: EnvironmentId) -> Sequence[Source]:
        """The environment's sources, by name."""
        return self._space(environment).sources.in_order()

    def lens(self, environment: EnvironmentId, name: str) -> Lens | None:
        """The environment's lens of this name."""
        return self._space(environment).lenses.by_name.get(name)

    def lenses(self, environment: EnvironmentId) -> Sequence[Lens]:
        """The environment's lenses, by name."""
        return self._space(environment).lenses.in_order()

    def lenses_of(self, environment: EnvironmentId, source: SourceId) -> Sequence[Lens]:
        """The lenses declared on a source, by name."""
        space = self._space(environment)
        found = [space.lenses.by_id[lens] for lens in space.lenses_of.members(source)]
        return tuple(sorted(found, key=_name))

    def runner(self, environment: EnvironmentId, name_or_id: str) -> Runner | None:
        """The environment's runner of this name or id."""
        return self._space(environment).runners.find(name_or_id)

    def runner_by_id(self, runner: RunnerId) -> Runner | None:
        """The runner of this id in any environment; for the gateway, whose sessions name runners by id."""
        return self._tables.runners.by_id.get(runner)

    def runner_by_token(self, hash: bytes) -> Runner | None:
        """The runner that holds a token of this hash; whether the token still counts is for the caller to decide."""
        runner = self._tables.runners.by_token.get(hash)
        return None if runner is None else self._tables.runners.by_id[runner]

    def runners(self, environment: EnvironmentId) -> Sequence[Runner]:
        """The environment's runners, by name."""
        return self._space(environment).runners.in_order()

    def runners_of(self, environment: EnvironmentId, source: SourceId) -> tuple[RunnerId, ...]:
        """The runners that a source is assigned to, by id; empty means inline."""
        return self._space(environment).runners_of.members(source)

    def sources_of(self, environment: EnvironmentId, runner: RunnerId) -> Sequence[Source]:
        """The sources that a runner is assigned, by name."""
        space = self._space(environment)
        return tuple(sorted((space.sources.by_id[one] for one in space.sources_of.members(runner)), key=_name))

    def assignment(self, environment: EnvironmentId, source: SourceId, runner: RunnerId) -> Assignment | None:
        """The assignment of this source to this runner."""
        return self._space(environment).assignments.by_pair.get((source, runner))

    def assignments(self, environment: EnvironmentId) -> Sequence[Assignment]:
        """The environment's assignments, by the names of source and runner."""
        space = self._space(environment)
        sources, runners = space.sources.by_id, space.runners.by_id
        return tuple(
            sorted(
                space.assignments.by_pair.values(),
                key=lambda one: (sources[one.source].name, runners[one.runner].name),
            )
        )

    def key_by_hash(self, hash: bytes) -> Key | None:
        """The key of this hash."""
        return self._tables.keys.by_hash.get(hash)

    def key(self, key: KeyId) -> Key | None:
        """The key of this id."""
        return self._tables.keys.by_id.get(key)

    def retired_key(self, hash: bytes) -> RetiredKey | None:
        """The deleted admin key of this hash."""
        return self._tables.keys.retired.get(hash)

    def all_keys(self) -> Iterable[Key]:
        """The keys of every environment and the instance-wide ones, in no order."""
        return self._tables.keys.by_id.values()

    def keys(self, environment: EnvironmentId | None) -> Sequence[Key]:
        """The keys of an environment, by name; with None the instance-wide ones."""
        members = self._tables.keys.of_environment.members(environment or EVERYWHERE)
        return tuple(sorted((self._tables.keys.by_id[key] for key in members), key=lambda key: (key.name, key.id)))

    def names(self, environment: EnvironmentId) -> Mapping[str, Sequence[str]]:
        """The names in use, by kind of object (``source``, ``lens``, ``runner``), for suggestions."""
        space = self._space(environment)
        return {
            "source": tuple(space.sources.by_name),
            "lens": tuple(space.lenses.by_name),
            "runner": tuple(space.runners.by_name),
        }

    def records(self) -> Iterator[AnyRecord]:
        """Every record, each after the ones it depends on."""
        yield from self.environments()
        yield from self._tables.keys.by_id.values()
        yield from self._tables.keys.retired.values()
        for space in self._tables.spaces.values():
            yield from space.sources.by_id.values()
            yield from space.runners.by_id.values()
            yield from space.lenses.by_id.values()
            yield from space.assignments.by_pair.values()

    def _space(self, environment: EnvironmentId) -> Space:
        return self._tables.spaces.get(environment, NO_SPACE)


def _name(record: Source | Lens) -> str:
    return record.name
