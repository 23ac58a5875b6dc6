"""Declarative set-up: a whole environment's sources, lenses and assignments as one document, and the way back.

Reading is strict and names the path of what is wrong. Planning gives the difference and the changes that make it true, as
one decision: it all happens, or nothing. Repeating it changes nothing.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping, Sequence
from typing import Final

import msgspec

from lensway.catalog.definitions import (
    LensDraft,
    SourceDraft,
    lens_document,
    read_lens,
    read_source,
    source_document,
)
from lensway.catalog.names import check_name, conflict, invalid, shown
from lensway.catalog.reading import Section, described, joined, mapping
from lensway.catalog.records import Change, Lens, Record, Runner, Source
from lensway.catalog.rules.lenses import delete_lens, put_lens
from lensway.catalog.rules.lookup import require_environment
from lensway.catalog.rules.runners import assign, unassign
from lensway.catalog.rules.sources import create_source, delete_source, patch_source
from lensway.catalog.snapshot import Snapshot
from lensway.ids import EnvironmentId, LensId, SourceId
from lensway.kinds import BUILT_IN, Kinds
from lensway.query.suggestions import nearest


class Declaration(Record, frozen=True, kw_only=True):
    """A document, read. ``assignments`` None: the document says nothing about them."""

    sources: Mapping[str, SourceDraft]
    lenses: Mapping[str, LensDraft]
    assignments: Mapping[str, tuple[str, ...]] | None = None


class Effect(enum.StrEnum):
    """What happens to one object."""

    CREATED = "created"
    CHANGED = "changed"
    UNCHANGED = "unchanged"
    REMOVED = "removed"


class Difference(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One object of a diff. ``parts`` names what changes in it; of a config it says that it changes, never what is in it."""

    kind: str
    name: str
    effect: Effect
    parts: tuple[str, ...] = ()


class Push(Record, frozen=True, kw_only=True):
    """What a document would do: for people, and for the store."""

    differences: tuple[Difference, ...]
    changes: tuple[Change, ...]


class Minting(Record, frozen=True, kw_only=True):
    """Where fresh ids come from; a decision makes none itself."""

    source_id: Callable[[], SourceId]
    lens_id: Callable[[], LensId]


StoredConfig = Callable[[EnvironmentId, SourceId], bytes | None]

_CREATED_ALONE: Final[Mapping[str, str]] = {
    "runners": "lensway runners create NAME",
    "keys": "lensway keys create KIND NAME",
    "environments": "lensway environments create NAME",
}
"""What gives a secret once, or holds declarations, is not declared."""
DOCUMENT_KEYS: Final = frozenset({"sources", "lenses", "assignments"})


def read(document: object, *, kinds: Kinds = BUILT_IN) -> Declaration:
    """The document, checked as far as it can be without the catalog.

    Raises:
        LenswayError: INVALID_REQUEST with the path of the first thing that is wrong.
    """
    section = Section(document, "", DOCUMENT_KEYS, unlisted=frozenset(_CREATED_ALONE))
    for key, command in _CREATED_ALONE.items():
        if key in section:
            raise invalid(key, "is not part of a declaration", hint=f"Use `{command}` instead.")
    sources = mapping(section.get("sources") if "sources" in section else {}, "sources")
    lenses = mapping(section.get("lenses") if "lenses" in section else {}, "lenses")
    return Declaration(
        sources={
            name: read_source(name, value, path=joined("sources", name), name_path=joined("sources", name), kinds=kinds)
            for name, value in sources.items()
        },
        lenses={
            name: read_lens(name, value, path=joined("lenses", name), name_path=joined("lenses", name))
            for name, value in lenses.items()
        },
        assignments=_read_assignments(section.get("assignments")) if "assignments" in section else None,
    )


def _read_assignments(value: object) -> Mapping[str, tuple[str, ...]]:
    found: dict[str, tuple[str, ...]] = {}
    for source, runners in mapping(value, "assignments").items():
        path = joined("assignments", source)
        check_name(source, kind="source", path=path)
        if not isinstance(runners, list | tuple):
            raise invalid(path, f"must be a list of runners, not {described(runners)}")
        for number, runner in enumerate(runners):
            check_name(runner, kind="runner", path=joined(path, str(number)))
        found[source] = tuple(dict.fromkeys(runners))
    return found


def plan(
    snapshot: Snapshot,
    environment: EnvironmentId,
    declaration: Declaration,
    *,
    prune: bool,
    stored_config: StoredConfig,
    minting: Minting,
    at: str,
) -> Push:
    """What the declaration would change, and the changes. ``prune`` removes the sources and lenses that it does not name.

    Raises:
        LenswayError: INVALID_REQUEST with the path for a name that does not exist, CONFLICT when pruning would leave something
            without what it depends on.
    """
    require_environment(snapshot, environment)
    removed = _absent_sources(snapshot, environment, declaration) if prune else []
    _check_references(snapshot, environment, declaration, {source.name for source in removed})
    planner = _Planner(snapshot, environment, declaration)
    planner.unassign(removed)
    if prune:
        planner.remove_lenses()
    planner.put_sources(stored_config, minting, at)
    planner.put_lenses(minting, at)
    # Last, when no lens that the document moves elsewhere stands on them any more.
    planner.remove_sources(removed)
    planner.assign(at)
    return Push(differences=tuple(planner.differences), changes=tuple(planner.changes))


def export(snapshot: Snapshot, environment: EnvironmentId) -> dict[str, object]:
    """The environment as a document that `push` takes and that changes nothing. Never with configs."""
    names = {source.id: source.name for source in snapshot.sources(environment)}
    runners = {runner.id: runner.name for runner in snapshot.runners(environment)}
    assignments: dict[str, list[str]] = {}
    for one in snapshot.assignments(environment):
        assignments.setdefault(names[one.source], []).append(runners[one.runner])
    return {
        "sources": {source.name: source_document(source) for source in snapshot.sources(environment)},
        "lenses": {lens.name: lens_document(lens, source=names[lens.source]) for lens in snapshot.lenses(environment)},
        "assignments": assignments,
    }


def _absent_sources(snapshot: Snapshot, environment: EnvironmentId, declaration: Declaration) -> list[Source]:
    return [source for source in snapshot.sources(environment) if source.name not in declaration.sources]


def _check_references(
    snapshot: Snapshot, environment: EnvironmentId, declaration: Declaration, removed: set[str]
) -> None:
    """Every name in the document must exist once it is pushed. Raises LenswayError INVALID_REQUEST with its path."""
    names = snapshot.names(environment)
    sources = {*names["source"], *declaration.sources}
    for name, lens in declaration.lenses.items():
        _check_source(lens.source, joined(joined("lenses", name), "source"), sources, removed)
    for source, runners in (declaration.assignments or {}).items():
        path = joined("assignments", source)
        _check_source(source, path, sources, removed)
        for number, runner in enumerate(runners):
            if snapshot.runner(environment, runner) is None:
                raise invalid(
                    joined(path, str(number)),
                    f"no runner {shown(runner)}",
                    nearest=nearest(runner, names["runner"]),
                )


def _check_source(source: str, path: str, known: set[str], removed: set[str]) -> None:
    if source not in known:
        raise invalid(path, f"no source {shown(source)}", nearest=nearest(source, known))
    if source in removed:
        raise invalid(
            path,
            f"source {shown(source)} is not in the document, and pruning removes it",
            hint="Add the source to the document, or push without pruning.",
        )


class _Planner:
    """Collects changes layer by layer: each layer is decided on the catalog as the layers before it leave it."""

    def __init__(self, snapshot: Snapshot, environment: EnvironmentId, declaration: Declaration) -> None:
        self.differences: list[Difference] = []
        self.changes: list[Change] = []
        self._snapshot = snapshot
        self._environment = environment
        self._declaration = declaration

    def unassign(self, removed: Sequence[Source]) -> None:
        """Take away the assignments that the document does not want."""
        if self._declaration.assignments is None:
            return
        wanted = dict(self._declaration.assignments) | {source.name: () for source in removed}
        layer: list[Change] = []
        for name, runners in wanted.items():
            for runner in self._runners_of(name):
                if runner.name not in runners:
                    layer += unassign(self._snapshot, self._environment, runner.id, [name])
                    self._note("assignment", f"{name} -> {runner.name}", Effect.REMOVED)
        self._settle(layer)

    def remove_lenses(self) -> None:
        """Remove the lenses that the document does not name."""
        layer: list[Change] = []
        for lens in self._snapshot.lenses(self._environment):
            if lens.name not in self._declaration.lenses:
                layer += delete_lens(self._snapshot, self._environment, lens.name)
                self._note("lens", lens.name, Effect.REMOVED)
        self._settle(layer)

    def put_sources(self, stored_config: StoredConfig, minting: Minting, at: str) -> None:
        """Make the sources that are new or different."""
        layer: list[Change] = []
        for name, draft in self._declaration.sources.items():
            path = joined("sources", name)
            present = self._snapshot.source(self._environment, name)
            if present is None:
                new = minting.source_id()
                layer += create_source(self._snapshot, self._environment, draft, id=new, at=at, path=path)
                self._note("source", name, Effect.CREATED)
                continue
            stored = stored_config(self._environment, present.id)
            changes = patch_source(self._snapshot, self._environment, name, draft, stored_config=stored, path=path)
            self._note_change("source", name, _source_parts(present, changes))
            layer += changes
        self._settle(layer)

    def put_lenses(self, minting: Minting, at: str) -> None:
        """Make the lenses that are new or different."""
        layer: list[Change] = []
        for name, draft in self._declaration.lenses.items():
            present = self._snapshot.lens(self._environment, name)
            changes = put_lens(self._snapshot, self._environment, draft, id=minting.lens_id(), at=at)
            if present is None:
                self._note("lens", name, Effect.CREATED)
            else:
                self._note_change("lens", name, _lens_parts(present, changes))
            layer += changes
        self._settle(layer)

    def remove_sources(self, removed: Sequence[Source]) -> None:
        """Remove the sources that the document does not name."""
        layer: list[Change] = []
        for source in removed:
            if runners := self._runners_of(source.name):
                raise conflict(
                    f"Pruning would remove source {source.name!r}, which is assigned to runners",
                    hint="Add [assignments] to the document, or remove the assignments first.",
                    runners=sorted(runner.name for runner in runners),
                )
            layer += delete_source(self._snapshot, self._environment, source.id)
            self._note("source", source.name, Effect.REMOVED)
        self._settle(layer)

    def assign(self, at: str) -> None:
        """Make the assignments that are not there yet."""
        layer: list[Change] = []
        for name, runners in (self._declaration.assignments or {}).items():
            for runner in runners:
                changes = assign(self._snapshot, self._environment, runner, [name], at=at)
                effect = Effect.CREATED if changes else Effect.UNCHANGED
                self._note("assignment", f"{name} -> {runner}", effect)
                layer += changes
        self._settle(layer)

    def _runners_of(self, source_name: str) -> list[Runner]:
        source = self._snapshot.source(self._environment, source_name)
        ids = () if source is None else self._snapshot.runners_of(self._environment, source.id)
        return [runner for runner in map(self._snapshot.runner_by_id, ids) if runner is not None]

    def _note(self, kind: str, name: str, effect: Effect, parts: tuple[str, ...] = ()) -> None:
        self.differences.append(Difference(kind=kind, name=name, effect=effect, parts=parts))

    def _note_change(self, kind: str, name: str, parts: tuple[str, ...]) -> None:
        self._note(kind, name, Effect.CHANGED if parts else Effect.UNCHANGED, parts)

    def _settle(self, layer: Sequence[Change]) -> None:
        # The revision stays: all layers are one change, and bump what they bump once.
        self.changes += layer
        self._snapshot = self._snapshot.after(layer, revision=self._snapshot.revision)


def _source_parts(before: Source, changes: Sequence[Change]) -> tuple[str, ...]:
    """The differences; empty without changes."""
    after = changes[0].record if changes else before
    assert isinstance(after, Source)
    named = ("bridge", "dialect", "credentials", "execution")
    parts = [name for name in named if getattr(before, name) != getattr(after, name)]
    if before.config_version != after.config_version:
        parts.append("config")
    return tuple(parts)


def _lens_parts(before: Lens, changes: Sequence[Change]) -> tuple[str, ...]:
    """The differences; empty without changes."""
    after = changes[0].record if changes else before
    assert isinstance(after, Lens)
    parts = ["source"] if before.source != after.source else []
    if before.definition.table != after.definition.table:
        parts.append("table")
    old, new = before.definition.fields, after.definition.fields
    parts += [f"fields.{name}" for name in {**old, **new} if old.get(name) != new.get(name)]
    if set(old) == set(new) and list(old) != list(new):
        parts.append("fields")
    if before.query_grant != after.query_grant:
        parts.append("grants.query")
    parts += [name for name in ("limits", "relations", "retry") if getattr(before, name) != getattr(after, name)]
    return tuple(parts)
