"""The sources assigned to this runner: settings and state. In memory only, dropped on unassignment."""

from __future__ import annotations

import asyncio
import dataclasses
import itertools
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Final

import msgspec

from lensway import limits
from lensway.auth import sealing
from lensway.errors import ErrorCode, LenswayError
from lensway.protocol.frames import OVERRIDES, AssignedSource, RefuseReason, SourceState
from lensway.protocol.policy import ADDRESS, PATH, SOURCE
from lensway.runner.credentials import (
    INVALID,
    LocalCredentials,
    differ_in_password_only,
    merged,
    variable_of,
)
from lensway.runner.library import Library
from lensway.runner.policy import PolicyInForce

_SOURCES_AT_ONCE: Final = 20
"""Sources resolved in one turn of the loop: opening sealed settings takes 0.1 ms each."""
READY = "ready"
UNREACHABLE = "unreachable"

_REFUSALS: Mapping[str, RefuseReason] = {
    "no_bridge": RefuseReason.NO_BRIDGE,
    "no_credentials": RefuseReason.NO_CREDENTIALS,
    "credentials_ambiguous": RefuseReason.CREDENTIALS_AMBIGUOUS,
    "refused": RefuseReason.POLICY,
}


@dataclasses.dataclass(slots=True, kw_only=True)
class ServedSource:
    """One assigned source as this process can, or cannot, serve it."""

    id: str
    name: str
    bridge: str
    key: Hashable
    config: Mapping[str, object] = dataclasses.field(repr=False)
    state: str
    assigned: AssignedSource = dataclasses.field(repr=False)
    managed: Mapping[str, object] | None = dataclasses.field(repr=False)
    """What the service says of it, opened; None when that could not be."""
    local: Mapping[str, str] = dataclasses.field(repr=False)
    cause: str = ""
    contacts: int = 0
    """How often queries and probes have shown how it is."""

    @property
    def shown_cause(self) -> str:
        """Why it is in its state; for one that is ready, which managed settings this machine's own override."""
        if self.state == READY and not self.cause and self.managed and self.local:
            return f"{OVERRIDES}{', '.join(sorted(self.local))}"
        return self.cause

    @property
    def refusal(self) -> RefuseReason | None:
        """Why every offer for it is refused; None when it can be tried."""
        return _REFUSALS.get(self.state)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Opener:
    """Opens sealed settings: the key pair of this instance, who the settings must be for, and the gateway's wall clock."""

    keys: sealing.InstanceKeys
    environment: str
    runner: str
    wall_ms: Callable[[], int]

    def open(self, source: AssignedSource) -> Mapping[str, object]:
        """The settings inside. Raises LenswayError when they are not for us, too old, or not readable."""
        if source.sealed_config is None:
            return {}
        plain = sealing.open_sealed(
            source.sealed_config,
            self.keys,
            environment=self.environment,
            source=source.source,
            runner=self.runner,
            version=source.config_version,
            now_wall_ms=self.wall_ms(),
        )
        return msgspec.json.decode(plain, type=dict[str, object])


class AssignedSources:
    """The set in force, and the state of each source in it."""

    def __init__(self, library: Library, local: LocalCredentials, policy: PolicyInForce) -> None:
        self._library = library
        self._local = local
        self._policy = policy
        self._served: dict[str, ServedSource] = {}
        self._changed: dict[str, ServedSource] = {}

    def __len__(self) -> int:
        return len(self._served)

    def __iter__(self) -> object:
        return iter(list(self._served.values()))

    @property
    def has_files(self) -> bool:
        """True when local settings stand in files, which may change."""
        return self._local.has_files

    async def files_changed(self) -> bool:
        """True when one of these files has changed since it was looked at last."""
        return self._local.has_files and await asyncio.to_thread(self._local.files_changed)

    def served(self) -> Sequence[ServedSource]:
        """Every assigned source."""
        return tuple(self._served.values())

    def get(self, source: str) -> ServedSource | None:
        """The assigned source of this id."""
        return self._served.get(source)

    def is_used(self, key: Hashable) -> bool:
        """True when an assigned source has these settings."""
        return any(served.key == key for served in self._served.values())

    async def apply(self, sources: Sequence[AssignedSource], opener: Opener) -> list[Hashable]:
        """Make this set the one in force; the keys of settings that are not used any more.

        A large set takes some turns of the loop, in which the one before stays in force.
        """
        names = [source.name for source in sources]
        ambiguous = self._local.ambiguous(names)
        divided = self._local.divided(names)
        fresh: dict[str, ServedSource] = {}
        for number, source in enumerate(sources, start=1):
            fresh[source.source] = self.resolve(source, opener, divided, ambiguous=source.name in ambiguous)
            if number % _SOURCES_AT_ONCE == 0:
                await asyncio.sleep(0)
        before, self._served = self._served, fresh
        for served in fresh.values():
            known = before.get(served.id)
            if known is not None and known.key == served.key and served.state == READY:
                served.state, served.cause = known.state, known.cause
        self._changed = {}
        kept = {served.key for served in self._served.values()}
        return [served.key for served in before.values() if served.key not in kept]

    def resolve_unassigned(self, source: AssignedSource, opener: Opener) -> ServedSource:
        """What this process could do about a source that it is not assigned, next to those that it is."""
        names = [source.name, *(each.name for each in self._served.values())]
        return self.resolve(source, opener, self._local.divided(names))

    def resolve(
        self,
        source: AssignedSource,
        opener: Opener,
        divided: Mapping[str, Sequence[str]],
        *,
        ambiguous: bool = False,
    ) -> ServedSource:
        """What this process can do about a source: its settings, or the state that says why not."""
        try:
            managed: Mapping[str, object] | None = opener.open(source)
        except LenswayError:
            managed = None
        return self._settled(source, managed, self._local.settings_in(source.name, divided), ambiguous=ambiguous)

    def refresh(self, *, has_failed: bool) -> list[Hashable]:
        """Read the files of local settings again; the keys of settings that are not used any more.

        A new password alone leaves a source that works as it is, unless a login ``has_failed``: the file may be rotated before
        the database. A file that is being written, or is gone for now, changes nothing: what was read last stays in use.
        """
        names = [served.name for served in self._served.values()]
        ambiguous, divided = self._local.ambiguous(names), self._local.divided(names)
        unused: list[Hashable] = []
        for known in list(self._served.values()):
            local = self._local.settings_in(known.name, divided)
            now = self._settled(known.assigned, known.managed, local, ambiguous=known.name in ambiguous)
            is_whole = all(local.values()) and INVALID not in local
            if now.key == known.key or not is_whole or (now.refusal and not known.refusal):
                continue
            if not has_failed and known.state == READY and differ_in_password_only(known.local, local):
                continue
            unused.append(known.key)
            self._served[known.id] = self._changed[known.id] = now
        return unused

    def obey_policy(self) -> list[Hashable]:
        """Judge every source by the policy, which has changed; the keys of settings that may not be used any more."""
        names = [served.name for served in self._served.values()]
        ambiguous, divided = self._local.ambiguous(names), self._local.divided(names)
        unused: list[Hashable] = []
        for known in list(self._served.values()):
            local = self._local.settings_in(known.name, divided)
            now = self._settled(known.assigned, known.managed, local, ambiguous=known.name in ambiguous)
            if now.refusal is known.refusal and now.key == known.key:
                continue
            if now.refusal is not None:
                unused.append(known.key)
            self._served[known.id] = self._changed[known.id] = now
        return unused

    def _settled(
        self,
        source: AssignedSource,
        managed: Mapping[str, object] | None,
        local: Mapping[str, str],
        *,
        ambiguous: bool,
    ) -> ServedSource:
        state, cause, config = READY, "", {}
        if managed is None:
            state, cause = "no_credentials", "unreadable"
        else:
            config = merged(managed, local, address_keys=self._local.address_keys_of(source.bridge))
        if not self._policy.now.allows_source(source.name):
            state, cause = "refused", SOURCE
        elif source.bridge not in self._library.installed():
            state, cause = "no_bridge", source.bridge
        elif not self._library.speaks(source.bridge, source.dialect):
            state, cause = "no_bridge", f"{source.bridge} without dialect {source.dialect}"
        elif ambiguous and local:
            state, cause = "credentials_ambiguous", ""
        elif INVALID in local:
            state, cause = "no_credentials", f"invalid_settings: {local[INVALID]}"
        elif state == READY and not config:
            state, cause = "no_credentials", ""
        elif state == READY:
            state, cause = self._checked(source, config, local)
        # Local settings are part of the identity: a changed file means other connections.
        identity = (source.source, source.config_version, tuple(sorted(local.items())))
        return ServedSource(
            id=source.source,
            name=source.name,
            bridge=source.bridge,
            key=(source.source, source.config_version, hash(identity)),
            config=config if state == READY else {},
            state=state,
            assigned=source,
            managed=managed,
            local=local,
            cause=cause,
        )

    def _checked(
        self, source: AssignedSource, config: Mapping[str, object], local: Mapping[str, str]
    ) -> tuple[str, str]:
        try:
            self._library.check(source.bridge, config)
        except LenswayError as error:
            if error.code in (ErrorCode.REFUSED_BY_RUNNER, ErrorCode.FORBIDDEN):
                return "refused", PATH if error.failure.details.get("rule") == PATH else ADDRESS
            key, colon, what = str(error).removeprefix("config.").partition(":")
            if colon and key in local:
                return (
                    "no_credentials",
                    f"invalid_settings: LENSWAY_SOURCE_{variable_of(source.name)}_{key.upper()}:{what}",
                )
            return "no_credentials", f"invalid_settings: {error}"
        return READY, ""

    def note(self, source: str, state: str, cause: str = "") -> bool:
        """What the last contact showed; True when that is news."""
        served = self._served.get(source)
        if served is None or served.refusal is not None:
            return False
        served.contacts += 1
        if (served.state, served.cause) == (state, cause):
            return False
        served.state, served.cause = state, cause
        self._changed[source] = served
        return True

    def states(self) -> tuple[SourceState, ...]:
        """The state of every source."""
        return tuple(map(_state_of, self._served.values()))

    def take_changes(self) -> tuple[SourceState, ...]:
        """States that changed since they were taken last, as many as one report holds."""
        taken = list(itertools.islice(self._changed, limits.SOURCE_STATES_MAX))
        return tuple(_state_of(self._changed.pop(source)) for source in taken)

    @property
    def has_changes(self) -> bool:
        """True when `take_changes` would give something."""
        return bool(self._changed)

    def clear(self) -> list[Hashable]:
        """Drop every setting; the keys that were used."""
        keys = [served.key for served in self._served.values()]
        self._served = {}
        return keys


def _state_of(served: ServedSource) -> SourceState:
    cause = served.shown_cause[: limits.RUNNER_TEXT_CHARACTERS_MAX]
    return SourceState(source=served.id, state=served.state, cause=cause)
