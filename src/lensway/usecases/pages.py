"""What the Console's pages read besides the fleet, in one place."""

from __future__ import annotations

import dataclasses

from lensway.usecases.audit import Audit
from lensway.usecases.desk import Desk
from lensway.usecases.environments import Environments
from lensway.usecases.key_pages import KeyPages, SettingsPage
from lensway.usecases.keys import Keys
from lensway.usecases.lens_pages import LensPages
from lensway.usecases.query import Queries
from lensway.usecases.record_pages import AuditPages, EventPages
from lensway.usecases.request_pages import RequestPages
from lensway.usecases.requests import RequestRing
from lensway.usecases.sign_ins import SignIns


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Pages:
    """Pages of requests, lenses, keys, events, audit rows, and the settings."""

    requests: RequestPages
    lenses: LensPages
    keys: KeyPages
    events: EventPages
    audit: AuditPages
    settings: SettingsPage


def pages_of(
    desk: Desk,
    *,
    ring: RequestRing,
    queries: Queries,
    keys: Keys,
    audit: Audit,
    environments: Environments,
    sign_ins: SignIns,
) -> Pages:
    """The pages of a node."""
    return Pages(
        requests=RequestPages(desk, ring),
        lenses=LensPages(desk, queries),
        keys=KeyPages(desk, keys),
        events=EventPages(desk),
        audit=AuditPages(desk, audit),
        settings=SettingsPage(desk, environments, sign_ins),
    )
