"""The tables behind a snapshot, and the draft that makes new ones out of them: copy on write, part by part.

Nothing here is written to once its draft is finished. What a reader may see of it, `snapshot` says.
"""

from __future__ import annotations

from typing import Final, Generic, Protocol, Self, TypeVar, assert_never

from lensway.catalog.records import AnyRecord, Assignment, Environment, Key, Lens, RetiredKey, Runner, Source
from lensway.ids import EnvironmentId, KeyId, LensId, RunnerId, SourceId

Named = TypeVar("Named", Environment, Source, Lens, Runner)
Owner = TypeVar("Owner", bound=str)
Member = TypeVar("Member", bound=str)

EVERYWHERE: Final = EnvironmentId("")
"""Owner of the instance-wide keys in the index of keys by environment."""


class Table(Generic[Named]):
    """Records of one kind in one place, by id and by name."""

    __slots__ = ("_ordered", "by_id", "by_name")

    def __init__(self) -> None:
        self.by_id: dict[str, Named] = {}
        self.by_name: dict[str, Named] = {}
        self._ordered: tuple[Named, ...] | None = None

    def copy(self) -> Self:
        """A copy of the containers; the records are shared."""
        new = type(self)()
        new.by_id = self.by_id.copy()
        new.by_name = self.by_name.copy()
        return new

    def find(self, name_or_id: str) -> Named | None:
        """The record of this name or id."""
        # Names that look like ids are refused when they are made, so one word never means two objects.
        return self.by_name.get(name_or_id) or self.by_id.get(name_or_id)

    def in_order(self) -> tuple[Named, ...]:
        """All records by name; sorted once."""
        if self._ordered is None:
            self._ordered = tuple(sorted(self.by_name.values(), key=lambda record: record.name))
        return self._ordered

    def put(self, record: Named) -> Named | None:
        """Insert or replace; gives back what stood there."""
        assert self.by_name.get(record.name, record).id == record.id, "two records of one name"
        before = self.by_id.get(record.id)
        if before is not None and before.name != record.name:
            del self.by_name[before.name]
        self.by_id[record.id] = record
        self.by_name[record.name] = record
        return before

    def remove(self, record: Named) -> Named:
        """Take away the record of this id; gives back what stood there."""
        before = self.by_id.pop(record.id)
        del self.by_name[before.name]
        return before


class Assignments:
    """The assignments of one environment."""

    __slots__ = ("by_pair",)

    def __init__(self) -> None:
        self.by_pair: dict[tuple[SourceId, RunnerId], Assignment] = {}

    def copy(self) -> Self:
        """A copy of the containers; the records are shared."""
        new = type(self)()
        new.by_pair = self.by_pair.copy()
        return new


class Links(Generic[Owner, Member]):
    """One to many: what belongs to an owner, sorted. Members are kept as tuples, so that readers get them as they are."""

    __slots__ = ("_marks", "_members")

    def __init__(self) -> None:
        self._members: dict[Owner, tuple[Member, ...]] = {}
        self._marks: dict[Owner, dict[Member, bool]] = {}

    def copy(self) -> Self:
        """A copy of the containers; the records are shared."""
        new = type(self)()
        new._members = self._members.copy()
        return new

    def members(self, owner: Owner) -> tuple[Member, ...]:
        """The owner's members, sorted."""
        return self._members.get(owner, ())

    def mark(self, owner: Owner, member: Member, *, is_there: bool) -> None:
        """Note a link that comes or goes; it counts from `settle` on."""
        self._marks.setdefault(owner, {})[member] = is_there

    def settle(self) -> None:
        """Apply the noted links owner by owner: one sort for each, however many of its members changed."""
        for owner, marks in self._marks.items():
            members = set(self._members.get(owner, ()))
            for member, is_there in marks.items():
                if is_there:
                    members.add(member)
                else:
                    members.discard(member)
            if members:
                self._members[owner] = tuple(sorted(members))
            else:
                self._members.pop(owner, None)
        self._marks.clear()


class Space:
    """The tables of one environment."""

    __slots__ = ("assignments", "lenses", "lenses_of", "runners", "runners_of", "sources", "sources_of")

    def __init__(self) -> None:
        self.sources: Table[Source] = Table()
        self.lenses: Table[Lens] = Table()
        self.runners: Table[Runner] = Table()
        self.assignments = Assignments()
        self.lenses_of: Links[SourceId, LensId] = Links()
        self.runners_of: Links[SourceId, RunnerId] = Links()
        self.sources_of: Links[RunnerId, SourceId] = Links()

    def copy(self) -> Self:
        """A copy of the containers; the records are shared."""
        new = type(self)()
        new.sources, new.lenses, new.runners = self.sources, self.lenses, self.runners
        new.assignments = self.assignments
        new.lenses_of, new.runners_of, new.sources_of = self.lenses_of, self.runners_of, self.sources_of
        return new


class Keys:
    """Every key of the deployment: by id, by hash, by environment; and the deleted admin keys by hash."""

    __slots__ = ("by_hash", "by_id", "of_environment", "retired")

    def __init__(self) -> None:
        self.by_id: dict[KeyId, Key] = {}
        self.by_hash: dict[bytes, Key] = {}
        self.retired: dict[bytes, RetiredKey] = {}
        self.of_environment: Links[EnvironmentId, KeyId] = Links()

    def copy(self) -> Self:
        """A copy of the containers; the records are shared."""
        new = type(self)()
        new.by_id = self.by_id.copy()
        new.by_hash = self.by_hash.copy()
        new.retired = self.retired.copy()
        new.of_environment = self.of_environment.copy()
        return new


class Runners:
    """Every runner of the deployment: by id, and by the hashes of its tokens."""

    __slots__ = ("by_id", "by_token")

    def __init__(self) -> None:
        self.by_id: dict[RunnerId, Runner] = {}
        self.by_token: dict[bytes, RunnerId] = {}

    def copy(self) -> Self:
        """A copy of the containers; the records are shared."""
        new = type(self)()
        new.by_id = self.by_id.copy()
        new.by_token = self.by_token.copy()
        return new


class Tables:
    """All parts of one snapshot."""

    __slots__ = ("environments", "keys", "runners", "spaces")

    def __init__(self) -> None:
        self.environments: Table[Environment] = Table()
        self.spaces: dict[EnvironmentId, Space] = {}
        self.keys = Keys()
        self.runners = Runners()


NO_SPACE: Final = Space()
"""Stands in for the tables of an environment without objects; never written to."""


class Part(Protocol):
    """What a draft copies before it writes."""

    def copy(self) -> Self:
        """A copy that can be written to without touching this one."""


AnyPart = TypeVar("AnyPart", bound=Part)


class Draft:
    """New tables in the making: they share every part with those before until a change touches it."""

    def __init__(self, before: Tables) -> None:
        self._new = Tables()
        self._new.environments = before.environments
        self._new.spaces = before.spaces.copy()
        self._new.keys = before.keys
        self._new.runners = before.runners
        # Parts made by this draft, which it may therefore write to. Held, not just their ids: an id is free again once
        # its object is gone.
        self._own: dict[int, Part] = {}

    def finish(self) -> Tables:
        """The finished tables; the draft is used up."""
        for part in self._own.values():
            if isinstance(part, Links):
                part.settle()
        return self._new

    def put(self, record: AnyRecord) -> None:
        """Insert the record, or replace the one with its identity."""
        match record:
            case Environment():
                self._new.environments = self._owned(self._new.environments)
                self._new.environments.put(record)
            case Source():
                space = self._space(record.environment)
                space.sources = self._owned(space.sources)
                space.sources.put(record)
            case Lens():
                self._put_lens(record)
            case Runner():
                self._put_runner(record)
            case Assignment():
                self._link(record, is_there=True)
            case Key():
                self._put_key(record)
            case RetiredKey():
                self._own_keys().retired[record.hash] = record
            case _:
                assert_never(record)

    def remove(self, record: AnyRecord) -> None:
        """Take away the record of this identity. It must be there."""
        match record:
            case Environment():
                self._new.environments = self._owned(self._new.environments)
                self._new.environments.remove(record)
                self._new.spaces.pop(record.id, None)
            case Source():
                space = self._space(record.environment)
                space.sources = self._owned(space.sources)
                space.sources.remove(record)
            case Lens():
                space = self._space(record.environment)
                space.lenses, space.lenses_of = self._owned(space.lenses), self._owned(space.lenses_of)
                space.lenses_of.mark(space.lenses.remove(record).source, record.id, is_there=False)
            case Runner():
                self._remove_runner(record)
            case Assignment():
                self._link(record, is_there=False)
            case Key():
                self._remove_key(record)
            case RetiredKey():
                del self._own_keys().retired[record.hash]
            case _:
                assert_never(record)

    def _put_lens(self, record: Lens) -> None:
        space = self._space(record.environment)
        space.lenses, space.lenses_of = self._owned(space.lenses), self._owned(space.lenses_of)
        before = space.lenses.put(record)
        if before is not None:
            space.lenses_of.mark(before.source, record.id, is_there=False)
        space.lenses_of.mark(record.source, record.id, is_there=True)

    def _put_runner(self, record: Runner) -> None:
        space = self._space(record.environment)
        space.runners = self._owned(space.runners)
        before = space.runners.put(record)
        runners = self._new.runners = self._owned(self._new.runners)
        runners.by_id[record.id] = record
        for token in before.tokens if before is not None else ():
            del runners.by_token[token.hash]
        for token in record.tokens:
            runners.by_token[token.hash] = record.id

    def _remove_runner(self, record: Runner) -> None:
        space = self._space(record.environment)
        space.runners = self._owned(space.runners)
        before = space.runners.remove(record)
        runners = self._new.runners = self._owned(self._new.runners)
        del runners.by_id[record.id]
        for token in before.tokens:
            del runners.by_token[token.hash]

    def _put_key(self, record: Key) -> None:
        if record.id in self._new.keys.by_id:
            self._remove_key(record)
        keys = self._own_keys()
        keys.by_id[record.id] = record
        keys.by_hash[record.hash] = record
        keys.of_environment.mark(record.environment or EVERYWHERE, record.id, is_there=True)

    def _remove_key(self, record: Key) -> None:
        keys = self._own_keys()
        before = keys.by_id.pop(record.id)
        del keys.by_hash[before.hash]
        keys.of_environment.mark(before.environment or EVERYWHERE, record.id, is_there=False)

    def _link(self, record: Assignment, *, is_there: bool) -> None:
        space = self._space(record.environment)
        space.assignments = self._owned(space.assignments)
        space.runners_of, space.sources_of = self._owned(space.runners_of), self._owned(space.sources_of)
        if is_there:
            space.assignments.by_pair[record.source, record.runner] = record
        else:
            del space.assignments.by_pair[record.source, record.runner]
        space.runners_of.mark(record.source, record.runner, is_there=is_there)
        space.sources_of.mark(record.runner, record.source, is_there=is_there)

    def _space(self, environment: EnvironmentId) -> Space:
        space = self._new.spaces[environment] = self._owned(self._new.spaces.get(environment, NO_SPACE))
        return space

    def _own_keys(self) -> Keys:
        keys = self._new.keys = self._owned(self._new.keys)
        keys.of_environment = self._owned(keys.of_environment)
        return keys

    def _owned(self, part: AnyPart) -> AnyPart:
        if id(part) in self._own:
            return part
        copy = part.copy()
        self._own[id(copy)] = copy
        return copy
