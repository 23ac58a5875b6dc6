"""What a runner's instance is to be told: its assigned sources, their settings sealed to the instance's key."""

from __future__ import annotations

from typing import TypeAlias

from lensway import limits
from lensway.auth import sealing
from lensway.catalog.ports import CatalogStore
from lensway.catalog.records import Credentials, Runner, Source
from lensway.clock import Clock
from lensway.ids import SourceId
from lensway.protocol.frames import AssignedSource

SealedSources: TypeAlias = dict[SourceId, tuple[float, Source, AssignedSource]]
"""What one session was pushed last: when each source was sealed for it, from which record, and the outcome."""


class AssignmentSets:
    """Sets made from the newest snapshot, sealed at the moment they are asked for."""

    def __init__(self, store: CatalogStore, clock: Clock) -> None:
        self._store = store
        self._clock = clock

    def wall_ms(self) -> int:
        """The wall clock that the expiry of what is sealed here counts on."""
        return int(self._clock.wall().timestamp() * 1000)

    def sources_of(self, runner: Runner) -> frozenset[SourceId]:
        """The sources that the runner is assigned."""
        return frozenset(each.id for each in self._store.current().sources_of(runner.environment, runner.id))

    def set_of(
        self, runner: Runner, public_key: bytes, sealed: SealedSources | None = None
    ) -> tuple[AssignedSource, ...]:
        """Every source that the runner is assigned, by name. ``sealed`` keeps what was sealed for the same key a moment ago."""
        sources = self._store.current().sources_of(runner.environment, runner.id)
        if sealed is None:
            return tuple(self._assigned(runner, source, public_key) for source in sources)
        since = self._clock.monotonic() - limits.SEALED_REUSE_SECONDS
        before = dict(sealed)
        sealed.clear()
        for source in sources:
            at, source_before, assigned = before.get(source.id, (since, None, None))
            if assigned is None or source_before is not source or at <= since:
                at, assigned = self._clock.monotonic(), self._assigned(runner, source, public_key)
            sealed[source.id] = (at, source, assigned)
        return tuple(assigned for _, _, assigned in sealed.values())

    def spec_of(self, runner: Runner, source: SourceId, public_key: bytes) -> AssignedSource | None:
        """One source for a test before it is assigned; None when it is gone."""
        found = self._store.current().source(runner.environment, source)
        return None if found is None else self._assigned(runner, found, public_key)

    def _assigned(self, runner: Runner, source: Source, public_key: bytes) -> AssignedSource:
        sealed = None
        if source.credentials is Credentials.MANAGED:
            config = self._store.source_config(source.environment, source.id)
            if config is not None:
                claims = sealing.SealClaims(
                    environment=source.environment,
                    source=source.id,
                    runner=runner.id,
                    version=source.config_version,
                    expires_at_wall_ms=self.wall_ms() + int(limits.CREDENTIAL_SEAL_SECONDS * 1000),
                )
                sealed = sealing.seal(config, public_key, claims)
        return AssignedSource(
            source=source.id,
            name=source.name,
            bridge=source.bridge,
            config_version=source.config_version,
            sealed_config=sealed,
            dialect=source.dialect,
        )
