"""Lenses are put and deleted freely; nothing depends on one."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from lensway.catalog.definitions import LensDraft
from lensway.catalog.records import Change, Lens, Put, Remove
from lensway.catalog.rules.lookup import require_lens, require_source
from lensway.catalog.snapshot import Snapshot
from lensway.ids import EnvironmentId, LensId


def put_lens(
    snapshot: Snapshot, environment: EnvironmentId, draft: LensDraft, *, id: LensId, at: str
) -> Sequence[Change]:
    """The lens as the draft declares it: a new one with ``id`` and ``at``, or the next version of the one of this name.

    Raises:
        LenswayError: NOT_FOUND when the source does not exist in this environment.
    """
    source = require_source(snapshot, environment, draft.source)
    wanted = Lens(
        environment=environment,
        id=id,
        name=draft.name,
        source=source.id,
        definition=draft.definition,
        query_grant=draft.query_grant,
        limits=draft.limits,
        retry=draft.retry,
        created_at=at,
    )
    present = snapshot.lens(environment, draft.name)
    if present is None:
        return [Put(record=wanted)]
    wanted = msgspec.structs.replace(wanted, id=present.id, version=present.version, created_at=present.created_at)
    if wanted == present and list(wanted.definition.fields) == list(present.definition.fields):
        # The order of fields is part of a lens (rows and composite keys follow it), but not of a dict's equality.
        return []
    return [Put(record=msgspec.structs.replace(wanted, version=present.version + 1))]


def delete_lens(snapshot: Snapshot, environment: EnvironmentId, name: str) -> Sequence[Change]:
    """The lens goes. Raises LenswayError NOT_FOUND."""
    return [Remove(record=require_lens(snapshot, environment, name))]
