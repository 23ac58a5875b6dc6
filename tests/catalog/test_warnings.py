"""R13: the bad patterns are pointed out where they are made, each with its code, and nothing else is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pytest

from lensway.catalog import rules
from lensway.catalog.definitions import read_source
from lensway.catalog.records import Environment
from lensway.catalog.snapshot import Snapshot
from lensway.catalog.warnings import InstanceView, WarningCode, warnings_now, warnings_of_change
from lensway.ids import RunnerId, new_environment_id, new_runner_id, new_source_id

HERE = new_environment_id()


class Fleet:
    """Instances by runner name."""

    def __init__(self, snapshot: Snapshot, instances: Mapping[str, Sequence[InstanceView]]) -> None:
        self._by_id = {rules.require_runner(snapshot, HERE, name).id: views for name, views in instances.items()}

    def instances(self, runner: RunnerId) -> Sequence[InstanceView]:
        return self._by_id.get(runner, ())


class Site:
    """A catalog under construction."""

    def __init__(self, **runners: str | None) -> None:
        self.snapshot = Snapshot.of([Environment(id=HERE, name="default", created_at="")], revision=1)
        self.ids = {}
        for name in ("main", "shop"):
            draft = read_source(name, {"bridge": "postgres", "config": {"host": "h"}})
            self.ids[name] = new_source_id()
            self.apply(rules.create_source(self.snapshot, HERE, draft, id=self.ids[name], at=""))
        for name, network in runners.items():
            self.apply(
                rules.create_runner(
                    self.snapshot, HERE, name, network=network, id=new_runner_id(), token_hash=name.encode(), at=""
                )
            )

    def apply(self, changes) -> None:
        self.snapshot = self.snapshot.after(changes, revision=self.snapshot.revision + 1)

    def assign(self, runner: str, *sources: str) -> None:
        self.apply(rules.assign(self.snapshot, HERE, runner, sources, at=""))

    def now(self, **instances: Sequence[InstanceView]) -> list[tuple[str, str | None, str | None]]:
        found = warnings_now(self.snapshot, environment=HERE, fleet=Fleet(self.snapshot, instances))
        return [(one.code.value, one.source, one.runner) for one in found]

    def live(self, *, bridges=("postgres",), is_live: bool = True, **states: str) -> list[InstanceView]:
        by_id = {self.ids[name]: state for name, state in states.items()}
        return [InstanceView(is_live=is_live, bridges=bridges, source_states=by_id)]


def test_r13_a_redundant_pair_gives_no_warning() -> None:
    site = Site(alpha=None, beta=None)
    site.assign("alpha", "main")
    site.assign("beta", "main")
    assert site.now(alpha=site.live(), beta=site.live()) == []


def test_r13_single_runner_counts_instances() -> None:
    site = Site(alpha=None)
    site.assign("alpha", "main")
    assert site.now(alpha=site.live()) == [("single_runner", "main", "alpha")]
    assert site.now(alpha=[*site.live(), *site.live()]) == []


def test_r13_a_runner_that_is_off_is_expected_back_and_warned_of() -> None:
    site = Site(alpha=None, beta=None)
    site.assign("alpha", "main")
    site.assign("beta", "main")
    assert site.now(alpha=site.live()) == [("runner_offline", "main", "beta")]
    assert ("runner_offline", "main", "beta") in site.now(alpha=site.live(), beta=site.live(is_live=False))


def test_r13_no_live_runner_left_comes_first() -> None:
    site = Site(alpha=None)
    site.assign("alpha", "main")
    assert [code for code, _, _ in site.now()] == ["no_live_runner_left", "runner_offline", "single_runner"]


def test_r13_a_revoked_runner_is_not_expected_back() -> None:
    site = Site(alpha=None, beta=None)
    site.assign("alpha", "main")
    site.assign("beta", "main")
    site.apply(rules.revoke_runner(site.snapshot, HERE, "alpha"))
    assert site.now(beta=site.live()) == [("runner_offline", "main", "alpha"), ("single_runner", "main", "beta")]
    site.apply(rules.revoke_runner(site.snapshot, HERE, "beta"))
    assert [code for code, _, _ in site.now()] == ["no_live_runner_left", "runner_offline", "runner_offline"]


@pytest.mark.parametrize(
    ("state", "code"),
    [
        ("no_bridge", "bridge_missing"),
        ("no_credentials", "credentials_missing"),
        ("credentials_ambiguous", "credentials_missing"),
        ("unreachable", "runner_unreachable"),
    ],
)
def test_r13_what_a_runner_reports_of_a_source(state: str, code: str) -> None:
    site = Site(alpha=None, beta=None)
    site.assign("alpha", "main")
    site.assign("beta", "main")
    assert site.now(alpha=site.live(main=state), beta=site.live()) == [(code, "main", "alpha")]


def test_r13_replicas_that_encode_different_formats() -> None:
    site = Site(alpha=None, beta=None)
    site.assign("alpha", "main")
    site.assign("beta", "main")

    def able(*encodings: str) -> list[InstanceView]:
        return [InstanceView(is_live=True, bridges=("postgres",), encodings=encodings)]

    assert site.now(alpha=able("json"), beta=able("json", "arrow")) == [("replicas_differ", "main", "alpha")]
    assert site.now(alpha=able("json", "arrow"), beta=able("json", "arrow")) == []
    assert site.now(alpha=able(), beta=able("json", "arrow")) == [], "an older runner names none"


def test_r13_a_bridge_that_no_instance_has() -> None:
    site = Site(alpha=None, beta=None)
    site.assign("alpha", "main")
    site.assign("beta", "main")
    assert site.now(alpha=site.live(bridges=("sqlite",)), beta=site.live()) == [("bridge_missing", "main", "alpha")]


def test_r13_replicas_are_runners_that_share_a_source_or_a_network() -> None:
    site = Site(alpha=None, beta=None)
    site.assign("alpha", "main", "shop")
    site.assign("beta", "main")
    codes = {code for code, _, _ in site.now(alpha=[*site.live(), *site.live()], beta=site.live())}
    assert codes == {"replicas_differ"}

    labelled = Site(alpha="north", beta="north")
    labelled.assign("alpha", "main")
    labelled.assign("beta", "shop")
    live = [*labelled.live(), *labelled.live()]
    assert {code for code, _, _ in labelled.now(alpha=live, beta=live)} == {"replicas_differ"}


def test_r13_wholly_disjoint_runners_are_separate_networks() -> None:
    site = Site(alpha=None, beta=None)
    site.assign("alpha", "main")
    site.assign("beta", "shop")
    live = [*site.live(), *site.live()]
    assert site.now(alpha=live, beta=live) == []


def test_r13_taking_the_last_runner_away_goes_inline_and_says_so_before() -> None:
    site = Site(alpha=None)
    site.assign("alpha", "main")
    changes = rules.unassign(site.snapshot, HERE, "alpha", ["main"])
    after = site.snapshot.after(changes, revision=site.snapshot.revision + 1)
    fleet = Fleet(site.snapshot, {"alpha": site.live()})
    found = warnings_of_change(site.snapshot, after, changes, environment=HERE, fleet=fleet)
    assert [(one.code, one.source) for one in found] == [(WarningCode.GOES_INLINE, "main")]


def test_r13_a_change_is_warned_of_what_it_touches_only() -> None:
    site = Site(alpha=None, beta=None)
    site.assign("alpha", "shop")
    changes = rules.assign(site.snapshot, HERE, "beta", ["main"], at="")
    after = site.snapshot.after(changes, revision=site.snapshot.revision + 1)
    fleet = Fleet(site.snapshot, {"beta": site.live()})
    found = warnings_of_change(site.snapshot, after, changes, environment=HERE, fleet=fleet)
    assert [(one.code, one.source) for one in found] == [(WarningCode.SINGLE_RUNNER, "main")]
