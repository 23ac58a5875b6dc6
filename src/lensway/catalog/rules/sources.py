"""Sources: made, changed and deleted. A change that its runners must hear of bumps the revision of their sets."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from lensway.catalog.definitions import SourceDraft, encode_config
from lensway.catalog.names import conflict, counted, invalid, listed
from lensway.catalog.records import Change, Credentials, Put, Remove, Source
from lensway.catalog.rules.lookup import new_sets_of, next_revision, require_environment, require_source
from lensway.catalog.snapshot import Snapshot
from lensway.ids import EnvironmentId, SourceId


def create_source(
    snapshot: Snapshot, environment: EnvironmentId, draft: SourceDraft, *, id: SourceId, at: str, path: str = ""
) -> Sequence[Change]:
    """A new source. ``path`` is where the draft stands, for errors.

    Raises:
        LenswayError: INVALID_REQUEST for managed credentials without a config, CONFLICT when the name is taken.
    """
    require_environment(snapshot, environment)
    if snapshot.source(environment, draft.name) is not None:
        raise conflict(f"Source {draft.name!r} already exists", hint="PATCH it, or choose another name.")
    if draft.credentials is Credentials.MANAGED and draft.config is None:
        raise _config_missing(path)
    config = None if draft.config is None else encode_config(draft.config)
    source = Source(
        environment=environment,
        id=id,
        name=draft.name,
        bridge=draft.bridge,
        dialect=draft.dialect,
        credentials=draft.credentials,
        execution=draft.execution,
        config_version=0 if config is None else next_revision(snapshot),
        created_at=at,
    )
    return [Put(record=source, config=config)]


def patch_source(
    snapshot: Snapshot,
    environment: EnvironmentId,
    name_or_id: str,
    draft: SourceDraft,
    *,
    stored_config: bytes | None,
    path: str = "",
) -> Sequence[Change]:
    """The source as the draft declares it. A draft without a config keeps the stored one.

    The version of a config is the revision that brought it: it never comes back, so that an old ciphertext never fits.

    Raises:
        LenswayError: NOT_FOUND, or INVALID_REQUEST when a config is needed and missing.
    """
    present = require_source(snapshot, environment, name_or_id)
    config = None if draft.config is None else encode_config(draft.config)
    if config is not None and config == stored_config and present.config_version:
        config = None
    if draft.credentials is Credentials.RUNNER_LOCAL:
        version = 0
    elif config is not None:
        version = next_revision(snapshot)
    else:
        version = present.config_version
        if draft.config is None and (version == 0 or draft.bridge != present.bridge):
            # Another kind of database has other settings; keeping the old ones could only fail later.
            raise _config_missing(path)
    wanted = msgspec.structs.replace(
        present,
        bridge=draft.bridge,
        dialect=draft.dialect,
        credentials=draft.credentials,
        execution=draft.execution,
        config_version=version,
    )
    if wanted == present:
        return []
    changes: list[Change] = [Put(record=wanted, config=config)]
    if _as_runners_see_it(wanted) != _as_runners_see_it(present):
        changes += new_sets_of(snapshot, environment, present.id)
    return changes


def delete_source(snapshot: Snapshot, environment: EnvironmentId, name_or_id: str) -> Sequence[Change]:
    """The source goes. Raises LenswayError NOT_FOUND, or CONFLICT naming the lenses and runners that depend on it."""
    source = require_source(snapshot, environment, name_or_id)
    lenses = [lens.name for lens in snapshot.lenses_of(environment, source.id)]
    found = [snapshot.runner_by_id(runner) for runner in snapshot.runners_of(environment, source.id)]
    runners = [runner.name for runner in found if runner is not None]
    reasons = []
    if lenses:
        reasons.append(f"has {counted(len(lenses), 'lens')} ({listed(lenses)})")
    if runners:
        reasons.append(f"is assigned to {counted(len(runners), 'runner')} ({listed(runners)})")
    if reasons:
        raise conflict(
            f"The source {source.name!r} {' and '.join(reasons)}",
            hint="Delete the lenses and remove the assignments first.",
            lenses=sorted(lenses),
            runners=sorted(runners),
        )
    return [Remove(record=source)]


def _as_runners_see_it(source: Source) -> tuple[object, ...]:
    return source.name, source.bridge, source.dialect, source.credentials, source.config_version


def _config_missing(path: str) -> Exception:
    return invalid(
        f"{path}.config" if path else "config",
        "is missing: managed credentials need a config",
        hint='Give `config`, or `credentials: "runner-local"` when the settings live on the runners.',
    )
