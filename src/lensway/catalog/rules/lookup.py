"""Objects that must exist, and what every rule needs of the revision.

Another environment's object is not found, exactly as one that never existed; suggestions come from the own environment only.
"""

from __future__ import annotations

import msgspec

from lensway.catalog.names import not_found
from lensway.catalog.records import Change, Environment, Key, Lens, Put, Runner, Source
from lensway.catalog.snapshot import Snapshot
from lensway.ids import EnvironmentId, KeyId, RunnerId, SourceId


def require_environment(snapshot: Snapshot, name_or_id: str) -> Environment:
    """The environment of this name or id. Raises LenswayError NOT_FOUND."""
    found = snapshot.environment(name_or_id)
    if found is None:
        # No suggestion: a key of one environment must not learn the names of others.
        raise not_found("environment", name_or_id)
    return found


def require_source(snapshot: Snapshot, environment: EnvironmentId, name_or_id: str) -> Source:
    """The source of this name or id. Raises LenswayError NOT_FOUND with the nearest name."""
    found = snapshot.source(environment, name_or_id)
    if found is None:
        raise not_found("source", name_or_id, snapshot.names(environment)["source"])
    return found


def require_lens(snapshot: Snapshot, environment: EnvironmentId, name: str) -> Lens:
    """The lens of this name. Raises LenswayError NOT_FOUND with the nearest name."""
    found = snapshot.lens(environment, name)
    if found is None:
        raise not_found("lens", name, snapshot.names(environment)["lens"])
    return found


def require_runner(snapshot: Snapshot, environment: EnvironmentId, name_or_id: str) -> Runner:
    """The runner of this name or id. Raises LenswayError NOT_FOUND with the nearest name."""
    found = snapshot.runner(environment, name_or_id)
    if found is None:
        raise not_found("runner", name_or_id, snapshot.names(environment)["runner"])
    return found


def require_key(snapshot: Snapshot, environment: EnvironmentId | None, key: str) -> Key:
    """The key of this id, bound to this environment (None: instance-wide). Raises LenswayError NOT_FOUND."""
    found = snapshot.key(KeyId(key))
    if found is None or found.environment != environment:
        raise not_found("key", key)
    return found


def next_revision(snapshot: Snapshot) -> int:
    """The revision that the next change makes."""
    return snapshot.revision + 1


def with_new_set(runner: Runner, snapshot: Snapshot) -> Put:
    """The change that says: this runner's set is another one from now on."""
    return Put(record=msgspec.structs.replace(runner, set_revision=next_revision(snapshot)))


def new_sets_of(snapshot: Snapshot, environment: EnvironmentId, source: SourceId) -> list[Change]:
    """The changes that bump the set of every runner of a source."""
    return [with_new_set(_present(snapshot, runner), snapshot) for runner in snapshot.runners_of(environment, source)]


def _present(snapshot: Snapshot, runner: RunnerId) -> Runner:
    found = snapshot.runner_by_id(runner)
    assert found is not None, "an assignment names a runner that does not exist"
    return found
