"""Runners, their tokens, and what they are assigned: the switch between inline and dispatched."""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Sequence

import msgspec

from lensway.catalog.names import check_name, conflict, counted, invalid, listed
from lensway.catalog.reading import described
from lensway.catalog.records import Assignment, Change, Put, Remove, Runner, RunnerToken
from lensway.catalog.rules.lookup import (
    next_revision,
    require_environment,
    require_runner,
    require_source,
    with_new_set,
)
from lensway.catalog.snapshot import Snapshot
from lensway.ids import EnvironmentId, RunnerId
from lensway.limits import NAME_CHARACTERS_MAX, TOKENS_PER_RUNNER_MAX


def create_runner(
    snapshot: Snapshot,
    environment: EnvironmentId,
    name: object,
    *,
    network: object = None,
    like: str | None = None,
    id: RunnerId,
    token_hash: bytes,
    at: str,
) -> Sequence[Change]:
    """A new runner. ``like`` takes the assignments of another runner over, and its network unless one is given.

    Raises:
        LenswayError: INVALID_REQUEST, NOT_FOUND for ``like``, CONFLICT when the name is taken.
    """
    require_environment(snapshot, environment)
    checked = check_name(name, kind="runner", path="name")
    if snapshot.runner(environment, checked) is not None:
        raise conflict(f"Runner {checked!r} already exists", hint="Choose another name; a runner may have instances.")
    model = None if like is None else require_runner(snapshot, environment, like)
    label = _check_network(network)
    sources = () if model is None else snapshot.sources_of(environment, model.id)
    runner = Runner(
        environment=environment,
        id=id,
        name=checked,
        network=model.network if model is not None and label is None else label,
        tokens=(RunnerToken(hash=token_hash, created_at=at),),
        set_revision=next_revision(snapshot),
        created_at=at,
    )
    return [
        Put(record=runner),
        *(Put(record=Assignment(environment=environment, source=one.id, runner=id, created_at=at)) for one in sources),
    ]


def patch_runner(
    snapshot: Snapshot, environment: EnvironmentId, name_or_id: str, *, network: object
) -> Sequence[Change]:
    """The runner with another network label; None takes the label away. Raises LenswayError NOT_FOUND, INVALID_REQUEST."""
    runner = require_runner(snapshot, environment, name_or_id)
    return _replaced(runner, msgspec.structs.replace(runner, network=_check_network(network)))


def delete_runner(
    snapshot: Snapshot, environment: EnvironmentId, name_or_id: str, *, force: bool = False
) -> Sequence[Change]:
    """The runner goes; with ``force`` its assignments too.

    Raises:
        LenswayError: NOT_FOUND, or CONFLICT while it has assignments: a source must never go inline by accident.
    """
    runner = require_runner(snapshot, environment, name_or_id)
    sources = snapshot.sources_of(environment, runner.id)
    if sources and not force:
        names = [source.name for source in sources]
        raise conflict(
            f"The runner {runner.name!r} is assigned {counted(len(names), 'source')} ({listed(names)})",
            hint="Unassign them first, or use force: the service then executes sources without another runner inline.",
            sources=sorted(names),
        )
    assignments = (snapshot.assignment(environment, source.id, runner.id) for source in sources)
    return [*(Remove(record=one) for one in assignments if one is not None), Remove(record=runner)]


def rotate_runner(
    snapshot: Snapshot,
    environment: EnvironmentId,
    name_or_id: str,
    *,
    token_hash: bytes,
    at: str,
    overlap_until: str,
) -> Sequence[Change]:
    """A new token; the one before stays good until ``overlap_until``. A revoked runner gets the new one only, and is back.

    Raises:
        LenswayError: NOT_FOUND.
    """
    runner = require_runner(snapshot, environment, name_or_id)
    new = RunnerToken(hash=token_hash, created_at=at)
    kept = () if runner.is_revoked else _still_good(runner.tokens, at=at, until=overlap_until)
    tokens = (new, *kept[: TOKENS_PER_RUNNER_MAX - 1])
    return [Put(record=msgspec.structs.replace(runner, tokens=tokens, is_revoked=False))]


def revoke_runner(snapshot: Snapshot, environment: EnvironmentId, name_or_id: str) -> Sequence[Change]:
    """The runner's tokens open nothing any more; its assignments stay. Raises LenswayError NOT_FOUND."""
    runner = require_runner(snapshot, environment, name_or_id)
    return _replaced(runner, msgspec.structs.replace(runner, is_revoked=True))


def drain_runner(snapshot: Snapshot, environment: EnvironmentId, name_or_id: str) -> Sequence[Change]:
    """The runner gets nothing new until it is resumed; its assignments stay. Raises LenswayError NOT_FOUND."""
    runner = require_runner(snapshot, environment, name_or_id)
    return _replaced(runner, msgspec.structs.replace(runner, is_draining=True))


def resume_runner(snapshot: Snapshot, environment: EnvironmentId, name_or_id: str) -> Sequence[Change]:
    """The runner serves again after a drain. Raises LenswayError NOT_FOUND, or CONFLICT when it is revoked."""
    runner = require_runner(snapshot, environment, name_or_id)
    if runner.is_revoked:
        raise conflict(f"The runner {runner.name!r} is revoked", hint="Rotate its token to reactivate it.")
    return _replaced(runner, msgspec.structs.replace(runner, is_draining=False))


def assign(
    snapshot: Snapshot, environment: EnvironmentId, runner: str, sources: Iterable[str], *, at: str
) -> Sequence[Change]:
    """The runner serves these sources too. What it serves already changes nothing.

    Raises:
        LenswayError: NOT_FOUND for the runner or any of the sources; then nothing is assigned.
    """
    found = require_runner(snapshot, environment, runner)
    wanted = {one.id: one for one in (require_source(snapshot, environment, name) for name in sources)}
    changes: list[Change] = [
        Put(record=Assignment(environment=environment, source=source, runner=found.id, created_at=at))
        for source in wanted
        if snapshot.assignment(environment, source, found.id) is None
    ]
    return [*changes, with_new_set(found, snapshot)] if changes else []


def unassign(snapshot: Snapshot, environment: EnvironmentId, runner: str, sources: Iterable[str]) -> Sequence[Change]:
    """The runner serves these sources no more. What it does not serve changes nothing.

    Raises:
        LenswayError: NOT_FOUND for the runner or any of the sources; then nothing is unassigned.
    """
    found = require_runner(snapshot, environment, runner)
    unwanted = {one.id: one for one in (require_source(snapshot, environment, name) for name in sources)}
    present = (snapshot.assignment(environment, source, found.id) for source in unwanted)
    changes: list[Change] = [Remove(record=one) for one in present if one is not None]
    return [*changes, with_new_set(found, snapshot)] if changes else []


def is_token_good(token: RunnerToken, *, at: str) -> bool:
    """True while the token has not been superseded for longer than the overlap; both times are RFC 3339."""
    if token.expires_at is None:
        return True
    return datetime.datetime.fromisoformat(at) < datetime.datetime.fromisoformat(token.expires_at)


def _still_good(tokens: Sequence[RunnerToken], *, at: str, until: str) -> tuple[RunnerToken, ...]:
    return tuple(
        token if token.expires_at is not None else msgspec.structs.replace(token, expires_at=until)
        for token in tokens
        if is_token_good(token, at=at)
    )


def _check_network(network: object) -> str | None:
    if network is None:
        return None
    if (
        not isinstance(network, str)
        or not network.strip()
        or not network.isprintable()
        or len(network) > NAME_CHARACTERS_MAX
    ):
        shape = described(network) if not isinstance(network, str) else "this text"
        raise invalid(
            "network", f"{shape} cannot label a network", hint=f"1 to {NAME_CHARACTERS_MAX} printable characters."
        )
    return network


def _replaced(before: Runner, after: Runner) -> Sequence[Change]:
    return [] if before == after else [Put(record=after)]
