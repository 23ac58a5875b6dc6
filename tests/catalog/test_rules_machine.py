"""The rules of the catalog in any order, against a model of plain sets: what exists, who serves what, which revision counts."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from lensway.catalog import rules
from lensway.catalog.definitions import read_lens, read_source
from lensway.catalog.records import Change, Environment, Runner
from lensway.catalog.snapshot import Snapshot
from lensway.errors import ErrorCode, LenswayError
from lensway.ids import new_environment_id, new_lens_id, new_runner_id, new_source_id

SOURCES = st.sampled_from(("main", "shop", "log"))
RUNNERS = st.sampled_from(("alpha", "beta", "gamma"))
CONFIGS = st.sampled_from(("h1", "h2"))


class Catalog(RuleBasedStateMachine):
    """Two environments; the second one holds the same names and must never change."""

    @initialize()
    def found(self) -> None:
        self.here, self.there = new_environment_id(), new_environment_id()
        self.snapshot = Snapshot.of(
            [
                Environment(id=self.here, name="default", created_at=""),
                Environment(id=self.there, name="other", created_at=""),
            ],
            revision=1,
        )
        self.configs: dict[str, str] = {}
        self.assigned: set[tuple[str, str]] = set()
        self.lenses: dict[str, str] = {}
        self.runners: dict[str, int] = {}
        self.change(
            lambda snapshot: rules.create_source(snapshot, self.there, draft("main", "h"), id=new_source_id(), at="")
        )
        self.other = sorted(map(repr, self.records_of(self.there)))

    # --- rules ------------------------------------------------------------------------------------------------------------

    @rule(name=SOURCES, host=CONFIGS)
    def create_source(self, name: str, host: str) -> None:
        def decide(snapshot: Snapshot) -> Sequence[Change]:
            return rules.create_source(snapshot, self.here, draft(name, host), id=new_source_id(), at="")

        if self.change(decide, wrong=ErrorCode.CONFLICT if name in self.configs else None):
            self.configs[name] = host

    @rule(name=SOURCES, host=CONFIGS)
    def change_config(self, name: str, host: str) -> None:
        def decide(snapshot: Snapshot) -> Sequence[Change]:
            stored = rules.require_source(snapshot, self.here, name)
            assert stored.config_version > 0
            return rules.patch_source(
                snapshot, self.here, name, draft(name, host), stored_config=encoded(self.configs[name])
            )

        if self.change(decide, wrong=None if name in self.configs else ErrorCode.NOT_FOUND):
            if self.configs[name] != host:
                self.bump(runner for source, runner in self.assigned if source == name)
            self.configs[name] = host

    @rule(name=SOURCES)
    def delete_source(self, name: str) -> None:
        is_used = name in self.lenses.values() or any(source == name for source, _ in self.assigned)
        wrong = ErrorCode.NOT_FOUND if name not in self.configs else ErrorCode.CONFLICT if is_used else None
        if self.change(lambda snapshot: rules.delete_source(snapshot, self.here, name), wrong=wrong):
            del self.configs[name]

    @rule(name=RUNNERS)
    def create_runner(self, name: str) -> None:
        id = new_runner_id()

        def decide(snapshot: Snapshot) -> Sequence[Change]:
            return rules.create_runner(snapshot, self.here, name, id=id, token_hash=id.encode(), at="")

        if self.change(decide, wrong=ErrorCode.CONFLICT if name in self.runners else None):
            self.runners[name] = self.snapshot.revision

    @rule(name=RUNNERS, force=st.booleans())
    def delete_runner(self, name: str, force: bool) -> None:
        is_used = any(runner == name for _, runner in self.assigned)
        wrong = (
            ErrorCode.NOT_FOUND if name not in self.runners else ErrorCode.CONFLICT if is_used and not force else None
        )
        if self.change(lambda snapshot: rules.delete_runner(snapshot, self.here, name, force=force), wrong=wrong):
            del self.runners[name]
            self.assigned = {(source, runner) for source, runner in self.assigned if runner != name}

    @rule(runner=RUNNERS, sources=st.lists(SOURCES, min_size=1, max_size=2))
    def assign(self, runner: str, sources: list[str]) -> None:
        is_known = runner in self.runners and all(source in self.configs for source in sources)
        decided = self.change(
            lambda snapshot: rules.assign(snapshot, self.here, runner, sources, at=""),
            wrong=None if is_known else ErrorCode.NOT_FOUND,
        )
        if decided:
            new = {(source, runner) for source in sources} - self.assigned
            if new:
                self.assigned |= new
                self.bump([runner])

    @rule(runner=RUNNERS, sources=st.lists(SOURCES, min_size=1, max_size=2))
    def unassign(self, runner: str, sources: list[str]) -> None:
        is_known = runner in self.runners and all(source in self.configs for source in sources)
        decided = self.change(
            lambda snapshot: rules.unassign(snapshot, self.here, runner, sources),
            wrong=None if is_known else ErrorCode.NOT_FOUND,
        )
        if decided:
            gone = {(source, runner) for source in sources} & self.assigned
            if gone:
                self.assigned -= gone
                self.bump([runner])

    @rule(runner=RUNNERS)
    def revoke(self, runner: str) -> None:
        wrong = None if runner in self.runners else ErrorCode.NOT_FOUND
        if self.change(lambda snapshot: rules.revoke_runner(snapshot, self.here, runner), wrong=wrong):
            assert self.runner(runner).is_revoked, "assignments are kept, so nothing goes inline by a revocation"

    @rule(runner=RUNNERS)
    def rotate(self, runner: str) -> None:
        id = new_runner_id()

        def decide(snapshot: Snapshot) -> Sequence[Change]:
            return rules.rotate_runner(
                snapshot,
                self.here,
                runner,
                token_hash=id.encode(),
                at="2026-01-01T00:00:00Z",
                overlap_until="2026-01-02T00:00:00Z",
            )

        if self.change(decide, wrong=None if runner in self.runners else ErrorCode.NOT_FOUND):
            found = self.runner(runner)
            assert not found.is_revoked
            assert found.tokens[0].hash == id.encode()
            assert len(found.tokens) <= 2

    @rule(lens=st.sampled_from(("orders", "items")), source=SOURCES)
    def put_lens(self, lens: str, source: str) -> None:
        declared = read_lens(lens, {"source": source, "table": "t", "fields": {"id": {"type": "integer"}}})

        def decide(snapshot: Snapshot) -> Sequence[Change]:
            return rules.put_lens(snapshot, self.here, declared, id=new_lens_id(), at="")

        if self.change(decide, wrong=None if source in self.configs else ErrorCode.NOT_FOUND):
            self.lenses[lens] = source

    # --- what always holds --------------------------------------------------------------------------------------------------

    @invariant()
    def the_snapshot_is_what_the_model_says(self) -> None:
        snapshot, here = self.snapshot, self.here
        assert {source.name for source in snapshot.sources(here)} == set(self.configs)
        assert {runner.name for runner in snapshot.runners(here)} == set(self.runners)
        names = {source.id: source.name for source in snapshot.sources(here)}
        assert {lens.name: names[lens.source] for lens in snapshot.lenses(here)} == self.lenses
        served = {
            (names[one.source], self.snapshot.runner_by_id(one.runner).name)  # type: ignore[union-attr]
            for one in snapshot.assignments(here)
        }
        assert served == self.assigned
        for name in self.configs:
            runners = {self.snapshot.runner_by_id(id).name for id in snapshot.runners_of(here, self.source(name))}  # type: ignore[union-attr]
            assert runners == {runner for source, runner in self.assigned if source == name}

    @invariant()
    def a_set_bears_the_revision_at_which_it_last_changed(self) -> None:
        for name, revision in self.runners.items():
            assert self.runner(name).set_revision == revision, name

    @invariant()
    def the_other_environment_is_untouched(self) -> None:
        assert sorted(map(repr, self.records_of(self.there))) == self.other

    @invariant()
    def a_snapshot_is_its_records(self) -> None:
        again = Snapshot.of(self.snapshot.records(), revision=self.snapshot.revision)
        assert sorted(map(repr, again.records())) == sorted(map(repr, self.snapshot.records()))
        assert again.assignments(self.here) == self.snapshot.assignments(self.here)

    # --- parts --------------------------------------------------------------------------------------------------------------

    def change(self, decide: Callable[[Snapshot], Sequence[Change]], *, wrong: ErrorCode | None = None) -> bool:
        """Decide as a store does; True when it was allowed."""
        if wrong is not None:
            with pytest.raises(LenswayError) as refused:
                decide(self.snapshot)
            assert refused.value.code is wrong
            return False
        changes = decide(self.snapshot)
        if changes:
            before = sorted(map(repr, self.snapshot.records()))
            after = self.snapshot.after(changes, revision=self.snapshot.revision + 1)
            assert sorted(map(repr, self.snapshot.records())) == before, "a snapshot never changes"
            self.snapshot = after
        return True

    def bump(self, runners) -> None:
        for runner in runners:
            self.runners[runner] = self.snapshot.revision

    def runner(self, name: str) -> Runner:
        return rules.require_runner(self.snapshot, self.here, name)

    def source(self, name: str):
        return rules.require_source(self.snapshot, self.here, name).id

    def records_of(self, environment) -> list[object]:
        return [record for record in self.snapshot.records() if getattr(record, "environment", None) == environment]


def draft(name: str, host: str):
    return read_source(name, {"bridge": "postgres", "config": {"host": host}})


def encoded(host: str) -> bytes:
    return b'{"host":"' + host.encode() + b'"}'


Catalog.TestCase.settings = settings(max_examples=200, stateful_step_count=30)
TestCatalog = Catalog.TestCase
